"""Payments as Razorpay told them last: the rows, and nothing of what they paid for. A store down: Unavailable.

`take_payment` is what everybody calls who fetched a payment: one that is not known is not made here, because only
who knows what it was for (`billing.collection.allocation`) can say how much of it was too much.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Payment
from billing.razorpay import entities

TAKEN = frozenset({"captured", "refunded"})
"""Money that came. Given back or not, it was applied to something."""


async def find_payment(session: AsyncSession, razorpay_id: str) -> Payment | None:
    """The payment, of whichever tenant."""
    return (await session.scalars(select(Payment).where(Payment.razorpay_id == razorpay_id))).one_or_none()


async def take_payment(session: AsyncSession, payment: entities.Payment, now_ms: int) -> Payment | None:
    """A known payment's status and what was given back of it, as fetched; None if it is not known.

    The tenant's lock is held. What its refunds mean is `billing.payments.refunds.refresh`'s.
    """
    del now_ms
    row = await find_payment(session, payment.id)
    if row is not None:
        _copy(row, payment)
    return row


async def record_payment(
    session: AsyncSession,
    tenant_id: UUID,
    payment: entities.Payment,
    *,
    charge_id: UUID | None = None,
    subscription_id: UUID | None = None,
) -> tuple[Payment, bool]:
    """The row, and whether it still waits to be applied (`bill_id` says to what it was). The lock is held."""
    row = await session.get(Payment, (tenant_id, payment.id))
    if row is None:
        row = Payment(tenant_id=tenant_id, razorpay_id=payment.id, applied_paise=0, excess_paise=0)
        session.add(row)
    _copy(row, payment)
    waits = row.bill_id is None and not row.excess_paise
    if waits:
        row.charge_id, row.subscription_id = charge_id, subscription_id
        row.captured_ms = payment.created_at * 1000
    return row, waits


def _copy(row: Payment, payment: entities.Payment) -> None:
    row.status, row.amount_paise, row.refunded_paise = payment.status, payment.amount, payment.amount_refunded
    row.method, row.international = payment.method, payment.international
    row.order_id, row.razorpay_invoice_id = payment.order_id, payment.invoice_id
