"""Payments disputed by the customer's bank: stored as the webhook showed them, and reported as findings.

A disputed bill stays paid while an operator answers the bank. A lost dispute takes the payment back: its bills are open
and collected again. A lost top-up is taken out of the wallet, whose balance may become negative. One that is won after
all is booked back: what is still due is paid, and what the tenant paid again meanwhile is refunded. Deliveries come in
any order, so an older one doesn't reopen a dispute that has ended.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.ledger.movements import (
    Applied,
    applied_to,
    dispute_lost,
    dispute_turn,
    dispute_won,
    taken_by,
    write_off_reversed,
)
from billing.models import Bill, Dispute, Payment, WalletEntry
from billing.models.bills import SMALLEST_PAISE, balance_of
from billing.models.states import BillKind, BillState, WalletEntryKind
from billing.payments.payments import find_payment
from billing.payments.refunds import request_refund, wanted_paise
from billing.wallet.entries import add_entry
from core.clock import now_ms
from core.money import divide_half_up

_ENDED = frozenset({"won", "lost", "closed"})
_LOST, _WON = "lost", "won"


async def record_dispute(context: BillingContext, dispute: dict[str, Any]) -> bool:
    """Stores a webhook's dispute entity or its new status; False if its payment isn't ours.

    Raises Unavailable; KeyError for an entity without id, payment_id, amount or status.
    """
    key, payment_id, status = str(dispute["id"]), str(dispute["payment_id"]), str(dispute["status"])
    async with context.database.session() as session:
        payment = await find_payment(session, payment_id)
    if payment is None:
        return False
    async with context.tenant_transaction(payment.tenant_id) as session:
        row = await session.get(Dispute, (payment.tenant_id, key))
        if row is None:
            row = Dispute(tenant_id=payment.tenant_id, razorpay_id=key, payment_id=payment_id, seen_ms=now_ms())
            row.status = status
            session.add(row)
        elif row.status in _ENDED and status not in _ENDED:
            return True
        was = None if row in session.new else row.status
        if was != _LOST:
            row.amount_paise, row.status, row.entity = int(dispute["amount"]), status, dispute
        elif status == _WON:
            row.status = status  # the amount that was booked stays
        await session.flush()
        if status == _LOST != was:
            await _take_back(session, context, payment, row, now_ms())
        elif status == _WON and was == _LOST:
            await _give_back(session, context, payment, row, now_ms())
        detail = {"dispute_id": key, "payment_id": payment_id, "amount_paise": row.amount_paise, "status": status}
        name = f"dispute:{key}" if status not in _ENDED else f"dispute:{key}:{status}"
        await record_finding(session, name, "dispute", tenant_id=payment.tenant_id, **detail)
    return True


async def _take_back(
    session: AsyncSession, context: BillingContext, payment: Payment, dispute: Dispute, now_ms: int
) -> None:
    """Opens the bills that the payment paid, in the order of its entries, up to the lost amount."""
    left, reopened, taken = dispute.amount_paise, list[Applied](), dict[UUID, int]()
    turn = await dispute_turn(session, dispute)
    for bill_id, applied_paise in (await _parts(session, payment)).items():
        bill = await session.get_one(Bill, (payment.tenant_id, bill_id))
        if bill.kind == BillKind.RECEIPT_VOUCHER:
            await _move_wallet(session, bill, dispute, -min(left, applied_paise), turn, now_ms)
            continue
        paise = min(left, applied_paise, bill.paid_paise)
        owed_before = max(0, balance_of(bill))
        bill.paid_paise -= paise
        reopened.append((bill, max(0, balance_of(bill)) - owed_before))
        taken[bill_id] = paise
        left -= paise
        if balance_of(bill) >= SMALLEST_PAISE:
            bill.state, bill.paid_ms, bill.due_ms = BillState.OPEN, None, now_ms + context.rules.pay_within_ms
    await session.flush()
    await dispute_lost(session, dispute, reopened, taken, now_ms, turn)
    await project(session, context.zone, payment.tenant_id, now_ms)
    enqueue_after_commit(session, COLLECT)


async def _give_back(
    session: AsyncSession, context: BillingContext, payment: Payment, dispute: Dispute, now_ms: int
) -> None:
    """Pays with the money that came back what is still due of the bills that lost it; refunds the rest of theirs."""
    settled, over_paise = list[Applied](), 0
    turn = await dispute_turn(session, dispute)
    taken = await taken_by(session, dispute)
    payment = await session.get_one(Payment, (payment.tenant_id, payment.razorpay_id))
    for bill_id, applied_paise in (taken or await _parts(session, payment)).items():
        bill = await session.get_one(Bill, (payment.tenant_id, bill_id))
        paise = min(applied_paise, dispute.amount_paise - sum(part for _, part in settled))
        if bill.kind == BillKind.RECEIPT_VOUCHER:
            await _move_wallet(session, bill, dispute, paise, turn, now_ms)
            continue
        applied = await _settle(session, bill, paise, f"{dispute.razorpay_id}{turn}", now_ms)
        settled.append((bill, applied))
        over_paise += paise - applied
    # What refunds gave back of the payment, or will, was not the bills' any more when the bank took it.
    given_paise = payment.refunded_paise + await wanted_paise(session, payment, with_failed=True)
    left_paise = payment.amount_paise - given_paise - sum(part for _, part in settled)
    excess_paise = max(0, min(over_paise, left_paise, payment.applied_paise))
    payment.applied_paise -= excess_paise
    payment.excess_paise += excess_paise
    await session.flush()
    await dispute_won(session, dispute, settled, now_ms, turn)
    if excess_paise:
        cause = f"excess:{payment.razorpay_id}:{dispute.razorpay_id}{turn}"
        await request_refund(session, context, payment.tenant_id, payment.razorpay_id, excess_paise, cause)
    await project(session, context.zone, payment.tenant_id, now_ms)
    enqueue_after_commit(session, COLLECT)  # also voids the charges of bills that are paid now


async def _settle(session: AsyncSession, bill: Bill, paise: int, by: str, now_ms: int) -> int:
    """Pays what is due of a bill, up to `paise`, and returns how much; a debt that was written off is one again."""
    forgiven_paise = min(paise, bill.written_off_paise)
    bill.written_off_paise -= forgiven_paise
    await write_off_reversed(session, bill, by, forgiven_paise, now_ms)
    applied = min(paise, max(0, balance_of(bill)))
    bill.paid_paise += applied
    if applied and balance_of(bill) <= 0:
        bill.state, bill.paid_ms = BillState.PAID, now_ms
    return applied


async def _parts(session: AsyncSession, payment: Payment) -> dict[UUID, int]:
    """What each bill has of a payment."""
    parts = await applied_to(session, payment)
    if not parts and payment.bill_id is not None:  # from before the ledger, or a top-up
        parts = {payment.bill_id: payment.applied_paise}
    return parts


async def _move_wallet(
    session: AsyncSession, voucher: Bill, dispute: Dispute, paise: int, turn: str, now_ms: int
) -> None:
    """Moves a top-up's money, less its tax, out of the wallet (negative) or back into it.

    What is used already makes the balance negative.
    """
    top_up = select(WalletEntry.id).where(
        WalletEntry.tenant_id == voucher.tenant_id, WalletEntry.reference == f"top-up:{voucher.id}"
    )
    net_paise = divide_half_up(abs(paise) * voucher.taxable_paise, voucher.total_paise)
    if net_paise:
        kind, reference = WalletEntryKind.ADJUSTMENT, f"dispute:{dispute.razorpay_id}{turn}"
        of = {"of_id": await session.scalar(top_up), "bill_id": voucher.id}
        signed = net_paise if paise > 0 else -net_paise
        await add_entry(session, voucher.tenant_id, kind, signed, reference, now_ms, **of)
