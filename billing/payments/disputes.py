"""Payments disputed by the customer's bank: stored as the webhook showed them, and reported as findings.

A disputed bill stays paid while an operator answers the bank. A lost dispute takes the payment back: its bills are open
and collected again. Deliveries come in any order, so an older one doesn't reopen a dispute that has ended; one that was
lost stays lost, and what Razorpay says of it later is reported. A lost top-up is taken out of the wallet, whose balance
may become negative.
"""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.ledger.movements import Applied, applied_to, dispute_lost
from billing.models import Bill, Dispute, Payment, WalletEntry
from billing.models.bills import SMALLEST_PAISE, balance_of
from billing.models.states import BillKind, BillState, WalletEntryKind
from billing.payments.payments import find_payment
from billing.wallet.entries import add_entry
from core.clock import now_ms
from core.money import divide_half_up

_ENDED = frozenset({"won", "lost", "closed"})
_LOST = "lost"


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
        await session.flush()
        if status == _LOST != was:
            await _take_back(session, context, payment, row, now_ms())
        detail = {"dispute_id": key, "payment_id": payment_id, "amount_paise": row.amount_paise, "status": status}
        name = f"dispute:{key}" if status not in _ENDED else f"dispute:{key}:{status}"
        await record_finding(session, name, "dispute", tenant_id=payment.tenant_id, **detail)
    return True


async def _take_back(
    session: AsyncSession, context: BillingContext, payment: Payment, dispute: Dispute, now_ms: int
) -> None:
    """Opens the bills that the payment paid, in the order of its entries, up to the lost amount."""
    left, reopened = dispute.amount_paise, list[Applied]()
    parts = await applied_to(session, payment)
    if not parts and payment.bill_id is not None:  # from before the ledger
        parts = {payment.bill_id: payment.applied_paise}
    for bill_id, applied_paise in parts.items():
        bill = await session.get_one(Bill, (payment.tenant_id, bill_id))
        if bill.kind == BillKind.RECEIPT_VOUCHER:
            await _take_from_wallet(session, bill, dispute, min(left, applied_paise), now_ms)
            continue
        paise = min(left, applied_paise, bill.paid_paise)
        owed_before = max(0, balance_of(bill))
        bill.paid_paise -= paise
        reopened.append((bill, max(0, balance_of(bill)) - owed_before))
        left -= paise
        if balance_of(bill) >= SMALLEST_PAISE:
            bill.state, bill.paid_ms, bill.due_ms = BillState.OPEN, None, now_ms + context.rules.pay_within_ms
    await session.flush()
    await dispute_lost(session, dispute, reopened, now_ms)
    await project(session, context.zone, payment.tenant_id, now_ms)
    enqueue_after_commit(session, COLLECT)


async def _take_from_wallet(session: AsyncSession, voucher: Bill, dispute: Dispute, paise: int, now_ms: int) -> None:
    """Takes a top-up's money, less its tax, out of the wallet. What is used already makes the balance negative."""
    top_up = select(WalletEntry.id).where(
        WalletEntry.tenant_id == voucher.tenant_id, WalletEntry.reference == f"top-up:{voucher.id}"
    )
    net_paise = divide_half_up(paise * voucher.taxable_paise, voucher.total_paise)
    if net_paise:
        kind, reference = WalletEntryKind.ADJUSTMENT, f"dispute:{dispute.razorpay_id}"
        of = {"of_id": await session.scalar(top_up), "bill_id": voucher.id}
        await add_entry(session, voucher.tenant_id, kind, -net_paise, reference, now_ms, **of)
