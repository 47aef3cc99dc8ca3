"""Asks Razorpay about what a tenant owes, so that a payment counts at once, also when its webhook is late or lost.

Each object is fetched at most once in a few seconds, for all visitors. Razorpay down: logged, and nothing changes; the
webhook or the hourly poll applies the payment later.
"""

from uuid import UUID

from sqlalchemy import or_, select

from billing.collection.collection import refresh_charge
from billing.context import BillingContext
from billing.models import Charge
from billing.models.states import TERMINAL, ChargeState
from billing.razorpay.errors import RazorpayError
from billing.subscriptions.intents import live_of, subscriptions_of, waiting_of
from billing.subscriptions.sync import refresh_subscription
from core.clock import now_ms
from core.logs import get_logger

EVERY_MS = 4_000
"""An object fetched more recently than this is not fetched again."""
_MOST = 5
"""Charges that one call fetches."""

log = get_logger(__name__)


async def refresh_payments(context: BillingContext, tenant_id: UUID) -> None:
    """Fetches and applies the tenant's collectible charges and its unpaid subscription. Raises Unavailable."""
    charges, subscription_id = await _unpaid(context, tenant_id)
    try:
        for charge_id in charges:
            await refresh_charge(context, tenant_id, charge_id)
        if subscription_id is not None:
            await refresh_subscription(context, tenant_id, subscription_id)
    except RazorpayError as error:
        log.info("payments_not_refreshed", tenant_id=str(tenant_id), error=str(error))


async def _unpaid(context: BillingContext, tenant_id: UUID) -> tuple[list[UUID], UUID | None]:
    """The charges that Razorpay has, and the subscription that awaits a payment; those not fetched just now."""
    at_ms = now_ms()
    charged = select(Charge.id).where(
        Charge.tenant_id == tenant_id,
        Charge.state == ChargeState.SUBMITTED,
        Charge.razorpay_id.is_not(None),
        or_(Charge.checked_ms.is_(None), Charge.checked_ms < at_ms - EVERY_MS),
    )
    async with context.database.session() as session:
        charges = list(await session.scalars(charged.order_by(Charge.id).limit(_MOST)))
        rows = await subscriptions_of(session, tenant_id)
    row = waiting_of(rows) or live_of(rows)
    if row is None or row.razorpay_id is None or row.status in TERMINAL or (row.fetched_ms or 0) > at_ms - EVERY_MS:
        return charges, None
    is_paid = row.paid_through_ms is not None and row.paid_through_ms > at_ms and row.status == "active"
    return charges, None if is_paid else row.id
