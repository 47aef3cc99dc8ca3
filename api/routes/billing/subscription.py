"""The tenant's subscription: begin, change, cancel, keep, pause, resume; and what Checkout brought to the browser."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, StringConstraints

from api.auth.access import RuntimeDep, TenantAdmin, actor_of
from api.routes.subscription_items import SubscriptionItem
from api.schemas.fields import Body, PlanNumber, Slug, example
from billing.context import BillingContext
from billing.models import Subscription
from billing.razorpay.errors import RazorpayError
from billing.subscriptions import intents as desk_of
from billing.subscriptions.checkout import authorised
from billing.subscriptions.intents import live_of, subscriptions_of
from billing.subscriptions.push import drive_one, others_call
from core.errors import Invalid
from core.logs import get_logger

router = APIRouter(prefix="/subscription")
log = get_logger(__name__)

_OTHERS_S = 10
"""So long a second click waits for the call of the first one."""

RazorpayId = Annotated[str, StringConstraints(pattern=r"^[a-z]+_[A-Za-z0-9]{1,40}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class NewSubscription(Body):
    """The plan to subscribe, or to change, to: its newest version, unless one is named."""

    model_config = example(plan="team")

    plan: Slug
    version: PlanNumber | None = None


class Ending(Body):
    """`period_end`: no further charge, and the paid time is served. `now`: the same; it cannot be taken back."""

    model_config = example(when="period_end")

    when: Literal["now", "period_end"] = "period_end"


class CheckoutAnswer(Body):
    """What Checkout's handler was given."""

    model_config = example(
        razorpay_payment_id="pay_TmA4kQ8sLw2ZxR",
        razorpay_subscription_id="sub_TmA1c9RkVe7HbN",
        razorpay_signature="1003f16477202eec3051113f62bfcc303de8199898434e2645001b60ef2b60ac",
    )

    razorpay_payment_id: RazorpayId
    razorpay_subscription_id: RazorpayId
    razorpay_signature: Signature


class SubscriptionView(BaseModel):
    """`current` is what the tenant has, `waiting` what it is to authorise; either may be none."""

    current: SubscriptionItem | None
    waiting: SubscriptionItem | None


@router.get("")
async def my_subscription(principal: TenantAdmin, runtime: RuntimeDep) -> SubscriptionView:
    """What the tenant has, and what waits to be authorised."""
    return await _view(runtime.billing, principal.tenant_id)


@router.post("", status_code=201)
async def new_subscription(
    body: NewSubscription, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> SubscriptionView:
    """Subscribe, or change the plan. Asked again, the answer is the same subscription, with its `pay_url`.

    A change starts where the paid time ends; what is had now ends then, once the new one is authorised.
    Without `pay_url` Razorpay's answer is awaited still: ask again in a minute.
    """
    billing = runtime.billing
    wanted = await desk_of.subscribe(
        billing, actor_of(request, principal), principal.tenant_id, body.plan, body.version
    )
    if wanted.subscription_id is not None:
        await _tell(billing, principal.tenant_id, wanted.subscription_id)
        async with billing.database.session(tenant_id=principal.tenant_id) as session:
            row = await session.get_one(Subscription, (principal.tenant_id, wanted.subscription_id))
        if row.state == "void":
            log.warning("subscription_refused", subscription=str(row.id), error=row.error)
            raise Invalid("Razorpay refuses this subscription: the operator of this service can see why")
    return await _view(billing, principal.tenant_id)


@router.post("/authorised")
async def checkout_done(body: CheckoutAnswer, principal: TenantAdmin, runtime: RuntimeDep) -> SubscriptionView:
    """What Checkout answered in the browser: verified, and the state fetched."""
    await authorised(
        runtime.billing,
        principal.tenant_id,
        body.razorpay_payment_id,
        body.razorpay_subscription_id,
        body.razorpay_signature,
    )
    return await _view(runtime.billing, principal.tenant_id)


@router.post("/cancel")
async def cancel_subscription(
    body: Ending, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> SubscriptionView:
    """End the subscription; the one that waits to be authorised, if there is one, else what the tenant has."""
    billing = runtime.billing
    row = await desk_of.cancel(
        billing,
        actor_of(request, principal),
        principal.tenant_id,
        at_period_end=body.when == "period_end",
        reason="the tenant's wish",
    )
    await _tell(billing, principal.tenant_id, row.id)
    return await _view(billing, principal.tenant_id)


@router.delete("/cancel")
async def keep_subscription(principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> SubscriptionView:
    """Take a cancel at the period's end back, as long as Razorpay was not told (two days before that end)."""
    await desk_of.keep(runtime.billing, actor_of(request, principal), principal.tenant_id)
    return await _view(runtime.billing, principal.tenant_id)


@router.post("/pause")
async def pause_subscription(principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> SubscriptionView:
    """Pause: no further charges until it is resumed; the paid time is served."""
    row = await desk_of.pause(runtime.billing, actor_of(request, principal), principal.tenant_id)
    await _tell(runtime.billing, principal.tenant_id, row.id)
    return await _view(runtime.billing, principal.tenant_id)


@router.post("/resume")
async def resume_subscription(principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> SubscriptionView:
    """Resume a paused subscription: charges go on."""
    row = await desk_of.pause(runtime.billing, actor_of(request, principal), principal.tenant_id, resume=True)
    await _tell(runtime.billing, principal.tenant_id, row.id)
    return await _view(runtime.billing, principal.tenant_id)


async def _tell(billing: BillingContext, tenant_id: UUID, subscription_id: UUID) -> None:
    """Tells Razorpay at once, so that the answer has the link; the worker does it again where that fails."""
    try:
        await drive_one(billing, tenant_id, subscription_id)
        await others_call(billing, tenant_id, subscription_id, patience_s=_OTHERS_S)
    except RazorpayError as error:
        log.warning("razorpay_later", subscription=str(subscription_id), error=str(error))


async def _view(billing: BillingContext, tenant_id: UUID) -> SubscriptionView:
    async with billing.database.session(tenant_id=tenant_id) as session:
        rows = await subscriptions_of(session, tenant_id)
    current = live_of(rows)
    waiting = next((row for row in rows if row.is_open), None)
    key_id = billing.settings.razorpay_key_id
    return SubscriptionView(
        current=None if current is None else SubscriptionItem.of(current, key_id),
        waiting=None if waiting is None else SubscriptionItem.of(waiting, key_id),
    )
