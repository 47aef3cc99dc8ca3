"""Captured payments of a day, by amount and refunded amount, and refunds under way.

A page takes three queries, whatever is on it. A payment is ours if its row is known, if it paid an order of a charge or
a mandate, or if its notes are ours. One of ours that can't be placed is a finding, never counted as foreign.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from billing.collection.charges import LIST_LAG_MS
from billing.collection.collection import refresh_charge_by_payment
from billing.context import BillingContext
from billing.mandates.sync import refresh_mandate_by_payment
from billing.models import Charge, Mandate, Payment, Refund
from billing.models.states import CAPTURED, RefundState
from billing.payments.payments import find_payment
from billing.payments.refunds import refresh_refunds
from billing.payments.unplaced import has_our_notes, report_unplaced
from billing.razorpay.entities import Payment as RazorpayPayment
from billing.reconciliation.report import RazorpayReport, for_each
from billing.reconciliation.windows import Window
from billing.subscriptions.sync import find_subscription, refresh_subscription
from core.clock import now_ms
from core.tenancy.models import Tenant


async def compare_payments(context: BillingContext, found: RazorpayReport, day: Window) -> None:
    """Compares the captured payments of a day. Raises RazorpayError, Unavailable."""
    async for page in context.razorpay.payment_pages(since=day.since, until=day.until):
        captured = [payment for payment in page if payment.status in CAPTURED]
        found.count("payments", len(captured))
        async with context.database.session() as session:
            known = await _known(session, captured)
            ours = await _ours(session, [payment for payment in captured if payment.id not in known])
        for payment in captured:
            row = known.get(payment.id)
            if row is None and payment.id not in ours:
                found.foreign += 1
                continue
            if row is None or not _matches(payment, row):
                row = await _heal(context, found, payment)
            else:
                found.explain("payment", payment.id)
            if row is not None:
                found.collected_paise += row.amount_paise
                found.refunded_paise += row.refunded_paise


async def _known(session: AsyncSession, captured: Sequence[RazorpayPayment]) -> dict[str, Payment]:
    rows = await session.scalars(select(Payment).where(Payment.razorpay_id.in_([one.id for one in captured])))
    return {row.razorpay_id: row for row in rows}


async def _ours(session: AsyncSession, unknown: Sequence[RazorpayPayment]) -> set[str]:
    """The ids of those that paid an order of ours, or bear a tenant in their notes."""
    orders = {one.order_id for one in unknown if one.order_id is not None}
    tenants = {one.id: _uuid(one.notes.get("tenant_id")) for one in unknown}
    named = {tenant_id for tenant_id in tenants.values() if tenant_id is not None}
    ordered = union_all(
        select(Charge.order_id).where(Charge.order_id.in_(orders)),
        select(Mandate.order_id).where(Mandate.order_id.in_(orders)),
    )
    known_orders = set(await session.scalars(ordered)) if orders else set()
    known_tenants = set(await session.scalars(select(Tenant.id).where(Tenant.id.in_(named)))) if named else set()
    return {
        one.id
        for one in unknown
        if has_our_notes(one) or one.order_id in known_orders or tenants[one.id] in known_tenants
    }


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _matches(payment: RazorpayPayment, row: Payment) -> bool:
    return (payment.amount, payment.amount_refunded) == (
        row.amount_paise,
        row.refunded_paise,
    ) and row.status in CAPTURED


async def _heal(context: BillingContext, found: RazorpayReport, payment: RazorpayPayment) -> Payment | None:
    """Fetches what the payment paid for, and its refunds; returns its row, if it could be placed."""
    await _refresh_paid(context, payment)
    await refresh_refunds(context, payment.id)
    async with context.database.session() as session:
        row = await find_payment(session, payment.id)
    what = f"{payment.amount} paise, {payment.status}"
    if row is not None and _matches(payment, row):
        found.heal("payment", payment.id, what)
        found.explain("payment", payment.id)
    else:
        is_reported = row is None and await report_unplaced(context, payment)
        found.leave("payment", payment.id, what, is_reported=is_reported)
    return row


async def _refresh_paid(context: BillingContext, payment: RazorpayPayment) -> None:
    """Refreshes the charge or subscription that the payment paid, or the mandate that it authorised."""
    if await refresh_charge_by_payment(context, payment):
        return
    if await refresh_mandate_by_payment(context, payment) is not None or payment.invoice_id is None:
        return
    invoice = await context.razorpay.fetch_invoice(payment.invoice_id)
    owner = None if invoice.subscription_id is None else await find_subscription(context, invoice.subscription_id)
    if owner is not None:
        await refresh_subscription(context, owner.tenant_id, owner.id)


async def compare_refunds(context: BillingContext, found: RazorpayReport) -> None:
    """Refreshes our refunds that are under way for longer than a webhook takes."""
    async with context.database.session() as session:
        query = select(Refund).where(
            Refund.state.in_((RefundState.SUBMITTING, RefundState.PENDING)), Refund.created_ms < now_ms() - LIST_LAG_MS
        )
        rows = list(await session.scalars(query))
        found.count("refunds", await session.scalar(select(func.count()).select_from(Refund)) or 0)

    async def refresh(row: Refund) -> None:
        await refresh_refunds(context, row.payment_id)
        after = await context.read(Refund, row.tenant_id, row.id)
        if after.state != row.state:
            found.heal("refund", str(row.id), f"{row.state} -> {after.state}")

    await for_each(rows, refresh)
