"""Bills, attempts to collect them and refunds of all tenants; and the operator's word on each."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import Form, Query, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep, actor_of
from api.pages.operator.frame import (
    SIZE,
    Act,
    Cell,
    Listing,
    Reason,
    Row,
    Said,
    filters,
    money,
    show_list,
    tenant_cells,
    with_query,
)
from api.pages.route import page_router
from api.pages.site import Here, see_other, words
from api.pages.visitor import Operator
from api.routes.admin.charges import ChargeId, ChargeState
from api.routes.admin.refunds import RefundId, RefundState
from api.routes.bill_items import BillId, BillState, html_of
from api.routes.parameters import Cursor
from billing.collection.charges import retry
from billing.invoicing.bill_list import list_bills
from billing.invoicing.held_bills import release, void
from billing.payments.lists import list_charges, list_refunds
from billing.payments.refunds import decide
from core.errors import Invalid

router = page_router("/operator")
_BILLS = {"": "All", "held": "Held", "open": "Open", "paid": "Paid", "void": "Void", "issued": "Credit notes"}
_CHARGES = {"": "All", "failed": "Failed", "submitted": "Submitted", "paid": "Paid", "void": "Void"}
_REFUNDS = {"": "All", "awaiting_operator": "Want your word", "pending": "Pending", "failed": "Failed"}
TenantWanted = Annotated[UUID | None, Query(alias="tenant")]


@router.get("/bills")
async def bills(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    state: BillState | None = None,
    tenant_id: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Of all tenants, drafts too, newest first."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        rows = await list_bills(session, tenant_id=tenant_id, state=state, final=False, before=cursor, limit=SIZE + 1)
        tenants = await tenant_cells(session, (bill.tenant_id for bill in rows))
    listing = Listing(
        ["Number", "Tenant", "State", "Total", "For", "Period", "Issued"],
        [
            Row(
                [
                    Cell(bill.number or "draft", f"/operator/bills/{bill.id}"),
                    tenants[bill.tenant_id],
                    Cell(bill.state, is_state=True, note=bill.reason or ""),
                    money(bill.total_paise),
                    Cell(words(bill.kind)),
                    Cell(bill.period_id),
                    Cell(here.day(bill.issued_ms)),
                ],
                _bill_acts(bill.id) if bill.state == "held" else (),
            )
            for bill in rows[:SIZE]
        ],
        "No bills." if not state else "None in this state.",
        older("/operator/bills", rows, "id", state=state, tenant=tenant_id),
        filters("/operator/bills", _BILLS, state or "", tenant=str(tenant_id or "")),
    )
    return show_list(request, visitor, "Bills", listing, said, "What is held is far above what the tenant usually has.")


def _bill_acts(bill_id: UUID) -> Sequence[Act]:
    at = f"/operator/bills/{bill_id}"
    return [
        Act("Release", "Make this bill final? It gets its number, and is collected.", f"{at}/release"),
        Act(
            "Let go",
            "Forgive this bill for good? Its usage is never billed.",
            f"{at}/void",
            wants_reason=True,
            is_grave=True,
        ),
        Act(
            "Price again",
            "Let it go and price its period afresh?",
            f"{at}/void",
            wants_reason=True,
            fields={"again": "yes"},
        ),
    ]


@router.get("/bills/{bill_id}")
async def bill_document(request: Request, bill_id: BillId, runtime: RuntimeDep, visitor: Operator) -> Response:
    """One of them, as its tenant sees it."""
    reader = actor_of(request, visitor.principal)
    document = await html_of(runtime.billing, bill_id, tenant_id=None, reader=reader)
    document.headers["referrer-policy"] = "no-referrer"
    return document


@router.post("/bills/{bill_id}/release")
async def release_bill(bill_id: BillId, request: Request, runtime: RuntimeDep, visitor: Operator) -> Response:
    """Makes a held bill final."""
    await release(runtime.billing, actor_of(request, visitor.principal), bill_id)
    return see_other("/operator/bills?said=released")


@router.post("/bills/{bill_id}/void")
async def void_bill(
    bill_id: BillId,
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    reason: Reason = "",
    again: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """Lets a held bill go."""
    actor = actor_of(request, visitor.principal)
    await void(runtime.billing, actor, bill_id, given(reason), again=again == "yes")
    return see_other("/operator/bills?said=voided")


@router.get("/charges")
async def charges(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    state: ChargeState | None = None,
    tenant_id: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Attempts to collect, newest first."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        rows = await list_charges(session, tenant_id=tenant_id, state=state, before=cursor, limit=SIZE + 1)
        tenants = await tenant_cells(session, (charge.tenant_id for charge in rows))
    listing = Listing(
        ["Reference", "Tenant", "State", "Amount", "By", "Razorpay", "Made"],
        [
            Row(
                [
                    Cell(charge.reference),
                    tenants[charge.tenant_id],
                    Cell(charge.state, is_state=True, note=charge.error or charge.wanted_void or ""),
                    money(charge.amount_paise),
                    Cell(words(charge.instrument)),
                    Cell(charge.razorpay_id or ""),
                    Cell(here.at(charge.created_ms)),
                ],
                [_retry(charge.id)] if charge.state == "failed" else (),
            )
            for charge in rows[:SIZE]
        ],
        "No bill had to be collected yet." if not state else "None in this state.",
        older("/operator/charges", rows, "id", state=state, tenant=tenant_id),
        filters("/operator/charges", _CHARGES, state or "", tenant=str(tenant_id or "")),
    )
    return show_list(request, visitor, "Charges", listing, said)


def _retry(charge_id: UUID) -> Act:
    action = f"/operator/charges/{charge_id}/retry"
    return Act("Retry", "Let this attempt go, and make the next one?", action, wants_reason=True)


@router.post("/charges/{charge_id}/retry")
async def retry_charge(
    charge_id: ChargeId, request: Request, runtime: RuntimeDep, visitor: Operator, reason: Reason = ""
) -> Response:
    """Lets a failed attempt go."""
    await retry(runtime.billing, actor_of(request, visitor.principal), charge_id, reason=given(reason))
    return see_other("/operator/charges?said=retried")


@router.get("/refunds")
async def refunds(
    request: Request,
    runtime: RuntimeDep,
    visitor: Operator,
    state: RefundState | None = None,
    tenant_id: TenantWanted = None,
    cursor: Cursor = None,
    said: Said = "",
) -> Response:
    """Money on its way back, newest first."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        rows = await list_refunds(session, tenant_id=tenant_id, state=state, before=cursor, limit=SIZE + 1)
        tenants = await tenant_cells(session, (refund.tenant_id for refund in rows))
    listing = Listing(
        ["Payment", "Tenant", "State", "Amount", "Because of", "Made"],
        [
            Row(
                [
                    Cell(refund.payment_id),
                    tenants[refund.tenant_id],
                    Cell(refund.state, is_state=True, note=refund.error or ""),
                    money(refund.amount_paise),
                    Cell(refund.cause),
                    Cell(here.at(refund.created_ms)),
                ],
                _refund_acts(refund.id) if refund.state == "awaiting_operator" else (),
            )
            for refund in rows[:SIZE]
        ],
        "Nothing had to be given back yet." if not state else "None in this state.",
        older("/operator/refunds", rows, "id", state=state, tenant=tenant_id),
        filters("/operator/refunds", _REFUNDS, state or "", tenant=str(tenant_id or "")),
    )
    lead = "What is above the cap (BILLING_REFUND_CAP_PAISE) waits for your word."
    return show_list(request, visitor, "Refunds", listing, said, lead)


def _refund_acts(refund_id: UUID) -> Sequence[Act]:
    at = f"/operator/refunds/{refund_id}"
    return [
        Act("Approve", "Send this money back?", f"{at}/approve", wants_reason=True),
        Act("Deny", "Keep this money? The refund is not made.", f"{at}/deny", wants_reason=True, is_grave=True),
    ]


@router.post("/refunds/{refund_id}/approve")
async def approve_refund(
    refund_id: RefundId, request: Request, runtime: RuntimeDep, visitor: Operator, reason: Reason = ""
) -> Response:
    """Sends it."""
    actor = actor_of(request, visitor.principal)
    await decide(runtime.billing, actor, refund_id, approve=True, reason=given(reason))
    return see_other("/operator/refunds?said=approved")


@router.post("/refunds/{refund_id}/deny")
async def deny_refund(
    refund_id: RefundId, request: Request, runtime: RuntimeDep, visitor: Operator, reason: Reason = ""
) -> Response:
    """Does not send it."""
    actor = actor_of(request, visitor.principal)
    await decide(runtime.billing, actor, refund_id, approve=False, reason=given(reason))
    return see_other("/operator/refunds?said=denied")


def given(reason: str) -> str:
    """The reason, which the audit log wants. Raises Invalid."""
    if not reason.strip():
        raise Invalid("a reason is needed, for the audit log")
    return reason.strip()


def older(path: str, rows: Sequence[Any], cursor: str, **kept: object) -> str | None:
    """Where the next part of a list is, which was asked for with one row more than is shown."""
    return with_query(path, cursor=getattr(rows[SIZE - 1], cursor), **kept) if len(rows) > SIZE else None
