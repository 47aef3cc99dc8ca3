"""Bills: the list, one with all that is on it, its documents, and the way to pay an open one.

Only what is final is shown (`billing.invoicing.bill_list`): a draft is nobody's to see. Another tenant's is not found.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep, actor_of
from api.pages.account import wording
from api.pages.account.frame import own, show
from api.pages.account.wording import State
from api.pages.route import page_router
from api.pages.visitor import AccountAdmin
from api.routes.bill_items import BillDetail, BillId, BillState, detail_of, html_of, pdf_of
from api.routes.billing.bills import my_bills
from api.routes.parameters import Cursor
from billing.documents.invoice import DocumentLine
from billing.models import Bill, Payment

router = page_router("/account/bills")
_SIZE = 25
_KINDS = {"base": "Plan", "overage": "Usage past the allowances", "credit_note": "Credit note"}
_STATES = {
    "open": State("open", "warn", "To be paid."),
    "paid": State("paid", "good", "Paid. Nothing is left to do."),
    "issued": State("issued", "", "It takes back a part of an earlier bill."),
    "credited": State("credited", "good", "Credit notes took all of it back: there is nothing to pay."),
}
_OTHER = State("closed", "", "There is nothing to pay.")
_SHOWN = {"": "All", "open": "Open", "paid": "Paid", "credited": "Credited", "issued": "Credit notes"}


@router.get("")
async def bills_page(
    request: Request, runtime: RuntimeDep, visitor: AccountAdmin, state: str = "", cursor: Cursor = None
) -> Response:
    """The bills, newest first."""
    wanted = BillState(state) if state in _SHOWN and state else None
    found = await my_bills(own(visitor), runtime, wanted, cursor, _SIZE)
    return show(
        request,
        "bills",
        visitor,
        found=found,
        state=wanted or "",
        shown=_SHOWN,
        last=_last,
        kinds=_KINDS,
        states=_STATES,
        other=_OTHER,
    )


@router.get("/{bill_id}")
async def bill_page(request: Request, bill_id: BillId, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """One of them. Raises NotFound."""
    tenant_id = visitor.principal.tenant_id
    reader = actor_of(request, visitor.principal)
    bill = await detail_of(runtime.billing, bill_id, tenant_id=tenant_id, reader=reader)
    async with runtime.database.session(tenant_id=tenant_id) as session:
        payments = await _payments(session, tenant_id, bill_id)
        credits_ = await _credits(session, tenant_id, bill_id)
        refers_to = None if bill.refers_to is None else await session.get(Bill, (tenant_id, bill.refers_to))
    return show(
        request,
        "bill",
        visitor,
        bill=bill,
        lines=[DocumentLine.of(line) for line in bill.lines],
        payments=payments,
        credits=credits_,
        refers_to=refers_to,
        kind=_KINDS[bill.kind],
        sums=_sums(bill),
        state=_STATES.get(bill.state, _OTHER),
        last=_last,
        wording=wording,
    )


@router.get("/{bill_id}/document.html")
async def bill_as_html(request: Request, bill_id: BillId, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """One of them as a page that prints well."""
    reader = actor_of(request, visitor.principal)
    return _unreferred(await html_of(runtime.billing, bill_id, tenant_id=visitor.principal.tenant_id, reader=reader))


@router.get("/{bill_id}/document.pdf")
async def bill_as_pdf(request: Request, bill_id: BillId, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """One of them as PDF."""
    reader = actor_of(request, visitor.principal)
    return _unreferred(await pdf_of(runtime.billing, bill_id, tenant_id=visitor.principal.tenant_id, reader=reader))


def _unreferred(document: Response) -> Response:
    """As every page: where a link on it leads does not learn where it stood."""
    document.headers["referrer-policy"] = "no-referrer"
    return document


def _last(ends_at: str) -> datetime:
    """The last moment before it: a period's last day is a day of it."""
    return datetime.fromisoformat(ends_at) - timedelta(milliseconds=1)


def _sums(bill: BillDetail) -> list[tuple[str, int]]:
    """What the lines come to, with each tax."""
    tax = [(f"{line['component']} {line['rate_bp'] // 100} %", int(line["tax_paise"])) for line in bill.tax]
    return [("Before tax", bill.taxable_paise), *tax, ("Total", bill.total_paise)]


async def _payments(session: AsyncSession, tenant_id: UUID, bill_id: UUID) -> Sequence[Payment]:
    """What was applied to it, oldest first."""
    query = select(Payment).where(Payment.tenant_id == tenant_id, Payment.bill_id == bill_id, Payment.applied_paise > 0)
    return (await session.scalars(query.order_by(Payment.captured_ms, Payment.razorpay_id))).all()


async def _credits(session: AsyncSession, tenant_id: UUID, bill_id: UUID) -> Sequence[Bill]:
    """The credit notes that take back of it, oldest first."""
    query = select(Bill).where(Bill.tenant_id == tenant_id, Bill.refers_to == bill_id, Bill.number.is_not(None))
    return (await session.scalars(query.order_by(Bill.id))).all()
