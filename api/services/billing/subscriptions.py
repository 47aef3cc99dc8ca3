"""A tenant's subscription: subscribe, change, cancel, keep, pause, resume; and the operator's view of all of them.

A change is stored first and sent to Razorpay at once, so that the answer has the link to pay. Razorpay down: the worker
sends it later. The operator's changes are left to the worker.
"""

from uuid import UUID

from api.schemas.billing.subscriptions import (
    CheckoutAnswer,
    NewSubscription,
    SubscriptionItem,
    SubscriptionView,
    TenantSubscription,
)
from api.schemas.pages import Page
from api.services.accounts.lookups import list_newest, operated_tenant, own_tenant, reach_tenant
from api.services.billing import razorpay_later
from api.services.context import ServiceContext
from billing.models import Subscription
from billing.models.states import SubscriptionState
from billing.subscriptions import checkout, intents, push
from core.errors import Invalid
from core.logs import get_logger
from core.tenancy.principal import Scope

log = get_logger(__name__)

_OTHER_CALL_S = 10
"""The longest wait for another request's call to Razorpay about the same subscription (a double click)."""


async def find_subscription(context: ServiceContext) -> SubscriptionView:
    """The live subscription, and the one to authorise."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        rows = await intents.subscriptions_of(session, tenant_id)
    current = intents.live_of(rows)
    waiting = intents.waiting_of(rows)
    key_id = context.settings.razorpay_key_id
    return SubscriptionView(
        current=None if current is None else SubscriptionItem.of(current, key_id),
        waiting=None if waiting is None else SubscriptionItem.of(waiting, key_id),
    )


async def subscribe(context: ServiceContext, new: NewSubscription) -> SubscriptionView:
    """Subscribes, or changes the plan; idempotent. Raises NotFound, Invalid, Conflict.

    Without `pay_url` Razorpay hasn't answered yet: ask again in a minute.
    """
    tenant_id = own_tenant(context)
    wanted = await intents.subscribe(context.billing, context.actor, tenant_id, new.plan, new.version)
    if wanted.subscription_id is not None:
        await _send(context, tenant_id, wanted.subscription_id)
        async with context.transaction() as session:
            row = await session.get_one(Subscription, (tenant_id, wanted.subscription_id))
        if row.state == SubscriptionState.VOID:
            log.warning("subscription_refused", subscription=str(row.id), error=row.error)
            raise Invalid("Razorpay refuses this subscription: the operator of this service can see why")
    return await find_subscription(context)


async def confirm_checkout(context: ServiceContext, answer: CheckoutAnswer) -> SubscriptionView:
    """Verifies Checkout's answer from the browser, and fetches the subscription's state. Raises Invalid, NotFound."""
    await checkout.confirm_checkout(
        context.billing,
        own_tenant(context),
        answer.razorpay_payment_id,
        answer.razorpay_subscription_id,
        answer.razorpay_signature,
    )
    return await find_subscription(context)


async def cancel(context: ServiceContext, *, at_period_end: bool) -> SubscriptionView:
    """Cancels the subscription to authorise, if any, else the live one. Raises NotFound, Conflict."""
    tenant_id = own_tenant(context)
    row = await intents.cancel_subscription(
        context.billing, context.actor, tenant_id, at_period_end=at_period_end, reason="the tenant's wish"
    )
    await _send(context, tenant_id, row.id)
    return await find_subscription(context)


async def keep(context: ServiceContext) -> SubscriptionView:
    """Takes back a cancel at the period's end, until two days before it. Raises NotFound, Conflict."""
    await intents.keep_subscription(context.billing, context.actor, own_tenant(context))
    return await find_subscription(context)


async def pause(context: ServiceContext, *, resume: bool = False) -> SubscriptionView:
    """Stops further charges, or resumes them; the paid time is served. Raises NotFound, Conflict."""
    tenant_id = own_tenant(context)
    row = await intents.pause_subscription(context.billing, context.actor, tenant_id, resume=resume)
    await _send(context, tenant_id, row.id)
    return await find_subscription(context)


async def list_subscriptions(
    context: ServiceContext, *, tenant: UUID | None = None, before: UUID | None = None, size: int
) -> Page[TenantSubscription]:
    """Subscriptions, ended ones too, newest first. Raises NotFound for the tenant."""
    return await list_newest(context, TenantSubscription, Subscription, tenant, before=before, size=size)


async def list_of_tenant(context: ServiceContext, tenant: UUID | str) -> list[SubscriptionItem]:
    """Every subscription of a tenant, newest first. Raises NotFound for the tenant."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        tenant_id = (await reach_tenant(context, session, tenant)).id
        return [SubscriptionItem.of(row) for row in await intents.subscriptions_of(session, tenant_id)]


async def cancel_for_tenant(
    context: ServiceContext, tenant: UUID | str, reason: str, *, at_period_end: bool
) -> SubscriptionItem:
    """Cancels a tenant's subscription for its operator. Raises NotFound, Conflict."""
    tenant_id = await operated_tenant(context, tenant)
    row = await intents.cancel_subscription(
        context.billing, context.actor, tenant_id, at_period_end=at_period_end, reason=reason
    )
    return SubscriptionItem.of(row)


async def pause_for_tenant(context: ServiceContext, tenant: UUID | str, *, resume: bool) -> SubscriptionItem:
    """Pauses or resumes a tenant's subscription for its operator. Raises NotFound, Conflict."""
    tenant_id = await operated_tenant(context, tenant)
    return SubscriptionItem.of(
        await intents.pause_subscription(context.billing, context.actor, tenant_id, resume=resume)
    )


async def _send(context: ServiceContext, tenant_id: UUID, subscription_id: UUID) -> None:
    """Sends a stored change to Razorpay; after an error the worker does."""
    with razorpay_later(subscription=subscription_id):
        await push.push_subscription(context.billing, tenant_id, subscription_id)
        await push.wait_for_other_push(context.billing, tenant_id, subscription_id, patience_s=_OTHER_CALL_S)
