"""Subscriptions at Razorpay that bear our notes and that we do not know by their id: taken for ours, or sent away.

A call whose answer was lost may have made one; then it is adopted. If a row has its subscription already, any other
is an extra: it is cancelled, what was paid for it is given back, and a person is told. Razorpay away: raises
RazorpayError, and whoever found the subscription comes again.
"""

from uuid import UUID

from billing.access.projection import project
from billing.collection.allocation import record_extra
from billing.context import COLLECT, SUBSCRIPTIONS, BillingContext, enqueue_after_commit, record_finding
from billing.models import Subscription
from billing.razorpay.entities import Payment
from billing.razorpay.entities import Subscription as RazorpaySubscription
from billing.razorpay.errors import RazorpayRefused
from billing.subscriptions.intents import TERMINAL
from core.clock import now_ms
from core.logs import get_logger

log = get_logger(__name__)


async def adopt_or_dismiss(context: BillingContext, found: RazorpaySubscription) -> bool:
    """Whether it was ours at all. Raises RazorpayError, Unavailable."""
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
    if row.razorpay_id is None and row.state in {"intended", "submitting"}:
        await adopt(context, tenant_id, subscription_id, found)
    else:
        await dismiss(context, found, tenant_id, subscription_id)
    return True


async def adopt(context: BillingContext, tenant_id: UUID, subscription_id: UUID, found: RazorpaySubscription) -> None:
    """It is the one that this row wanted. A row that has one already makes it an extra."""
    async with context.tenant_transaction(tenant_id) as session:
        row = await session.get_one(Subscription, (tenant_id, subscription_id))
        known = row.razorpay_id
        if known is None and row.state in {"intended", "submitting"}:
            row.state, row.razorpay_id, row.error = "submitted", found.id, None
            row.short_url, row.status = found.short_url, found.status
            row.start_ms = None if found.start_at is None else found.start_at * 1000
            known = found.id
            await project(session, context.zone, tenant_id, now_ms())
            if row.cancel_state is not None:
                enqueue_after_commit(session, SUBSCRIPTIONS)
    if known != found.id:
        await dismiss(context, found, tenant_id, subscription_id)


async def dismiss(context: BillingContext, extra: RazorpaySubscription, tenant_id: UUID, subscription_id: UUID) -> None:
    """Cancels it, gives back what was paid for it, and says so. Bears being done again."""
    if extra.status not in TERMINAL:
        try:
            await context.razorpay.cancel_subscription(extra.id)
        except RazorpayRefused as refused:
            log.warning("extra_not_cancelled", subscription=extra.id, error=str(refused))
    payments = await _payments_of(context, extra.id)
    async with context.tenant_transaction(tenant_id) as session:
        for payment in payments:
            await record_extra(session, context, tenant_id, payment, now_ms())
        await record_finding(
            session,
            f"extra:{extra.id}",
            "extra_subscription",
            tenant_id=tenant_id,
            razorpay_id=extra.id,
            subscription_id=str(subscription_id),
            paid_paise=sum(payment.amount for payment in payments),
        )
        enqueue_after_commit(session, COLLECT)


async def _payments_of(context: BillingContext, razorpay_id: str) -> list[Payment]:
    """What was really taken for it."""
    ids = [invoice.payment_id for invoice in await context.razorpay.invoices_of(razorpay_id) if invoice.payment_id]
    payments = [await context.razorpay.fetch_payment(payment_id) for payment_id in ids]
    return [payment for payment in payments if payment.status in {"captured", "refunded"}]
