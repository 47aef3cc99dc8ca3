"""How bills are collected: every attempt, and the operator's word on one that Razorpay refused. For platform admins.

The link that an attempt is paid by is shown to the tenant's own admin alone (`/v1/billing/bills`).
"""

from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from api.auth.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.admin.corrections import Reason
from api.routes.admin.scope import reach_tenant
from api.routes.bill_items import iso
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.schemas.fields import EXAMPLE_ID, Body, example
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.collection.charges import retry
from billing.models import Charge
from billing.payments.lists import list_charges

router = APIRouter()

ChargeId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]
BillWanted = Annotated[UUID | None, Query(description="Only this bill's", examples=[EXAMPLE_ID])]


class ChargeState(StrEnum):
    """The states of an attempt (`billing.models.bills.Charge`)."""

    INTENDED = "intended"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    PAID = "paid"
    FAILED = "failed"
    VOID = "void"


StateWanted = Annotated[ChargeState | None, Query(description="Only these", examples=["failed"])]


class Decision(Body):
    """An operator's word, and why."""

    model_config = example(reason="agreed with the customer")

    reason: Reason


class ChargeItem(BaseModel):
    """One attempt. `wanted_void` says why it is to be cancelled at Razorpay, `error` why it ended or waits."""

    id: UUID
    tenant_id: UUID
    bill_id: UUID
    attempt: int
    instrument: Literal["payment_link", "addon"]
    state: ChargeState
    amount_paise: int
    reference: str
    razorpay_id: str | None
    razorpay_invoice_id: str | None
    wanted_void: str | None
    error: str | None
    created_at: str
    checked_at: str | None
    ended_at: str | None

    @classmethod
    def of(cls, charge: Charge) -> Self:
        """As it is answered."""
        shown = {name: getattr(charge, name) for name in cls.model_fields if not name.endswith("_at")}
        times = {"created_at": charge.created_ms, "checked_at": charge.checked_ms, "ended_at": charge.ended_ms}
        return cls.model_validate(shown | {name: iso(at_ms) for name, at_ms in times.items()})


@router.get("/charges")
async def all_charges(
    *,
    principal: PlatformAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    bill_id: BillWanted = None,
    state: StateWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[ChargeItem]:
    """Attempts to collect bills, newest first."""
    async with runtime.database.session() as session:
        if tenant_id is not None:
            await reach_tenant(session, principal, tenant_id)
        rows = await list_charges(
            session, tenant_id=tenant_id, bill_id=bill_id, state=state, before=cursor, limit=size + 1
        )
    return page(rows, size, ChargeItem.of)


@router.post("/charges/{charge_id}/retry")
async def retry_charge(
    charge_id: ChargeId, body: Decision, principal: PlatformAdmin, runtime: RuntimeDep, request: Request
) -> ChargeItem:
    """Let a failed attempt go: the next one is made."""
    return ChargeItem.of(await retry(runtime.billing, actor_of(request, principal), charge_id, reason=body.reason))
