"""The plan: what one has, what is on offer, and to subscribe, change, cancel, keep, pause and resume.

Paying happens at Razorpay, on its own page in another tab, since a form of ours may send nobody to another host; this
page looks by itself whether it is done. Where Razorpay is the real one its Checkout may open here instead.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.account import wording
from api.pages.account.frame import NOTHING_TYPED, REFUSALS, FormDep, Said, Typed, above, own, parsed, show
from api.pages.account.overview import facts_of
from api.pages.account.standing import Facts, state_of
from api.pages.route import page_router
from api.pages.site import Here, see_other
from api.pages.visitor import AccountAdmin, Visitor
from api.routes.billing import subscription as routes
from api.routes.billing.profile import Offer, offers
from api.routes.subscription_items import SubscriptionItem
from api.runtime import Runtime
from billing.catalogue.profiles import find_profile
from billing.models import Plan, Subscription
from billing.subscriptions.intents import in_last_cycle
from core.clock import to_iso

router = page_router("/account/plan")
_HERE = "/account/plan"
_RAZORPAY = "razorpay.com"
_SAID = {
    "chosen": "One step is left: authorise the subscription at Razorpay.",
    "switched": "The plan has been changed. It holds from now on.",
    "cancelled": "It is cancelled. What is paid for is served to its end.",
    "let-go": "The subscription that waited has been let go.",
    "kept": "The subscription goes on.",
    "paused": "It will be paused: nothing more is charged.",
    "resumed": "It goes on, and so do the charges.",
    "profile": "The billing profile is saved. Now choose a plan.",
    "active": "Thank you. The subscription is authorised.",
}


@dataclass(frozen=True, slots=True)
class CurrentPlan:
    """The subscription that runs, and what may be done with it."""

    item: SubscriptionItem
    may_cancel: bool
    may_keep: bool
    may_pause: bool
    may_resume: bool
    pending: str | None
    last_ms: int | None
    """The last moment of its present month."""

    @classmethod
    def of(cls, row: Subscription, key_id: str) -> "CurrentPlan":
        """As the operations of `billing.subscriptions.intents` would allow it."""
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
async def plan_page(request: Request, runtime: RuntimeDep, visitor: AccountAdmin, said: Said = "") -> Response:
    """The plan and the plans."""
    return await _page(request, runtime, visitor, said=said)


@router.post("/subscribe")
async def subscribe(request: Request, runtime: RuntimeDep, visitor: AccountAdmin, form: FormDep) -> Response:
    """Subscribes, or changes the plan. Without a billing profile it asks for that first, and comes back."""
    async with runtime.database.session(tenant_id=visitor.principal.tenant_id) as session:
        if await find_profile(session, visitor.principal.tenant_id) is None:
            return see_other("/account/profile?next=plan")
    try:
        body = parsed(routes.NewSubscription, {"plan": form.text("plan")}, {"plan": "Choose one of the plans."})
        view = await routes.new_subscription(body, own(visitor), runtime, request)
    except REFUSALS as error:
        return await _again(request, runtime, visitor, error)
    return see_other(f"{_HERE}?said={'chosen' if view.waiting is not None else 'switched'}")


@router.post("/cancel")
async def cancel(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """Ends it with its period; what waits to be authorised is let go at once."""

    async def end() -> str:
        before = await routes.my_subscription(own(visitor), runtime)
        await routes.cancel_subscription(routes.Ending(when="period_end"), own(visitor), runtime, request)
        return "cancelled" if before.waiting is None else "let-go"

    return await _do(request, runtime, visitor, end)


@router.post("/keep")
async def keep(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """Takes a cancel back."""

    async def go_on() -> str:
        await routes.keep_subscription(own(visitor), runtime, request)
        return "kept"

    return await _do(request, runtime, visitor, go_on)


@router.post("/pause")
async def pause(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """No further charges."""

    async def stop() -> str:
        await routes.pause_subscription(own(visitor), runtime, request)
        return "paused"

    return await _do(request, runtime, visitor, stop)


@router.post("/resume")
async def resume(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """Charges go on."""

    async def go_on() -> str:
        await routes.resume_subscription(own(visitor), runtime, request)
        return "resumed"

    return await _do(request, runtime, visitor, go_on)


async def _do(
    request: Request, runtime: Runtime, visitor: Visitor, work: Callable[[], Coroutine[Any, Any, str]]
) -> Response:
    try:
        done = await work()
    except REFUSALS as error:
        return await _again(request, runtime, visitor, error)
    return see_other(f"{_HERE}?said={done}")


async def _again(request: Request, runtime: Runtime, visitor: Visitor, error: Any) -> Response:
    typed, status = above(error)
    return await _page(request, runtime, visitor, typed=typed, status=status)


async def _page(
    request: Request,
    runtime: Runtime,
    visitor: Visitor,
    *,
    said: str = "",
    typed: Typed = NOTHING_TYPED,
    status: int = 200,
) -> Response:
    tenant_id, key_id = visitor.principal.tenant_id, runtime.settings.razorpay_key_id
    async with runtime.database.session(tenant_id=tenant_id) as session:
        facts = await facts_of(runtime, session, tenant_id)
        profile = await find_profile(session, tenant_id)
        waiting_plan = None
        if facts.waiting is not None:
            waiting_plan = await session.get_one(Plan, (facts.waiting.plan_code, facts.waiting.plan_version))
    is_real = _is_razorpay(runtime.settings.razorpay_base_url)
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
        state=state_of(facts, Here(runtime.billing.zone)),
        plan=facts.plan,
        present=None if live is None else CurrentPlan.of(live, key_id),
        waiting=None if facts.waiting is None else SubscriptionItem.of(facts.waiting, key_id),
        waiting_plan=waiting_plan,
        has_profile=profile is not None,
        offers=[_shown(offer, live if goes_on else None) for offer in await offers(own(visitor), runtime)],
        starts_at=None if live is None else _paid_until(live),
        wording=wording,
    )


def _said(code: str, facts: Facts) -> str:
    """What was done; a link from elsewhere cannot make this page claim what is not so."""
    if (code == "chosen" and facts.waiting is None) or (code == "active" and facts.live is None):
        return ""
    return _SAID.get(code, "")


def _shown(offer: Offer, live: Subscription | None) -> tuple[Offer, bool]:
    """An offer, and whether it is what one has."""
    return offer, live is not None and (live.plan_code, live.plan_version) == (offer.code, offer.version)


def _paid_until(row: Subscription) -> str | None:
    paid_ms = row.paid_through_ms or row.start_ms
    return None if paid_ms is None else to_iso(paid_ms)


def _is_razorpay(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == _RAZORPAY or host.endswith(f".{_RAZORPAY}")
