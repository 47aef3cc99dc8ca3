"""A tenant's intents for its subscription: subscribe, change plan, cancel, keep, pause, resume.

Each is stored under the tenant's lock, whether or not Razorpay is up; `billing.subscriptions.push` sends it. A tenant
has at most one subscription that awaits authorisation, and asking twice returns the first.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.catalogue.plans import find_plan, require_offered
from billing.catalogue.profiles import supply_for, supply_to_json
from billing.context import SUBSCRIPTIONS, BillingContext, enqueue_after_commit
from billing.gst.tax import gross_of
from billing.models import Plan, Subscription
from billing.models.catalogue import plan_version
from billing.models.states import TERMINAL, CancelState, SubscriptionState, SubscriptionStatus
from core.clock import DAY_MS, now_ms
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7
from core.tenancy.audit import Actor, record

NOTICE_MS = 2 * DAY_MS
"""A subscription that is to end is cancelled before the pre-debit notice, 36 hours before a charge (its FAQ)."""
_SOON_MS = 20 * 60_000
"""A start nearer than this means now: Razorpay requires a future one, by its own clock."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The outcome. `subscription_id` None: the plan was switched at once, with nothing to authorise."""

    subscription_id: UUID | None
    is_new: bool


async def subscribe(
    context: BillingContext, actor: Actor, tenant_id: UUID, code: str, version: int | None = None
) -> Subscribed:
    """Stores a subscription to this plan, or a change to it. Raises NotFound, Invalid, Conflict, PlanNotOffered."""
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        plan = await find_plan(session, code, version)
        if not plan.base_paise:
            raise Invalid("this plan has no base price, so it can't be subscribed to")
        rows = await subscriptions_of(session, tenant_id)
        waiting = waiting_of(rows)
        if waiting is not None:
            if (waiting.plan_code, waiting.plan_version) == (plan.code, plan.version):
                return Subscribed(waiting.id, is_new=False)
            raise Conflict("another subscription awaits authorisation; cancel it first")
        require_offered(plan, _kept(rows, at_ms))
        live = live_of(rows)
        if live is not None and await _switch_at_once(session, context, live, plan, at_ms):
            _audit(session, actor, "switch", live, {"plan": plan_version(plan)})
            return Subscribed(None, is_new=True)
        row = await _intend(session, context, tenant_id, plan, rows, at_ms)
        after = {"plan": plan_version(plan), "replaces": row.replaces and str(row.replaces)}
        _audit(session, actor, "intend", row, after)
        # The caller pushes it now, since it needs the link. A worker woken here would race that call.
    return Subscribed(row.id, is_new=True)


async def cancel_subscription(
    context: BillingContext, actor: Actor, tenant_id: UUID, *, at_period_end: bool, reason: str
) -> Subscription:
    """Cancels the subscription that awaits authorisation, or else the live one.

    The paid month is served to its end either way. Raises NotFound, Conflict.
    """
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        rows = await subscriptions_of(session, tenant_id)
        row = waiting_of(rows) or live_of(rows)
        if row is None:
            raise NotFound("there is no subscription")
        if row.cancel_state == CancelState.DONE:
            raise Conflict("the subscription is already cancelled")
        ends_ms = row.current_end_ms or row.start_ms
        later = at_period_end and not row.is_open and ends_ms is not None and ends_ms > at_ms
        end_at(row, ends_ms if later and ends_ms is not None else at_ms, reason)
        _audit(session, actor, "cancel", row, {"at_period_end": later, "reason": reason})
        await project(session, context.zone, tenant_id, at_ms)
        enqueue_after_commit(session, SUBSCRIPTIONS)
    return row


async def keep_subscription(context: BillingContext, actor: Actor, tenant_id: UUID) -> Subscription:
    """Reverts a cancel at the period's end, unless Razorpay was told already. Raises NotFound, Conflict."""
    async with context.tenant_transaction(tenant_id) as session:
        row = live_of(await subscriptions_of(session, tenant_id))
        if row is None or row.cancel_at_ms is None:
            raise NotFound("no subscription is about to end")
        if row.cancel_state != CancelState.INTENDED:
            raise Conflict("the subscription is already cancelled at Razorpay; subscribe again")
        row.cancel_at_ms = row.cancel_state = row.cancel_reason = None
        _audit(session, actor, "keep", row)
        await project(session, context.zone, tenant_id, now_ms())
    return row


async def pause_subscription(
    context: BillingContext, actor: Actor, tenant_id: UUID, *, resume: bool = False
) -> Subscription:
    """Pauses an active subscription, or resumes a paused one. Raises NotFound, Conflict."""
    wanted, needed = ("resume", "paused") if resume else ("pause", "active")
    async with context.tenant_transaction(tenant_id) as session:
        row = live_of(await subscriptions_of(session, tenant_id))
        if row is None:
            raise NotFound("there is no subscription")
        if row.status != needed or row.cancel_at_ms is not None:
            raise Conflict(f"only a subscription that is {needed} and not about to end can {wanted}")
        row.wanted = wanted
        _audit(session, actor, wanted, row)
        enqueue_after_commit(session, SUBSCRIPTIONS)
    return row


def end_at(row: Subscription, at_ms: int, reason: str) -> None:
    """Ends service at `at_ms` at the latest; `billing.subscriptions.push` cancels before the next charge."""
    row.cancel_at_ms, row.cancel_state, row.cancel_reason = at_ms, CancelState.INTENDED, reason


def _audit(
    session: AsyncSession, actor: Actor, action: str, row: Subscription, after: dict[str, Any] | None = None
) -> None:
    target = f"subscription:{row.id}"
    record(session, actor, f"subscription.{action}", tenant_id=row.tenant_id, target=target, after=after)


async def end_replaced(session: AsyncSession, row: Subscription, at_ms: int) -> None:
    """Ends the subscription that an authorised one replaces: with its cycle, or now if it isn't paid any more."""
    if row.replaces is None or row.authorised_ms is None:
        return
    old = await session.get(Subscription, (row.tenant_id, row.replaces))
    if old is not None and old.status not in TERMINAL and old.cancel_state is None:
        starts_ms = row.wanted_start_ms or at_ms
        end_at(old, max(at_ms, min(old.current_end_ms or old.start_ms or at_ms, starts_ms)), "replaced")
        enqueue_after_commit(session, SUBSCRIPTIONS)


async def subscriptions_of(session: AsyncSession, tenant_id: UUID) -> list[Subscription]:
    """A tenant's subscriptions, newest first."""
    query = select(Subscription).where(Subscription.tenant_id == tenant_id).order_by(Subscription.id.desc())
    return list(await session.scalars(query))


def live_of(rows: list[Subscription]) -> Subscription | None:
    """The newest subscription that was authorised and has not ended at Razorpay."""
    alive = (row for row in rows if row.authorised_ms is not None and row.status not in TERMINAL)
    return next((row for row in alive if row.state == SubscriptionState.SUBMITTED), None)


def waiting_of(rows: list[Subscription]) -> Subscription | None:
    """The subscription that awaits authorisation."""
    return next((row for row in rows if row.is_open), None)


def _kept(rows: list[Subscription], at_ms: int) -> set[tuple[str, int]]:
    """The versions that the tenant has and may renew: of the live subscription, and of time that is still paid for."""
    live = live_of(rows)
    paid = (row for row in rows if row.authorised_ms is not None and (row.paid_through_ms or 0) > at_ms)
    return {(row.plan_code, row.plan_version) for row in (*paid, *(() if live is None else (live,)))}


def in_last_cycle(row: Subscription) -> bool:
    """Whether no further charge comes, so a renewal should be offered."""
    return row.remaining_count == 0 or row.status == SubscriptionStatus.COMPLETED


async def _intend(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, plan: Plan, rows: list[Subscription], at_ms: int
) -> Subscription:
    supply = await supply_for(session, tenant_id)
    live = live_of(rows)
    goes_on = live is not None and live.cancel_at_ms is None and not in_last_cycle(live)
    if live is not None and goes_on and (live.plan_code, live.plan_version) == (plan.code, plan.version):
        raise Conflict("the tenant is already subscribed to this plan")
    starts_ms = _start_of(rows, live, plan, at_ms)
    row = Subscription(
        tenant_id=tenant_id,
        id=uuid7(),
        state=SubscriptionState.INTENDED,
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
    """Start of the first cycle: the end of the paid time, the end of a trial, or (None) the authorisation.

    Paid time is not paid for twice, even after a cancel. A tenant has one trial.
    """
    paid_ms = max((row.paid_through_ms or 0 for row in rows), default=0)
    if live is not None and live.status == SubscriptionStatus.AUTHENTICATED:
        paid_ms = max(paid_ms, live.start_ms or 0)
    if paid_ms > at_ms + _SOON_MS:
        return paid_ms
    if plan.trial_days and not any(row.authorised_ms for row in rows):
        return at_ms + plan.trial_days * DAY_MS
    return None


async def _switch_at_once(
    session: AsyncSession, context: BillingContext, live: Subscription, plan: Plan, at_ms: int
) -> bool:
    """Switches to a plan of the same price at once, without a new mandate; False if a new subscription is needed.

    What was used before is billed by the plan that it was used under: the running period is cut.
    """
    old = await find_plan(session, live.plan_code, live.plan_version)
    same_price = old.base_paise == plan.base_paise and (old.code, old.version) != (plan.code, plan.version)
    if not same_price or live.cancel_at_ms is not None or in_last_cycle(live):
        return False
    live.plan_code, live.plan_version = plan.code, plan.version
    await session.flush()
    await project(session, context.zone, live.tenant_id, at_ms)
    return True
