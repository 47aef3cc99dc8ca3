"""Payments as last fetched from Razorpay, without their allocation. Postgres down: Unavailable.

`update_payment` updates known payments only. Recording a new one takes knowledge of its purpose
(`billing.collection.allocation`), to tell how much of it is excess.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Payment
from billing.razorpay import entities


async def find_payment(session: AsyncSession, razorpay_id: str) -> Payment | None:
    """The payment, of any tenant."""
    return (await session.scalars(select(Payment).where(Payment.razorpay_id == razorpay_id))).one_or_none()


async def update_payment(session: AsyncSession, payment: entities.Payment) -> Payment | None:
    """Copies the fetched status and refunded amount to a known payment; None if it is unknown. The lock is held."""
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
    """The payment's row, and whether it is still to be applied to a bill. The lock is held."""
    row = await session.get(Payment, (tenant_id, payment.id))
    if row is None:
        row = Payment(tenant_id=tenant_id, razorpay_id=payment.id, applied_paise=0, excess_paise=0)
        session.add(row)
    _copy(row, payment)
    is_unapplied = row.bill_id is None and not row.excess_paise
    if is_unapplied:
        row.charge_id, row.subscription_id = charge_id, subscription_id
        row.captured_ms = payment.created_at * 1000
    return row, is_unapplied


def _copy(row: Payment, payment: entities.Payment) -> None:
    row.status, row.amount_paise, row.refunded_paise = payment.status, payment.amount, payment.amount_refunded
    row.method, row.international = payment.method, payment.international
    row.order_id, row.razorpay_invoice_id = payment.order_id, payment.invoice_id
