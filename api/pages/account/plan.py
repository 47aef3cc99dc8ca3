"""The plan: the current one, those on offer, and subscribing, changing, cancelling, pausing.

Paying happens on Razorpay's page in another tab, because the form-action policy allows no form to leave this host; this
page polls for the result. With the real Razorpay its Checkout can open here instead.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import Response

from api.pages.account.frame import (
    FormDep,
    Said,
    parsed,
    perform,
    show,
    state_of,
    taken,
)
from api.pages.route import page_router
from api.pages.site import see_other
from api.pages.visitor import AccountAdmin
from api.schemas.billing.plans import Offer
from api.schemas.billing.subscriptions import NewSubscription, SubscriptionItem
from api.schemas.moments import iso_or_none
from api.services.billing import subscriptions
from api.services.billing.account import Facts, find_plan_choice
from api.services.billing.mandates import find_mandate
from api.services.billing.profiles import has_profile
from api.services.billing.standing import find_fee_page
from billing.models import Subscription
from billing.subscriptions.intents import in_last_cycle

router = page_router("/account/plan")
_HERE = "/account/plan"
_RAZORPAY = "razorpay.com"
_SAID = {
    "chosen": "One step left: authorise the subscription at Razorpay.",
    "switched": "The plan has been changed.",
    "cancelled": "The subscription is cancelled. It stays active until the paid period ends.",
    "let-go": "The request has been cancelled.",
    "kept": "The subscription continues.",
    "paused": "The subscription will be paused: no further charges.",
    "resumed": "The subscription has been resumed, and so have the charges.",
    "profile": "The billing profile is saved. Now choose a plan.",
    "active": "Thank you. The subscription is authorised.",
    "unmandated": "The mandate is cancelled.",
}


@dataclass(frozen=True, slots=True)
class CurrentPlan:
    """The live subscription, and the changes that `billing.subscriptions.intents` would allow."""

    item: SubscriptionItem
    may_cancel: bool
    may_keep: bool
    may_pause: bool
    may_resume: bool
    pending: str | None
    last_ms: int | None
    """The last moment of its current month."""

    @classmethod
    def of(cls, row: Subscription, key_id: str) -> "CurrentPlan":
        """The shape of a row."""
        ends, waits = row.cancel_at_ms is not None, row.wanted is not None
        return cls(
            item=SubscriptionItem.of(row, key_id),
            may_cancel=not ends,
            may_keep=row.cancel_state == "intended",
            may_pause=row.status == "active" and not ends and not waits,
            may_resume=row.status == "paused" and not ends and not waits,
            pending=row.wanted,
            last_ms=None if row.current_end_ms is None else row.current_end_ms - 1,
        )


@router.get("")
async def plan_page(request: Request, visitor: AccountAdmin, said: Said = "") -> Response:
    """The current plan and the offers."""
    typed, status, _ = taken(request)
    context = visitor.account_context
    key_id = context.settings.razorpay_key_id
    choice = await find_plan_choice(context)
    facts = choice.facts
    is_real = _is_razorpay(context.settings.razorpay_base_url)
    live = facts.live
    goes_on = live is not None and live.cancel_at_ms is None and not in_last_cycle(live)
    return show(
        request,
        "plan",
        visitor,
        status=status,
        said=_said(said, facts),
        typed=typed,
        checkout=is_real and facts.waiting is not None,
        is_real=is_real,
        state=state_of(visitor),
        plan=facts.plan,
        present=None if live is None else CurrentPlan.of(live, key_id),
        waiting=None if facts.waiting is None else SubscriptionItem.of(facts.waiting, key_id),
        waiting_plan=choice.waiting_plan,
        has_profile=choice.has_profile,
        mandate=await find_mandate(context),
        offers=[_shown(offer, live if goes_on else None) for offer in choice.offers],
        starts_at=None if live is None else iso_or_none(live.paid_through_ms or live.start_ms),
    )


@router.post("/subscribe")
async def subscribe(request: Request, visitor: AccountAdmin, form: FormDep) -> Response:
    """Subscribes, or changes the plan. Without a billing profile it asks for that first, and returns here."""
    context = visitor.account_context
    if not await has_profile(context):
        return see_other("/account/profile?next=plan")

    async def begin() -> str:
        version = form.text("version")
        wish = {"plan": form.text("plan"), "version": int(version) if version.isdecimal() else None}
        choose = "Choose one of the plans."
        body = parsed(NewSubscription, wish, {"plan": choose, "version": choose})
        view = await subscriptions.subscribe(context, body)
        return "chosen" if view.waiting is not None else "switched"

    return await perform(request, _HERE, begin)


@router.post("/cancel")
async def cancel(request: Request, visitor: AccountAdmin) -> Response:
    """Cancels at the period's end; a subscription still to be authorised is cancelled at once."""
    context = visitor.account_context

    async def end() -> str:
        before = await subscriptions.find_subscription(context)
        await subscriptions.cancel(context, at_period_end=True)
        return "cancelled" if before.waiting is None else "let-go"

    return await perform(request, _HERE, end)


@router.post("/keep")
async def keep(request: Request, visitor: AccountAdmin) -> Response:
    """Takes a cancel back."""
    return await perform(request, _HERE, lambda: subscriptions.keep(visitor.account_context), "kept")


@router.post("/pause")
async def pause(request: Request, visitor: AccountAdmin) -> Response:
    """Stops further charges."""
    return await perform(request, _HERE, lambda: subscriptions.pause(visitor.account_context), "paused")


@router.post("/resume")
async def resume(request: Request, visitor: AccountAdmin) -> Response:
    """Resumes charges."""
    context = visitor.account_context
    return await perform(request, _HERE, lambda: subscriptions.pause(context, resume=True), "resumed")


@router.get("/pay")
async def pay_fee(visitor: AccountAdmin) -> Response:
    """Leads to Razorpay's page of the unpaid fee. Opened by a link in a tab of its own."""
    return see_other(await find_fee_page(visitor.account_context) or _HERE)


def _said(code: str, facts: Facts) -> str:
    """The notice of a code, if it is true: a link from elsewhere can't make this page claim otherwise."""
    if (code == "chosen" and facts.waiting is None) or (code == "active" and facts.live is None):
        return ""
    return _SAID.get(code, "")


def _shown(offer: Offer, live: Subscription | None) -> tuple[Offer, bool]:
    """An offer, and whether it is the current plan."""
    return offer, live is not None and (live.plan_code, live.plan_version) == (offer.code, offer.version)


def _is_razorpay(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == _RAZORPAY or host.endswith(f".{_RAZORPAY}")
