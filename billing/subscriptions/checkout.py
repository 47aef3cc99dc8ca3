"""What Checkout hands to the browser after an authorisation: verified, then fetched like a webhook's hint.

The signature proves that Razorpay said it, of *our stored* subscription; it gives nothing by itself: what the tenant
gets follows from the fetched state. Razorpay away: the callback is acknowledged and the webhook or the duty does it.
"""

from uuid import UUID

from billing.context import SUBSCRIPTIONS, BillingContext
from billing.models import Subscription
from billing.razorpay.errors import RazorpayError
from billing.razorpay.signatures import checkout_is_genuine
from billing.subscriptions.intents import subscriptions_of
from billing.subscriptions.sync import refresh
from core.errors import Invalid


async def authorised(
    context: BillingContext, tenant_id: UUID, payment_id: str, razorpay_id: str, signature: str
) -> Subscription:
    """The subscription as it is now. Raises Invalid when it is not ours or not signed."""
    async with context.database.session() as session:
        rows = await subscriptions_of(session, tenant_id)
    row = next((row for row in rows if row.razorpay_id is not None and row.razorpay_id == razorpay_id), None)
    secret = context.settings.razorpay_key_secret
    if row is None or not checkout_is_genuine(row.razorpay_id or "", payment_id, signature, secret):
        raise Invalid("this is not Razorpay's word on a subscription of this tenant")
    try:
        await refresh(context, tenant_id, row.id)
    except RazorpayError:
        await context.post([SUBSCRIPTIONS])
    async with context.database.session() as session:
        return await session.get_one(Subscription, (tenant_id, row.id))
