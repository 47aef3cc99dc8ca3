"""Bills and credit notes: lists, one of them, its files, and the operator's decision on a held one.

A tenant sees final documents (with a number); drafts are the operator's. Reading one is written to the audit log,
because it names the payer.
"""

import asyncio
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.billing.bills import (
    BillDetail,
    BillFile,
    BillHistory,
    BillItem,
    Closed,
    UpcomingItem,
)
from api.schemas.pages import Page, page
from api.services.accounts.lookups import confine, operated_tenant, own_tenant
from api.services.context import ServiceContext
from billing.collection import write_off
from billing.documents.html import render_html
from billing.documents.invoice import Document
from billing.invoicing import bill_list, held_bills, period_close
from billing.invoicing.issuing import document_of
from billing.invoicing.preview import upcoming_charges
from billing.models import Bill, Payment
from core.clock import now_ms
from core.errors import NotFound
from core.tenancy.audit import record_read
from core.tenancy.principal import Scope

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


async def list_bills(
    context: ServiceContext,
    *,
    tenant: UUID | str | None = None,
    state: str | None = None,
    final: bool = False,
    before: UUID | None = None,
    size: int,
) -> Page[BillItem]:
    """Documents, newest first: of every tenant unless one is named. Raises NotFound for the tenant."""
    context.require(Scope.TENANT_ADMIN)
    final = final or context.tenant_id is not None
    async with context.transaction() as session:
        tenant_id = await confine(context, session, tenant)
        rows = await bill_list.list_bills(
            session, tenant_id=tenant_id, state=state, final=final, before=before, limit=size + 1
        )
        charges = await bill_list.live_charges(session, rows)
    return page(rows, size, lambda bill: BillItem.of(bill, charges.get(bill.id)))


async def find_bill(context: ServiceContext, bill_id: UUID) -> BillDetail:
    """A document with its lines. Raises NotFound."""
    async with context.transaction() as session:
        bill = await _read(context, session, bill_id)
        return await _detail(session, bill)


async def find_history(context: ServiceContext, bill_id: UUID) -> BillHistory:
    """A document with its payments and credit notes, oldest first. Raises NotFound."""
    async with context.transaction() as session:
        bill = await _read(context, session, bill_id)
        paid = select(Payment).where(
            Payment.tenant_id == bill.tenant_id, Payment.bill_id == bill.id, Payment.applied_paise > 0
        )
        notes = select(Bill).where(
            Bill.tenant_id == bill.tenant_id, Bill.refers_to == bill.id, Bill.number.is_not(None)
        )
        refers_to = None if bill.refers_to is None else await session.get(Bill, (bill.tenant_id, bill.refers_to))
        return BillHistory(
            bill=await _detail(session, bill),
            payments=(await session.scalars(paid.order_by(Payment.captured_ms, Payment.razorpay_id))).all(),
            credit_notes=[BillItem.of(note) for note in await session.scalars(notes.order_by(Bill.id))],
            refers_to=None if refers_to is None else BillItem.of(refers_to),
        )


async def bill_as_html(context: ServiceContext, bill_id: UUID) -> BillFile:
    """A document as a page that runs no script and loads nothing. Raises NotFound."""
    bill, document = await _document(context, bill_id)
    headers = {
        "content-disposition": f'inline; filename="{_file_name(bill)}.html"',
        "content-security-policy": _PAGE_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return BillFile(render_html(document), "text/html; charset=utf-8", headers)


async def bill_as_pdf(context: ServiceContext, bill_id: UUID) -> BillFile:
    """A document as PDF, rendered in a thread because it takes long. Raises NotFound."""
    bill, document = await _document(context, bill_id)
    headers = {
        "content-disposition": f'attachment; filename="{_file_name(bill)}.pdf"',
        "referrer-policy": "no-referrer",
    }
    return BillFile(await asyncio.to_thread(_pdf, document), "application/pdf", headers)


async def release_bill(context: ServiceContext, bill_id: UUID) -> BillDetail:
    """Makes a held bill final: it gets its number and is collected. Raises NotFound, Conflict."""
    context.require(Scope.PLATFORM_ADMIN)
    released = await held_bills.release_held_bill(context.billing, context.actor, bill_id)
    return await _changed(context, released.id)


async def void_bill(context: ServiceContext, bill_id: UUID, reason: str, *, again: bool = False) -> BillDetail:
    """Voids a held bill. Its usage is never billed, unless `again`: its period is priced again at once.

    Raises NotFound, Conflict.
    """
    context.require(Scope.PLATFORM_ADMIN)
    await held_bills.void_held_bill(context.billing, context.actor, bill_id, reason, again=again)
    return await _changed(context, bill_id)


async def write_off_bill(context: ServiceContext, bill_id: UUID, reason: str) -> BillDetail:
    """Gives up what is due of an open bill. Raises NotFound, Conflict."""
    context.require(Scope.PLATFORM_ADMIN)
    await write_off.write_off_bill(context.billing, context.actor, bill_id, reason)
    return await _changed(context, bill_id)


async def close_periods(context: ServiceContext, tenant: UUID | str) -> Closed:
    """Closes the tenant's ended periods now, before the worker does. Raises NotFound for the tenant."""
    tenant_id = await operated_tenant(context, tenant)
    return Closed(closed=await period_close.close_tenant(context.billing, tenant_id))


async def upcoming_bill(context: ServiceContext) -> UpcomingItem:
    """The cost of the current period's overage, were it closed now. Raises NotFound without a plan."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        return UpcomingItem.of(await upcoming_charges(session, context.billing, tenant_id, now_ms()))


async def _read(context: ServiceContext, session: AsyncSession, bill_id: UUID) -> Bill:
    """The bill, with its read in the audit log. Raises NotFound, for a tenant also for a draft."""
    context.require(Scope.TENANT_ADMIN)
    bill = await bill_list.find_bill(session, bill_id, tenant_id=context.tenant_id)
    if context.tenant_id is not None and bill.number is None:
        raise NotFound("no such bill")
    record_read(session, context.actor, "bill", tenant_id=bill.tenant_id, target=f"bill:{bill.id}")
    return bill


async def _detail(session: AsyncSession, bill: Bill) -> BillDetail:
    charges = await bill_list.live_charges(session, [bill])
    return BillDetail.of(bill, charges.get(bill.id))


async def _changed(context: ServiceContext, bill_id: UUID) -> BillDetail:
    """The bill after a change, which is in the audit log itself."""
    async with context.transaction() as session:
        return await _detail(session, await bill_list.find_bill(session, bill_id, tenant_id=None))


async def _document(context: ServiceContext, bill_id: UUID) -> tuple[Bill, Document]:
    async with context.transaction() as session:
        bill = await _read(context, session, bill_id)
        return bill, await document_of(session, context.billing, bill)


def _pdf(document: Document) -> bytes:
    """Runs in a thread, which also loads the library: at start-up it would cost every process."""
    from billing.documents.pdf import render_pdf  # noqa: PLC0415 - see above

    return render_pdf(document)


def _file_name(bill: Bill) -> str:
    """The number, in characters that a file's name may have."""
    return (bill.number or f"draft-{bill.id}").replace("/", "-")
