"""Bills: the list, one of them, its files, and the way to pay an open one. Drafts and other tenants' are not found."""

from datetime import datetime, timedelta
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import show
from api.pages.account.wording import State
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.routes.parameters import Cursor
from api.schemas.billing.bills import BillDetail, BillFile, BillItem
from api.services.billing import bills
from api.services.billing.standing import check_payments
from billing.documents.invoice import DocumentLine
from billing.models.states import BillState
from core.clock import now_ms, to_ms

router = page_router("/account/bills")
_SIZE = 25
_KINDS = {
    "base": "Plan",
    "overage": "Overage",
    "credit_note": "Credit note",
    "receipt_voucher": "Top-up",
    "refund_voucher": "Refund of a top-up",
}
_STATES = {
    "open": State("due", "warn", "Payment is due."),
    "overdue": State("overdue", "bad", "Payment is overdue."),
    "paid": State("paid", "good", "Paid."),
    "issued": State("issued", "", "Reduces an earlier bill."),
    "credited": State("credited", "good", "Fully credited: no payment is due."),
}
_OTHER = State("closed", "", "No payment is due.")
_SHOWN = {"": "All", "open": "Due", "paid": "Paid", "credited": "Credited", "issued": "Credit notes"}


@router.get("")
async def bills_page(request: Request, visitor: AccountAdmin, state: str = "", cursor: Cursor = None) -> Response:
    """The bills, newest first."""
    wanted = BillState(state) if state in _SHOWN and state else None
    found = await bills.list_bills(visitor.account_context, state=wanted, before=cursor, size=_SIZE)
    return show(
        request,
        "bills",
        visitor,
        found=found,
        state=wanted or "",
        shown=_SHOWN,
        last=_last,
        kinds=_KINDS,
        state_of=_state,
    )


@router.get("/{bill_id}")
async def bill_page(request: Request, bill_id: UUID, visitor: AccountAdmin) -> Response:
    """A bill. Raises NotFound."""
    found = await bills.find_history(visitor.account_context, bill_id)
    bill = found.bill
    return show(
        request,
        "bill",
        visitor,
        bill=bill,
        lines=[DocumentLine.of(line) for line in bill.lines],
        payments=found.payments,
        credits=found.credit_notes,
        refers_to=found.refers_to,
        kind=_KINDS[bill.kind],
        sums=_sums(bill),
        state=_state(bill),
        last=_last,
    )


@router.get("/{bill_id}/document.html")
async def bill_as_html(bill_id: UUID, visitor: AccountAdmin) -> Response:
    """A bill as a page to print."""
    return _file(await bills.bill_as_html(visitor.account_context, bill_id))


@router.get("/{bill_id}/document.pdf")
async def bill_as_pdf(bill_id: UUID, visitor: AccountAdmin) -> Response:
    """A bill as PDF."""
    return _file(await bills.bill_as_pdf(visitor.account_context, bill_id))


@router.post("/{bill_id}/check")
async def check_bill(bill_id: UUID, visitor: AccountAdmin) -> Response:
    """Asks Razorpay about what is due, for a browser without scripts."""
    await check_payments(visitor.context, visitor.principal.tenant_id)
    return see_other(f"/account/bills/{bill_id}")


def _state(bill: BillItem) -> State:
    """The state of a bill as a customer names it: what is open is due, or overdue."""
    is_late = bill.due_paise > 0 and bill.due_at is not None and to_ms(datetime.fromisoformat(bill.due_at)) <= now_ms()
    return _STATES["overdue"] if is_late else _STATES.get(bill.state, _OTHER)


def _file(found: BillFile) -> Response:
    return Response(found.content, media_type=found.media_type, headers=found.headers)


def _last(ends_at: str) -> datetime:
    """The last moment before a period's end, to show its last day."""
    return datetime.fromisoformat(ends_at) - timedelta(milliseconds=1)


def _sums(bill: BillDetail) -> list[tuple[str, int]]:
    """The sum of the lines, each tax, and the total."""
    tax = [(f"{line['component']} {line['rate_bp'] // 100} %", int(line["tax_paise"])) for line in bill.tax]
    return [("Before tax", bill.taxable_paise), *tax, ("Total", bill.total_paise)]
