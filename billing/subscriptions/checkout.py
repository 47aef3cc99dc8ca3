"""Checkout's answer after an authorisation: its signature is verified, then the subscription is fetched.

The signature proves only that Razorpay means our stored subscription; access follows from the fetched state. Razorpay
down: the answer is accepted, and the webhook or the duty fetches later.
"""

from uuid import UUID

from billing.context import SUBSCRIPTIONS, BillingContext
from billing.models import Subscription
from billing.razorpay.errors import RazorpayError
from billing.razorpay.signatures import checkout_is_genuine
from billing.subscriptions.intents import subscriptions_of
from billing.subscriptions.sync import refresh_subscription
from core.errors import Invalid


async def confirm_checkout(
    context: BillingContext, tenant_id: UUID, payment_id: str, razorpay_id: str, signature: str
) -> Subscription:
    """The refreshed subscription. Raises Invalid if it isn't the tenant's or the signature is wrong."""
    async with context.database.session() as session:
        rows = await subscriptions_of(session, tenant_id)
    row = next((row for row in rows if row.razorpay_id is not None and row.razorpay_id == razorpay_id), None)
    secret = context.settings.razorpay_key_secret
    if row is None or not checkout_is_genuine(row.razorpay_id or "", payment_id, signature, secret):
        raise Invalid("Razorpay's signature doesn't match a subscription of this tenant")
    try:
        await refresh_subscription(context, tenant_id, row.id)
    except RazorpayError:
        await context.post([SUBSCRIPTIONS])
    return await context.read(Subscription, tenant_id, row.id)
