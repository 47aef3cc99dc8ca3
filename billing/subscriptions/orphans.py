"""Subscriptions at Razorpay that have our notes but an unknown id: adopted, or cancelled as extras.

A call whose answer was lost may have created one; its row adopts it, unless it has its subscription already. Razorpay
down: raises RazorpayError, and the caller tries again.
"""

from uuid import UUID

from billing.access.projection import project
from billing.collection.allocation import refund_extra_payment
from billing.context import COLLECT, SUBSCRIPTIONS, BillingContext, enqueue_after_commit
from billing.findings import record_finding, resolve_finding
from billing.models import Subscription
from billing.models.states import CAPTURED, TERMINAL, UNANSWERED, SubscriptionState
from billing.razorpay.entities import Subscription as RazorpaySubscription
from billing.razorpay.errors import RazorpayRefused
from core.clock import now_ms
from core.logs import get_logger

log = get_logger(__name__)


async def adopt_or_cancel(context: BillingContext, found: RazorpaySubscription) -> bool:
    """Adopts or cancels the subscription; False if it isn't ours. Raises RazorpayError, Unavailable."""
    try:
        tenant_id, subscription_id = UUID(found.notes["tenant_id"]), UUID(found.notes["naka_subscription"])
    except (KeyError, ValueError):
        return False
    async with context.database.session() as session:
        row = await session.get(Subscription, (tenant_id, subscription_id))
    if row is None:
        return False
    if row.razorpay_id == found.id:
        return True
    if row.razorpay_id is None and row.state in UNANSWERED:
        await adopt_subscription(context, tenant_id, subscription_id, found)
    else:
        await cancel_extra(context, found, tenant_id, subscription_id)
    return True


async def adopt_subscription(
    context: BillingContext, tenant_id: UUID, subscription_id: UUID, found: RazorpaySubscription
) -> None:
    """Makes it the subscription of this row, or cancels it if the row has another already."""
    async with context.tenant_transaction(tenant_id) as session:
        row = await session.get_one(Subscription, (tenant_id, subscription_id))
        known = row.razorpay_id
        if known is None and row.state in UNANSWERED:
            row.state, row.razorpay_id, row.error = SubscriptionState.SUBMITTED, found.id, None
            row.short_url, row.status = found.short_url, found.status
            row.start_ms = None if found.start_at is None else found.start_at * 1000
            known = found.id
            await project(session, context.zone, tenant_id, now_ms())
            if row.cancel_state is not None:
                enqueue_after_commit(session, SUBSCRIPTIONS)
    if known != found.id:
        await cancel_extra(context, found, tenant_id, subscription_id)


async def cancel_extra(
    context: BillingContext, extra: RazorpaySubscription, tenant_id: UUID, subscription_id: UUID
) -> None:
    """Cancels an extra subscription, refunds its payments, and records a finding. Idempotent."""
    if extra.status not in TERMINAL:
        try:
            await context.razorpay.cancel_subscription(extra.id)
        except RazorpayRefused as refused:
            log.warning("extra_not_cancelled", subscription=extra.id, error=str(refused))
    paid = [invoice.payment_id for invoice in await context.razorpay.invoices_of(extra.id) if invoice.payment_id]
    fetched = [await context.razorpay.fetch_payment(payment_id) for payment_id in paid]
    payments = [payment for payment in fetched if payment.status in CAPTURED]
    async with context.tenant_transaction(tenant_id) as session:
        for payment in payments:
            await refund_extra_payment(session, context, tenant_id, payment)
        detail = {"razorpay_id": extra.id, "subscription_id": str(subscription_id)}
        key, paid_paise = f"extra:{extra.id}", sum(payment.amount for payment in payments)
        if extra.status in TERMINAL and all(payment.amount_refunded >= payment.amount for payment in payments):
            await resolve_finding(session, key, now_ms())
        else:
            kind = "extra_subscription"
            await record_finding(session, key, kind, tenant_id=tenant_id, **detail, paid_paise=paid_paise)
        enqueue_after_commit(session, COLLECT)
