"""Bills, charges, refunds and findings of all tenants, and the operator's decisions on them."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import Response

from api.pages.operator.frame import SIZE, Reason, Said
from api.pages.operator.lists import BILLS, CHARGES, FINDINGS, REFUNDS, show_page
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import Operator
from api.routes.parameters import Cursor
from api.services.billing import bills, collection
from billing.models.states import BillState, ChargeState, RefundState
from core.errors import Invalid

router = page_router("/operator")
TenantWanted = Annotated[UUID | None, Query(alias="tenant")]


@router.get("/bills")
async def bills_page(
    request: Request,
    visitor: Operator,
    state: BillState | None = None,
    tenant: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Bills of all tenants, drafts too, newest first."""
    found = await bills.list_bills(visitor.context, tenant=tenant, state=state, before=cursor, size=SIZE)
    return await show_page(request, visitor, BILLS, found, said, state=state, tenant=tenant)


@router.get("/bills/{bill_id}")
async def bill_document(bill_id: UUID, visitor: Operator) -> Response:
    """A bill as its tenant sees it."""
    found = await bills.bill_as_html(visitor.context, bill_id)
    return Response(found.content, media_type=found.media_type, headers=found.headers)


@router.post("/bills/{bill_id}/release")
async def release_bill(bill_id: UUID, visitor: Operator) -> Response:
    """Makes a held bill final."""
    await bills.release_bill(visitor.context, bill_id)
    return see_other("/operator/bills?said=released")


@router.post("/bills/{bill_id}/void")
async def void_bill(
    bill_id: UUID, visitor: Operator, reason: Reason = "", again: Annotated[str, Form(max_length=3)] = ""
) -> Response:
    """Voids a held bill."""
    await bills.void_bill(visitor.context, bill_id, given(reason), again=again == "yes")
    return see_other("/operator/bills?said=voided")


@router.post("/bills/{bill_id}/write-off")
async def write_off_bill(bill_id: UUID, visitor: Operator, reason: Reason = "") -> Response:
    """Gives up what is due of an open bill."""
    await bills.write_off_bill(visitor.context, bill_id, given(reason))
    return see_other("/operator/bills?said=written_off")


@router.get("/charges")
async def charges_page(
    request: Request,
    visitor: Operator,
    state: ChargeState | None = None,
    tenant: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Charges, newest first."""
    found = await collection.list_charges(visitor.context, tenant=tenant, state=state, before=cursor, size=SIZE)
    return await show_page(request, visitor, CHARGES, found, said, state=state, tenant=tenant)


@router.post("/charges/{charge_id}/retry")
async def retry_charge(charge_id: UUID, visitor: Operator, reason: Reason = "") -> Response:
    """Voids a failed charge, so that the next one is created."""
    await collection.retry_charge(visitor.context, charge_id, given(reason))
    return see_other("/operator/charges?said=retried")


@router.get("/refunds")
async def refunds_page(
    request: Request,
    visitor: Operator,
    state: RefundState | None = None,
    tenant: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Refunds, newest first."""
    found = await collection.list_refunds(visitor.context, tenant=tenant, state=state, before=cursor, size=SIZE)
    return await show_page(request, visitor, REFUNDS, found, said, state=state, tenant=tenant)


@router.post("/refunds/{refund_id}/approve")
async def approve_refund(refund_id: UUID, visitor: Operator, reason: Reason = "") -> Response:
    """Approves a refund above the cap."""
    await collection.decide_refund(visitor.context, refund_id, given(reason), approve=True)
    return see_other("/operator/refunds?said=approved")


@router.post("/refunds/{refund_id}/deny")
async def deny_refund(refund_id: UUID, visitor: Operator, reason: Reason = "") -> Response:
    """Denies a refund above the cap."""
    await collection.decide_refund(visitor.context, refund_id, given(reason), approve=False)
    return see_other("/operator/refunds?said=denied")


@router.post("/refunds/{refund_id}/retry")
async def retry_refund(refund_id: UUID, visitor: Operator, reason: Reason = "") -> Response:
    """Sends a failed refund again."""
    await collection.send_refund_again(visitor.context, refund_id, given(reason))
    return see_other("/operator/refunds?said=sent")


@router.get("/findings")
async def findings_page(
    request: Request,
    visitor: Operator,
    state: Annotated[str, Query(pattern="^(|closed)$")] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    said: Said = "",
) -> Response:
    """Findings, newest first."""
    found = await collection.list_findings(visitor.context, closed=state == "closed", before=cursor, size=SIZE)
    return await show_page(request, visitor, FINDINGS, found, said, state=state)


@router.post("/findings/close")
async def close_finding(
    visitor: Operator, key: Annotated[str, Form(max_length=200)] = "", reason: Reason = ""
) -> Response:
    """Closes a reviewed finding."""
    await collection.close_finding(visitor.context, key, given(reason))
    return see_other("/operator/findings?said=closed")


def given(reason: str) -> str:
    """The reason, which the audit log needs. Raises Invalid without one."""
    if not reason.strip():
        raise Invalid("a reason is needed, for the audit log")
    return reason.strip()
