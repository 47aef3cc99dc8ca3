"""Money on its way back, the operator's word on what is above the cap, and what else a person should know of money.

For platform admins.
"""

from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from api.auth.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.admin.charges import Decision
from api.routes.admin.corrections import Reason
from api.routes.admin.scope import reach_tenant
from api.routes.bill_items import iso
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.schemas.fields import EXAMPLE_ID, Body, Text, example
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.models import BillingFinding, Refund
from billing.payments.lists import close_finding, list_findings, list_refunds
from billing.payments.refunds import decide

router = APIRouter()

RefundId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
Closed = Annotated[bool, Query(description="Those that were closed, instead of the open ones", examples=[False])]
After = Annotated[Text | None, Query(alias="cursor", description="`next` of the page before", examples=["dispute:d"])]


class RefundState(StrEnum):
    """The states of a refund (`billing.models.money.Refund`)."""

    AWAITING_OPERATOR = "awaiting_operator"
    INTENDED = "intended"
    SUBMITTING = "submitting"
    PENDING = "pending"
    PROCESSED = "processed"
    FAILED = "failed"
    VOID = "void"


StateWanted = Annotated[RefundState | None, Query(description="Only these", examples=["awaiting_operator"])]


class RefundItem(BaseModel):
    """One refund. `cause` says why: `excess:<payment>`, `credit:...`, `extra:...`, `razorpay:...` (by hand there)."""

    id: UUID
    tenant_id: UUID
    payment_id: str
    amount_paise: int
    cause: str
    state: RefundState
    razorpay_id: str | None
    error: str | None
    created_at: str

    @classmethod
    def of(cls, refund: Refund) -> Self:
        """As it is answered."""
        shown = {name: getattr(refund, name) for name in cls.model_fields if name != "created_at"}
        return cls.model_validate(shown | {"created_at": iso(refund.created_ms)})


class FindingItem(BaseModel):
    """Something about money that a person should know. `key` names it."""

    key: str
    tenant_id: UUID | None
    kind: str
    detail: dict[str, Any]
    seen_at: str
    closed_at: str | None

    @classmethod
    def of(cls, finding: BillingFinding) -> Self:
        """As it is answered."""
        return cls(
            key=finding.key,
            tenant_id=finding.tenant_id,
            kind=finding.kind,
            detail=finding.detail,
            seen_at=str(iso(finding.seen_ms)),
            closed_at=iso(finding.closed_ms),
        )


class FindingClose(Body):
    """Which finding was looked at, and what came of it."""

    model_config = example(key="dispute:disp_AbCdEf12345678", reason="answered in the dashboard")

    key: Text
    reason: Reason


@router.get("/refunds")
async def all_refunds(
    *,
    principal: PlatformAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    state: StateWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[RefundItem]:
    """Refunds, newest first."""
    async with runtime.database.session() as session:
        if tenant_id is not None:
            await reach_tenant(session, principal, tenant_id)
        rows = await list_refunds(session, tenant_id=tenant_id, state=state, before=cursor, limit=size + 1)
    return page(rows, size, RefundItem.of)


@router.post("/refunds/{refund_id}/approve")
async def approve_refund(
    refund_id: RefundId, body: Decision, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> RefundItem:
    """Send a refund that is above the cap."""
    actor = actor_of(request, principal)
    return RefundItem.of(await decide(runtime.billing, actor, refund_id, approve=True, reason=body.reason))


@router.post("/refunds/{refund_id}/deny")
async def deny_refund(
    refund_id: RefundId, body: Decision, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> RefundItem:
    """Do not send a refund that is above the cap."""
    actor = actor_of(request, principal)
    return RefundItem.of(await decide(runtime.billing, actor, refund_id, approve=False, reason=body.reason))


@router.get("/findings")
async def all_findings(
    *,
    _: PlatformAdmin,
    runtime: RuntimeDep,
    closed: Closed = False,
    after: After = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[FindingItem]:
    """What a person should look at: disputes, failed refunds, extra subscriptions; newest first."""
    async with runtime.database.session() as session:
        rows = await list_findings(session, closed=closed, before=after, limit=size + 1)
    return page(rows, size, FindingItem.of, lambda finding: finding.key)


@router.post("/findings/close")
async def close_one(body: FindingClose, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> FindingItem:
    """Say that a finding was looked at."""
    async with runtime.database.session() as session:
        found = await close_finding(session, actor_of(request, principal), body.key, body.reason)
    return FindingItem.of(found)
