"""Credit notes: a fall of a period's price, credited to its bills, newest first.

Each note credits one bill by at most what is left of it, so a bill credited in full gets exactly its tax back, in one
note or several. A credited amount that was paid is refunded; an open bill's charge is replaced by one for the rest.
What the wallet paid goes back to the wallet.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.documents.bill_lines import overage_lines, promotion_lines
from billing.findings import record_finding
from billing.gst.tax import BASIS_POINTS, TaxLine
from billing.invoicing.issuing import billed_by, finalise, give_number, new_document
from billing.invoicing.prepaid_bills import give_back_to_wallet
from billing.ledger.movements import bill_credited, write_off_reversed
from billing.models import Bill, Charge, Dispute, Payment
from billing.models.bills import SMALLEST_PAISE, balance_of
from billing.models.states import BillKind, BillState
from billing.payments.refunds import request_refund, wanted_paise
from billing.rating.overage import OverageBill, Reading, Terms, price_period
from billing.wallet.draw import give_back, total_of
from billing.wallet.entries import drawn_by
from core.money import divide_half_up


async def issue_credit_notes(
    session: AsyncSession,
    context: BillingContext,
    numbered: Sequence[Bill],
    reading: Reading,
    terms: Terms,
    now_ms: int,
) -> Sequence[Bill]:
    """Issues the notes that reduce a period's numbered documents to its price. The tenant's lock is held."""
    made: list[Bill] = []
    for bill in sorted(numbered, key=lambda each: each.seq, reverse=True):
        if bill.kind != BillKind.OVERAGE:
            continue
        owed = price_period(reading, terms, billed_by([*numbered, *made]))
        if owed.taxable_paise >= 0:
            break
        notes = [note for note in numbered if note.refers_to == bill.id]
        if billed_by([bill, *notes]).total_paise > 0:
            made.append(await _issue(session, context, bill, notes, owed, now_ms))
    return made


async def _issue(
    session: AsyncSession, context: BillingContext, bill: Bill, notes: Sequence[Bill], owed: OverageBill, now_ms: int
) -> Bill:
    """Issues one note: over the fall of the price, or all that is left of the bill if that is less."""
    left = billed_by([bill, *notes])
    whole = left.total_paise <= -owed.taxable_paise
    taken = -left if whole else owed.taken
    whole = whole and bill.taxable_paise == billed_by([bill]).total_paise  # else other periods' usage is on it, too
    drawn = await drawn_by(session, bill)
    back = give_back(drawn, -taken.total_paise)
    promotion = total_of(back, money=False)  # it was never part of the taxable value
    taxable_paise, left_paise = taken.total_paise + promotion, sum(each.taxable_paise for each in (bill, *notes))
    carried = max(0, -left_paise - taxable_paise)  # credits of other periods are on the bill: it was for less
    taxable_paise += carried
    whole = whole or carried > 0
    whole = whole or (bool(drawn) and total_of(back, money=True) == total_of(drawn, money=True))
    tax = [credited_tax(line, notes, taxable_paise, whole=whole) for line in _tax(bill)]
    note = await new_document(
        session,
        bill,
        BillKind.CREDIT_NOTE,
        now_ms,
        supply=bill.supply,
        customer=bill.customer,
        supplier=bill.supplier,
        lines=[*overage_lines(owed, taken), *promotion_lines(-promotion), *_credited_before(carried)],
        taken=msgspec.to_builtins(taken),
        taxable_paise=taxable_paise,
        tax=msgspec.to_builtins(tax),
        total_paise=taxable_paise + sum(line.tax_paise for line in tax),
        refers_to=bill.id,
    )
    if drawn:
        await give_number(session, context, note, now_ms)
        note.state = BillState.ISSUED
        await apply_note(session, bill, note, now_ms)
        await give_back_to_wallet(session, note, back, now_ms)
        return note
    await finalise(session, context, note, now_ms)
    if note.number is not None:
        back_paise = await apply_note(session, bill, note, now_ms)
        enqueue_after_commit(session, COLLECT)
        if back_paise > 0:
            await _refund(session, context, bill, note, back_paise)
    return note


def _credited_before(paise: int) -> list[dict[str, Any]]:
    """The line of what the bill itself credited of other periods."""
    return [{"kind": "carried", "text": "Credited by the bill already", "amount_paise": paise}] if paise else []


def credited_tax(line: TaxLine, notes: Sequence[Bill], taxable_paise: int, *, whole: bool) -> TaxLine:
    """One tax component of a note: rounded like a bill's, but at most what is left of the bill's own."""
    left = line.tax_paise + sum(
        one.tax_paise for note in notes for one in _tax(note) if one.component is line.component
    )
    if whole:
        return replace(line, tax_paise=-left)
    return replace(line, tax_paise=-min(left, divide_half_up(-taxable_paise * line.rate_bp, BASIS_POINTS)))


async def apply_note(session: AsyncSession, bill: Bill, note: Bill, now_ms: int) -> int:
    """Credits the bill by the numbered note, and books it. Returns the paise that were paid above what is left.

    A debt that was written off is credited first: nobody paid it. The tenant's next bill collects a rest of less than a
    rupee (`billing.invoicing.carried`).
    """
    before, forgiven_paise = max(0, -balance_of(bill)), min(bill.written_off_paise, -note.total_paise)
    bill.written_off_paise -= forgiven_paise
    await write_off_reversed(session, bill, str(note.id), forgiven_paise, now_ms)
    bill.credited_paise -= note.total_paise
    back_paise = max(0, -balance_of(bill)) - before
    if bill.state == BillState.OPEN and balance_of(bill) < SMALLEST_PAISE:
        is_paid = bill.paid_paise > 0 and bill.credited_paise < bill.total_paise
        bill.state = BillState.PAID if is_paid else BillState.CREDITED
    await session.flush()
    await bill_credited(session, note, back_paise, now_ms)
    return back_paise


async def _refund(session: AsyncSession, context: BillingContext, bill: Bill, note: Bill, back_paise: int) -> None:
    """Requests refunds of the bill's payments, newest first."""
    cause = f"credit:{note.id}:{bill.id}"
    for payment, left_paise in await _payments(session, bill):
        part = min(left_paise, back_paise)
        if part > 0:
            await request_refund(session, context, bill.tenant_id, payment.razorpay_id, part, cause)
            cause = f"credit:{note.id}:{bill.id}:{payment.razorpay_id}"  # a cause has one refund
            back_paise -= part
    if back_paise:
        detail = {"note": str(note.id), "bill": str(bill.id), "left_paise": back_paise}
        await record_finding(session, f"credit-unpaid:{note.id}", "credit_unpaid", tenant_id=bill.tenant_id, **detail)


async def _payments(session: AsyncSession, bill: Bill) -> list[tuple[Payment, int]]:
    """The bill's payments, direct or by an invoice with its add-on, newest first, each with its refundable paise."""
    carried = select(Charge.razorpay_invoice_id).where(
        Charge.tenant_id == bill.tenant_id, Charge.bill_id == bill.id, Charge.razorpay_invoice_id.is_not(None)
    )
    query = (
        select(Payment)
        .where(Payment.tenant_id == bill.tenant_id)
        .where(or_(Payment.bill_id == bill.id, Payment.razorpay_invoice_id.in_(carried)))
        .order_by(Payment.captured_ms.desc(), Payment.razorpay_id)
    )
    found = []
    for payment in await session.scalars(query):
        wanted = await wanted_paise(session, payment)
        lost = await session.scalar(
            select(func.coalesce(func.sum(Dispute.amount_paise), 0)).where(
                Dispute.tenant_id == bill.tenant_id, Dispute.payment_id == payment.razorpay_id, Dispute.status == "lost"
            )
        )
        left_paise = payment.amount_paise - payment.refunded_paise - wanted - int(lost or 0)
        found.append((payment, left_paise))
    return found


def _tax(bill: Bill) -> list[TaxLine]:
    return msgspec.convert(bill.tax, list[TaxLine])
