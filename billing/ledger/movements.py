"""One function per movement of money or debt, called by the code that changes the row it explains.

Each books in the caller's transaction, under the tenant's lock, at the time of booking: a month that has passed keeps
its entries. Booking a movement again changes nothing. Signs: debits are positive (`billing.models.ledger`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.ledger.entries import Movement, book
from billing.models import Bill, Dispute, LedgerEntry, Payment, Refund
from billing.models.states import BillKind, LedgerEntryKind, RefundState

Applied = tuple[Bill, int]
"""A bill, and paise of a payment that were applied to it."""
_VOUCHERS = {
    BillKind.RECEIPT_VOUCHER: LedgerEntryKind.TOP_UP,
    BillKind.REFUND_VOUCHER: LedgerEntryKind.WALLET_REFUND,
}


def tax_of(bill: Bill) -> int:
    """Paise of tax on the document."""
    return sum(int(line["tax_paise"]) for line in bill.tax)


async def document_issued(session: AsyncSession, bill: Bill, now_ms: int) -> None:
    """A bill or voucher got its number. A credit note is booked by `bill_credited`, which knows the bill's balance.

    A voucher only moves the tax on the advance: its money is booked with its payment or refund.
    """
    tax, voucher = tax_of(bill), _VOUCHERS.get(BillKind(bill.kind))
    if bill.kind == BillKind.CREDIT_NOTE:
        return
    movement = _of_document(bill, voucher or LedgerEntryKind.BILL, now_ms)
    if voucher is not None:
        await book(session, bill.tenant_id, movement, gst_payable=-tax, customer_credit=tax)
        return
    total = bill.total_paise
    await book(session, bill.tenant_id, movement, receivable=total, revenue=tax - total, gst_payable=-tax)


async def bill_credited(session: AsyncSession, note: Bill, back_paise: int, now_ms: int) -> None:
    """A credit note reduced its bill. `back_paise`: the part of its amount that was paid before, now the customer's."""
    tax, total = tax_of(note), -note.total_paise
    movement = _of_document(note, LedgerEntryKind.CREDIT_NOTE, now_ms, of=note.refers_to)
    accounts = {"receivable": back_paise - total, "revenue": total + tax, "gst_payable": -tax}
    await book(session, note.tenant_id, movement, **accounts, customer_credit=-back_paise)


async def payment_received(session: AsyncSession, payment: Payment, applied: Iterable[Applied], now_ms: int) -> None:
    """A payment was applied to these bills; what none of them took is the customer's credit."""
    rest = payment.amount_paise
    detail: dict[str, Any] = {"captured_ms": payment.captured_ms}
    for bill, paise in applied:
        reference = f"payment:{payment.razorpay_id}:{bill.id}"
        movement = _of_payment(LedgerEntryKind.PAYMENT, reference, now_ms, payment, bill.id, detail)
        account = "customer_credit" if bill.kind in _VOUCHERS else "receivable"
        await book(session, payment.tenant_id, movement, cash=paise, **{account: -paise})
        rest -= paise
    kind = LedgerEntryKind.LATE_MONEY if rest == payment.amount_paise else LedgerEntryKind.PAYMENT
    movement = _of_payment(kind, f"payment:{payment.razorpay_id}", now_ms, payment, payment.bill_id, detail)
    await book(session, payment.tenant_id, movement, cash=rest, customer_credit=-rest)


async def refund_changed(session: AsyncSession, refund: Refund, now_ms: int) -> None:
    """Books a refund that was processed, and reverses it should Razorpay report it failed after all."""
    its = (LedgerEntry.tenant_id == refund.tenant_id, LedgerEntry.refund_id == refund.id)
    query = select(func.coalesce(func.sum(LedgerEntry.cash), 0), func.count()).where(*its)
    booked, entries = (await session.execute(query)).one()
    change = (-refund.amount_paise if refund.state == RefundState.PROCESSED else 0) - int(booked)
    movement = Movement(
        kind=LedgerEntryKind.REFUND,
        reference=f"refund:{refund.id}:{entries}" if entries else f"refund:{refund.id}",
        at_ms=now_ms,
        payment_id=refund.payment_id,
        refund_id=refund.id,
        detail={"cause": refund.cause, "razorpay_id": refund.razorpay_id},
    )
    await book(session, refund.tenant_id, movement, cash=change, customer_credit=-change)


async def dispute_lost(
    session: AsyncSession,
    dispute: Dispute,
    reopened: Sequence[Applied],
    taken: Mapping[UUID, int],
    now_ms: int,
    turn: str = "",
) -> None:
    """Razorpay took a payment back. `reopened`: bills that are due again; the rest was the customer's credit.

    `taken`: what each bill no longer counts as paid, which `taken_by` returns. `turn`: `dispute_turn`.
    """
    detail = {"dispute_id": dispute.razorpay_id, "taken": {str(bill_id): paise for bill_id, paise in taken.items()}}
    await _of_dispute(session, dispute, reopened, -1, detail, now_ms, turn)


async def dispute_won(
    session: AsyncSession, dispute: Dispute, settled: Sequence[Applied], now_ms: int, turn: str
) -> None:
    """Razorpay gave a lost payment back. `settled`: bills that it pays again; the rest is the customer's credit."""
    await _of_dispute(session, dispute, settled, 1, {"dispute_id": dispute.razorpay_id, "won": True}, now_ms, turn)


async def dispute_turn(session: AsyncSession, dispute: Dispute) -> str:
    """The end of the references of a dispute's next booking; empty for the first. It may be lost and won repeatedly."""
    booked = select(func.count()).where(*_its_entries(dispute))
    return f":{count}" if (count := await session.scalar(booked)) else ""


async def taken_by(session: AsyncSession, dispute: Dispute) -> dict[UUID, int]:
    """What the last loss of a dispute took from each bill; empty for one from before the ledger."""
    query = select(LedgerEntry).where(*_its_entries(dispute), ~LedgerEntry.detail.has_key("won"))
    entries = (await session.scalars(query.order_by(LedgerEntry.id.desc()))).all()
    if entries and "taken" in entries[0].detail:
        return {UUID(bill_id): int(paise) for bill_id, paise in entries[0].detail["taken"].items()}
    # Booked by a version that did not say it: the debt that was open again.
    return {entry.bill_id: entry.receivable for entry in entries if entry.bill_id is not None}


def _its_entries(dispute: Dispute) -> tuple[ColumnElement[bool], ...]:
    its = LedgerEntry.detail["dispute_id"].astext == dispute.razorpay_id
    return LedgerEntry.tenant_id == dispute.tenant_id, LedgerEntry.kind == LedgerEntryKind.DISPUTE, its


async def _of_dispute(
    session: AsyncSession,
    dispute: Dispute,
    parts: Sequence[Applied],
    sign: int,
    detail: dict[str, Any],
    now_ms: int,
    turn: str,
) -> None:
    rest = dispute.amount_paise
    for bill, paise in parts:
        reference = f"dispute:{dispute.razorpay_id}:{bill.id}{turn}"
        movement = Movement(LedgerEntryKind.DISPUTE, reference, now_ms, bill.id, dispute.payment_id, detail=detail)
        await book(session, dispute.tenant_id, movement, cash=sign * paise, receivable=-sign * paise)
        rest -= paise
    reference = f"dispute:{dispute.razorpay_id}{turn}"
    movement = Movement(LedgerEntryKind.DISPUTE, reference, now_ms, None, dispute.payment_id, detail=detail)
    await book(session, dispute.tenant_id, movement, cash=sign * rest, customer_credit=-sign * rest)


async def remainder_carried(session: AsyncSession, source: Bill, target: Bill, paise: int, now_ms: int) -> None:
    """A debt below the smallest payment moved to the tenant's next bill: one entry for each of the two."""
    for bill, other, moved in ((source, target, -paise), (target, source, paise)):
        reference = f"carried:{source.id}:{target.id}:{'out' if bill is source else 'in'}"
        detail = {"other_bill": str(other.id), "number": bill.number}
        movement = Movement(LedgerEntryKind.CARRIED, reference, now_ms, bill.id, detail=detail)
        await book(session, bill.tenant_id, movement, receivable=moved, customer_credit=-moved)


async def bill_written_off(session: AsyncSession, bill: Bill, paise: int, now_ms: int) -> None:
    """An operator gave up a debt. Its tax stays payable: the law gives no relief for bad debts."""
    movement = Movement(LedgerEntryKind.WRITE_OFF, f"write_off:{bill.id}", now_ms, bill.id)
    await book(session, bill.tenant_id, movement, write_off=paise, receivable=-paise)


async def write_off_reversed(session: AsyncSession, bill: Bill, by: str, paise: int, now_ms: int) -> None:
    """So much of a debt that was written off is none, by a credit note, or by money of a dispute that was won."""
    movement = Movement(LedgerEntryKind.WRITE_OFF, f"write_off:{bill.id}:{by}", now_ms, bill.id)
    await book(session, bill.tenant_id, movement, write_off=-paise, receivable=paise)


async def paid_from_wallet(session: AsyncSession, bill: Bill, now_ms: int) -> None:
    """A numbered bill was settled from the wallet: its tax was paid on the advance already."""
    tax, total = tax_of(bill), bill.total_paise
    movement = Movement(LedgerEntryKind.WALLET_USAGE, f"wallet:{bill.id}", now_ms, bill.id)
    await book(session, bill.tenant_id, movement, customer_credit=total - tax, gst_payable=tax, receivable=-total)


async def returned_to_wallet(session: AsyncSession, note: Bill, now_ms: int) -> None:
    """Books as an advance again, with its tax, the part of a wallet's bill that a credit note gave back."""
    tax = tax_of(note)
    movement = Movement(LedgerEntryKind.WALLET_USAGE, f"wallet:{note.id}", now_ms, note.id)
    await book(session, note.tenant_id, movement, gst_payable=tax, customer_credit=-tax)


async def applied_to(session: AsyncSession, payment: Payment) -> dict[UUID, int]:
    """The parts of a payment that bills have by the ledger, less disputes, in the order of booking."""
    query = (
        select(LedgerEntry.bill_id, func.sum(-LedgerEntry.receivable))
        .where(LedgerEntry.tenant_id == payment.tenant_id, LedgerEntry.payment_id == payment.razorpay_id)
        .where(LedgerEntry.bill_id.is_not(None), LedgerEntry.receivable != 0)
        .group_by(LedgerEntry.bill_id)
        .order_by(func.min(LedgerEntry.at_ms), LedgerEntry.bill_id)
    )
    return {bill_id: int(paise) for bill_id, paise in await session.execute(query) if bill_id is not None}


def _of_document(bill: Bill, kind: str, now_ms: int, of: UUID | None = None) -> Movement:
    detail = {"number": bill.number} if of is None else {"number": bill.number, "note": str(bill.id)}
    return Movement(LedgerEntryKind(kind), f"bill:{bill.id}", now_ms, of or bill.id, detail=detail)


def _of_payment(
    kind: LedgerEntryKind,
    reference: str,
    now_ms: int,
    payment: Payment,
    bill_id: UUID | None,
    detail: dict[str, Any],
) -> Movement:
    return Movement(kind, reference, now_ms, bill_id, payment.razorpay_id, detail=detail)
