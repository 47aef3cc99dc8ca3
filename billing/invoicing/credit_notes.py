"""Credit notes: what a period's price fell by, taken back from its bills, the newest first.

Each note is of one bill, and takes no more of it than is left: a bill that is credited whole gets its very tax back,
in one note or in many. The supply and the parties are the bill's. What was paid of it already is given back
(`billing.payments.refunds`); what is open is less from now on, and whoever collects it makes the charge anew.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import COLLECT, BillingContext, enqueue_after_commit, record_finding
from billing.documents.bill_lines import credit_lines
from billing.gst.tax import BASIS_POINTS, TaxLine
from billing.invoicing.already_billed import negative, taken_by
from billing.invoicing.issuing import SMALLEST_PAISE, finalise, next_seq
from billing.models import Bill, Charge, Payment, Refund
from billing.payments.refunds import want
from billing.rating.overage import OverageBill, Reading, Terms, price_period
from core.ids import uuid7
from core.money import divide_half_up

_OF_A_BILL = (
    "period_id",
    "starts_ms",
    "ends_ms",
    "subscription_id",
    "plan_code",
    "plan_version",
    "supply",
    "customer",
    "supplier",
)


async def credit(
    session: AsyncSession,
    context: BillingContext,
    numbered: Sequence[Bill],
    reading: Reading,
    terms: Terms,
    now_ms: int,
) -> Sequence[Bill]:
    """The notes that bring a period's numbered documents down to its price. The tenant's lock is held."""
    made: list[Bill] = []
    for bill in sorted(numbered, key=lambda each: each.seq, reverse=True):
        if bill.kind != "overage":
            continue
        owed = price_period(reading, terms, taken_by([*numbered, *made]))
        if owed.taxable_paise >= 0:
            break
        notes = [note for note in numbered if note.refers_to == bill.id]
        if taken_by([bill, *notes]).total_paise > 0:
            made.append(await _note(session, context, bill, notes, owed, now_ms))
    return made


async def _note(
    session: AsyncSession, context: BillingContext, bill: Bill, notes: Sequence[Bill], owed: OverageBill, now_ms: int
) -> Bill:
    """One note: what the price fell by, or all that is left of the bill if that is less."""
    left = taken_by([bill, *notes])
    whole = left.total_paise <= -owed.taxable_paise
    taken = negative(left) if whole else owed.taken
    tax = [_tax_back(line, notes, taken.total_paise, whole=whole) for line in _tax(bill)]
    note = Bill(
        **{name: getattr(bill, name) for name in _OF_A_BILL},
        tenant_id=bill.tenant_id,
        id=uuid7(now_ms),
        kind="credit_note",
        state="issued",
        seq=await next_seq(session, bill.tenant_id, bill.period_id, "credit_note"),
        lines=credit_lines(owed, taken),
        taken=msgspec.to_builtins(taken),
        taxable_paise=taken.total_paise,
        tax=msgspec.to_builtins(tax),
        total_paise=taken.total_paise + sum(line.tax_paise for line in tax),
        refers_to=bill.id,
        created_ms=now_ms,
    )
    session.add(note)
    await session.flush()
    await finalise(session, context, note, now_ms)
    if note.number is not None:
        await _apply(session, context, bill, note)
    return note


def _tax_back(line: TaxLine, notes: Sequence[Bill], taxable_paise: int, *, whole: bool) -> TaxLine:
    """A component of what is taken back: rounded like a bill's, but never more than is left of the bill's own."""
    left = line.tax_paise + sum(
        one.tax_paise for note in notes for one in _tax(note) if one.component is line.component
    )
    if whole:
        return replace(line, tax_paise=-left)
    return replace(line, tax_paise=-min(left, divide_half_up(-taxable_paise * line.rate_bp, BASIS_POINTS)))


async def _apply(session: AsyncSession, context: BillingContext, bill: Bill, note: Bill) -> None:
    """The bill is less by the note; what was paid above that goes back."""
    before = max(0, -_due(bill))
    bill.credited_paise -= note.total_paise
    back = max(0, -_due(bill)) - before
    if bill.state in {"open", "waived"}:
        if bill.credited_paise >= bill.total_paise:
            bill.state = "credited"
        elif _due(bill) < SMALLEST_PAISE:
            bill.state = "paid" if bill.paid_paise > 0 else "waived"
    enqueue_after_commit(session, COLLECT)
    if back > 0:
        await _give_back(session, context, bill, note, back)


async def _give_back(session: AsyncSession, context: BillingContext, bill: Bill, note: Bill, back_paise: int) -> None:
    """Asks for the refunds of what was paid for the bill, of its newest payment first."""
    cause = f"credit:{note.id}:{bill.id}"
    for payment, left_paise in await _payments(session, bill):
        part = min(left_paise, back_paise)
        if part > 0:
            await want(session, context, bill.tenant_id, payment.razorpay_id, part, cause)
            cause = f"credit:{note.id}:{bill.id}:{payment.razorpay_id}"  # a cause is for one refund only
            back_paise -= part
    if back_paise:
        detail = {"note": str(note.id), "bill": str(bill.id), "left_paise": back_paise}
        await record_finding(session, f"credit-unpaid:{note.id}", "credit_unpaid", tenant_id=bill.tenant_id, **detail)


async def _payments(session: AsyncSession, bill: Bill) -> list[tuple[Payment, int]]:
    """What paid the bill, newest first, and what of each was not given back: its own, or an invoice with add-ons."""
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
        wanted = await session.scalar(
            select(func.coalesce(func.sum(Refund.amount_paise), 0)).where(
                Refund.tenant_id == bill.tenant_id,
                Refund.payment_id == payment.razorpay_id,
                Refund.state.in_(("awaiting_operator", "intended", "submitting")),
            )
        )
        found.append((payment, payment.amount_paise - payment.refunded_paise - int(wanted or 0)))
    return found


def _due(bill: Bill) -> int:
    """What the bill asks for still; negative where too much was paid."""
    return bill.total_paise - bill.credited_paise - bill.paid_paise


def _tax(bill: Bill) -> list[TaxLine]:
    return msgspec.convert(bill.tax, list[TaxLine])
