"""What a tenant wants of its subscription: begin, change, cancel, take back a cancel, pause, resume.

Everything here stores what is wanted, under the tenant's lock; `billing.subscriptions.push` tells Razorpay, at once
and again
by the worker until it is known to be done. A tenant has one subscription that waits to be authorised at the most: who
asks twice gets the first one. Razorpay away: what is wanted is stored all the same.
"""

from dataclasses import dataclass
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.catalogue.plans import find_plan
from billing.catalogue.profiles import supply_for, supply_to_json
from billing.context import DAY_MS, SUBSCRIPTIONS, BillingContext, enqueue_after_commit
from billing.gst.tax import gross_of
from billing.models import BillingPeriod, Plan, Subscription
from billing.rating.terms import terms_of
from core.clock import now_ms
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor, record

TERMINAL = frozenset({"cancelled", "completed", "expired"})
NOTICE_MS = 2 * DAY_MS
"""Pre-debit notices go out 36 hours before a charge (facts 4): what is to end is cancelled before that."""
_SOON_MS = 20 * 60_000
"""A start nearer than this is now: Razorpay wants a future one, and its clock is its own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What became of a wish. `subscription_id` None: it was done at once, nothing is to be authorised."""

    subscription_id: UUID | None
    is_new: bool


async def subscribe(
    context: BillingContext, actor: Actor, tenant_id: UUID, code: str, version: int | None = None
) -> Wanted:
    """A subscription to this plan, or a change to it. Raises NotFound, Invalid, Conflict."""
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        plan = await find_plan(session, code, version)
        if not plan.base_paise:
            raise Invalid("this plan has no base price: there is nothing to subscribe to")
        rows = await subscriptions_of(session, tenant_id)
        waiting = next((row for row in rows if row.is_open), None)
        if waiting is not None:
            if (waiting.plan_code, waiting.plan_version) == (plan.code, plan.version):
                return Wanted(waiting.id, is_new=False)
            raise Conflict("another subscription waits to be authorised: cancel that one first")
        live = live_of(rows)
        if live is not None and await _switch_at_once(session, context, live, plan, at_ms):
            record(
                session,
                actor,
                "subscription.switch",
                tenant_id=tenant_id,
                target=f"subscription:{live.id}",
                after={"plan": f"{plan.code}@{plan.version}"},
            )
            return Wanted(None, is_new=True)
        row = await _intend(session, context, tenant_id, plan, rows, at_ms)
        record(
            session,
            actor,
            "subscription.intend",
            tenant_id=tenant_id,
            target=f"subscription:{row.id}",
            after={"plan": f"{plan.code}@{plan.version}", "replaces": row.replaces and str(row.replaces)},
        )  # who asked makes the call, and needs its link; a worker woken now would only race it: its next tick will do
    return Wanted(row.id, is_new=True)


async def cancel(
    context: BillingContext, actor: Actor, tenant_id: UUID, *, at_period_end: bool, reason: str
) -> Subscription:
    """Ends what the tenant has: the one that waits to be authorised, or else the live one.

    The paid month is served to its end either way. Raises NotFound, Conflict.
    """
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        rows = await subscriptions_of(session, tenant_id)
        row = next((row for row in rows if row.is_open), None) or live_of(rows)
        if row is None:
            raise NotFound("there is no subscription")
        if row.cancel_state == "done":
            raise Conflict("it is cancelled already")
        ends_ms = row.current_end_ms or row.start_ms
        later = at_period_end and not row.is_open and ends_ms is not None and ends_ms > at_ms
        end_at(row, ends_ms if later and ends_ms is not None else at_ms, reason)
        record(
            session,
            actor,
            "subscription.cancel",
            tenant_id=tenant_id,
            target=f"subscription:{row.id}",
            after={"at_period_end": later, "reason": reason},
        )
        await project(session, context.zone, tenant_id, at_ms)
        enqueue_after_commit(session, SUBSCRIPTIONS)
    return row


async def keep(context: BillingContext, actor: Actor, tenant_id: UUID) -> Subscription:
    """Takes a cancel at the period's end back, while Razorpay was not told. Raises NotFound, Conflict."""
    async with context.tenant_transaction(tenant_id) as session:
        row = live_of(await subscriptions_of(session, tenant_id))
        if row is None or row.cancel_at_ms is None:
            raise NotFound("no subscription is about to end")
        if row.cancel_state != "intended":
            raise Conflict("it is cancelled at Razorpay already, which cannot be taken back: subscribe again")
        row.cancel_at_ms = row.cancel_state = row.cancel_reason = None
        record(session, actor, "subscription.keep", tenant_id=tenant_id, target=f"subscription:{row.id}")
        await project(session, context.zone, tenant_id, now_ms())
    return row


async def pause(context: BillingContext, actor: Actor, tenant_id: UUID, *, resume: bool = False) -> Subscription:
    """Pauses an active subscription, or resumes a paused one. Raises NotFound, Conflict."""
    wanted, needed = ("resume", "paused") if resume else ("pause", "active")
    async with context.tenant_transaction(tenant_id) as session:
        row = live_of(await subscriptions_of(session, tenant_id))
        if row is None:
            raise NotFound("there is no subscription")
        if row.status != needed or row.cancel_at_ms is not None:
            raise Conflict(f"only one that is {needed}, and not about to end, can {wanted}")
        row.wanted = wanted
        record(session, actor, f"subscription.{wanted}", tenant_id=tenant_id, target=f"subscription:{row.id}")
        enqueue_after_commit(session, SUBSCRIPTIONS)
    return row


def end_at(row: Subscription, at_ms: int, reason: str) -> None:
    """It serves until then at the longest, and is cancelled at Razorpay in time (`billing.subscriptions.push`)."""
    row.cancel_at_ms, row.cancel_state, row.cancel_reason = at_ms, "intended", reason


async def end_replaced(session: AsyncSession, row: Subscription, at_ms: int) -> None:
    """Once a subscription is authorised, the one that it replaces ends with its cycle; if it is paid no more, now."""
    if row.replaces is None or row.authorised_ms is None:
        return
    old = await session.get(Subscription, (row.tenant_id, row.replaces))
    if old is not None and old.status not in TERMINAL and old.cancel_state is None:
        starts_ms = row.wanted_start_ms or at_ms
        end_at(old, max(at_ms, min(old.current_end_ms or old.start_ms or at_ms, starts_ms)), "replaced")
        enqueue_after_commit(session, SUBSCRIPTIONS)


async def subscriptions_of(session: AsyncSession, tenant_id: UUID) -> list[Subscription]:
    """All of them, newest first."""
    query = select(Subscription).where(Subscription.tenant_id == tenant_id).order_by(Subscription.id.desc())
    return list(await session.scalars(query))


def live_of(rows: list[Subscription]) -> Subscription | None:
    """The newest that was authorised and has not ended at Razorpay."""
    alive = (row for row in rows if row.authorised_ms is not None and row.status not in TERMINAL)
    return next((row for row in alive if row.state == "submitted"), None)


def in_last_cycle(row: Subscription) -> bool:
    """No further charge comes: a renewal is to be offered."""
    return row.remaining_count == 0 or row.status == "completed"


async def _intend(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, plan: Plan, rows: list[Subscription], at_ms: int
) -> Subscription:
    supply = await supply_for(session, tenant_id)
    live = live_of(rows)
    goes_on = live is not None and live.cancel_at_ms is None and not in_last_cycle(live)
    if live is not None and goes_on and (live.plan_code, live.plan_version) == (plan.code, plan.version):
        raise Conflict("the tenant is subscribed to this already")
    starts_ms = _start_of(rows, live, plan, at_ms)
    row = Subscription(
        tenant_id=tenant_id,
        id=uuid7(),
        state="intended",
        is_open=True,
        plan_code=plan.code,
        plan_version=plan.version,
        supply=supply_to_json(supply),
        gross_paise=gross_of(plan.base_paise, supply),
        replaces=None if live is None else live.id,
        total_count=context.rules.cycles,
        wanted_start_ms=starts_ms,
        expire_by_ms=starts_ms if live is not None and starts_ms is not None else at_ms + 7 * DAY_MS,
        created_ms=at_ms,
    )
    session.add(row)
    await session.flush()
    return row


def _start_of(rows: list[Subscription], live: Subscription | None, plan: Plan, at_ms: int) -> int | None:
    """When its first cycle begins: where what is paid for ends, after a trial, or (None) when it is authorised.

    What is served to the end of its month is not paid for twice, even after a cancel; a tenant has one trial.
    """
    paid_ms = max((row.paid_through_ms or 0 for row in rows), default=0)
    if live is not None and live.status == "authenticated":
        paid_ms = max(paid_ms, live.start_ms or 0)
    if paid_ms > at_ms + _SOON_MS:
        return paid_ms
    if plan.trial_days and not any(row.authorised_ms for row in rows):
        return at_ms + plan.trial_days * DAY_MS
    return None


async def _switch_at_once(
    session: AsyncSession, context: BillingContext, live: Subscription, plan: Plan, at_ms: int
) -> bool:
    """Another plan at the same price needs no new mandate. Whether that was it.

    From `block` to `bill` at another price: the rest of this period is billed by the new plan's rates already, past
    the allowance that it began with.
    """
    old = await find_plan(session, live.plan_code, live.plan_version)
    same_price = old.base_paise == plan.base_paise and (old.code, old.version) != (plan.code, plan.version)
    unblocks = old.past_allowance == "block" and plan.past_allowance == "bill"
    if same_price and live.cancel_at_ms is None and not in_last_cycle(live):
        live.plan_code, live.plan_version = plan.code, plan.version
    elif not unblocks:
        return False
    for period in await session.scalars(
        select(BillingPeriod).where(
            BillingPeriod.tenant_id == live.tenant_id,
            BillingPeriod.subscription_id == live.id,
            BillingPeriod.kind == "cycle",
            BillingPeriod.ends_ms > at_ms,
        )
    ):
        if same_price:
            period.plan_code, period.plan_version = plan.code, plan.version
        period.terms = _present_terms(period, plan, keep_allowance=not same_price)
    await session.flush()
    await project(session, context.zone, live.tenant_id, at_ms)
    return same_price


def _present_terms(period: BillingPeriod, plan: Plan, *, keep_allowance: bool) -> dict[str, object]:
    """The new plan's terms; with the allowance that the period began with, if its price is still the old one."""
    terms: dict[str, object] = msgspec.to_builtins(terms_of(plan))
    if keep_allowance:
        before = {meter["meter"]: meter["allowance"] for meter in period.terms["meters"]}
        terms["meters"] = [
            {**meter, "allowance": before.get(meter["meter"], 0)}
            for meter in msgspec.to_builtins(terms_of(plan).meters)
        ]
    return terms
