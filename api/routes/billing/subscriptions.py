"""Routes of subscriptions: the operator's list, and a tenant's own."""

from api.auth.access import TenantContext
from api.routes.billing.parameters import OwnContext
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.routes.route import admin_router, own_router
from api.schemas.billing.subscriptions import (
    CheckoutAnswer,
    Ending,
    NewSubscription,
    SubscriptionView,
    TenantSubscription,
)
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.billing import subscriptions

router, own = admin_router(), own_router("/subscription")


@router.get("/subscriptions")
async def all_subscriptions(
    context: TenantContext, tenant_id: TenantWanted = None, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[TenantSubscription]:
    """List subscriptions, newest first; ended ones too."""
    return await subscriptions.list_subscriptions(context, tenant=tenant_id, before=cursor, size=size)


@own.get("")
async def my_subscription(context: OwnContext) -> SubscriptionView:
    """Show the live subscription, and the one to authorise."""
    return await subscriptions.find_subscription(context)


@own.post("", status_code=201)
async def new_subscription(body: NewSubscription, context: OwnContext) -> SubscriptionView:
    """Subscribe, or change the plan. A repeated request returns the same subscription, with its `pay_url`.

    A change starts when the paid time ends; the current subscription ends then, once the new one is authorised.
    Without `pay_url` Razorpay hasn't answered yet: ask again in a minute.
    """
    return await subscriptions.subscribe(context, body)


@own.post("/authorised")
async def checkout_done(body: CheckoutAnswer, context: OwnContext) -> SubscriptionView:
    """Verify Checkout's answer from the browser, and fetch the subscription's state."""
    return await subscriptions.confirm_checkout(context, body)


@own.post("/cancel")
async def cancel_subscription(body: Ending, context: OwnContext) -> SubscriptionView:
    """Cancel the subscription to authorise, if there is one, else the live one."""
    return await subscriptions.cancel(context, at_period_end=body.when == "period_end")


@own.delete("/cancel")
async def keep_subscription(context: OwnContext) -> SubscriptionView:
    """Take back a cancel at the period's end, until two days before that end."""
    return await subscriptions.keep(context)


@own.post("/pause")
async def pause_subscription(context: OwnContext) -> SubscriptionView:
    """Pause: no further charges until it is resumed; the paid time is served."""
    return await subscriptions.pause(context)


@own.post("/resume")
async def resume_subscription(context: OwnContext) -> SubscriptionView:
    """Resume a paused subscription: charges continue."""
    return await subscriptions.pause(context, resume=True)
