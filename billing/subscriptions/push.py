"""Pushing subscription intents to Razorpay: create, cancel, pause, resume. Every step is stored before its call.

Only our notes make a subscription unique at Razorpay. After a lost answer it is searched by its notes, as long as the
list may lag, and only then created again; a first one that turns up later is an extra. The duty also keeps our own
clock: it cancels a subscription that is to end before its next charge is announced, a halted one before its next cycle,
and fetches one that should have changed. Razorpay down: the intent waits for the next run.
"""

import asyncio
import time
from functools import partial
from uuid import UUID

from sqlalchemy import Select, and_, or_, select

from billing.access.projection import project
from billing.catalogue.profiles import supply_from_json
from billing.catalogue.razorpay_plans import ensure_razorpay_plan
from billing.context import BillingContext
from billing.findings import record_finding
from billing.models import Subscription
from billing.models.states import TERMINAL, UNANSWERED, CancelState, SubscriptionState, SubscriptionStatus
from billing.razorpay.errors import RazorpayRefused
from billing.subscriptions.intents import NOTICE_MS, end_at
from billing.subscriptions.orphans import adopt_subscription, cancel_extra
from billing.subscriptions.sync import refresh_subscription
from billing.writes import MAX_ERROR, advance_all, claim, release, submit
from core.clock import now_ms
from core.logs import get_logger

LIST_LAG_MS = 10 * 60_000
"""Razorpay's list may lag this long; a subscription missing from it after that doesn't exist."""
_LOOK_BACK_S = 3600
_CALL_MS = 30_000
"""No call to Razorpay takes longer (`billing.razorpay.transport.Patience`)."""
_POLL_S = 0.1
_LATE_MS = 5 * 60_000
"""Delay after a due charge until its outcome is fetched, in case the webhook is lost."""
_REFETCH_MS = 15 * 60_000
_CANCEL_PENDING = (CancelState.INTENDED, CancelState.SUBMITTING)

log = get_logger(__name__)


async def push_subscriptions(context: BillingContext) -> None:
    """The duty SUBSCRIPTIONS: makes every due step of every subscription. Raises Unavailable."""
    await advance_all(context, _due(now_ms()), push_subscription, Subscription)


async def push_subscription(context: BillingContext, tenant_id: UUID, subscription_id: UUID) -> None:
    """Makes every due step of one subscription. Raises RazorpayError, Unavailable, Invalid."""
    row = await context.read(Subscription, tenant_id, subscription_id)
    if row.state == SubscriptionState.SUBMITTING:
        await _find_created(context, row)
        row = await context.read(Subscription, tenant_id, subscription_id)
    if row.state == SubscriptionState.INTENDED:
        await _create(context, row)
        row = await context.read(Subscription, tenant_id, subscription_id)
    if row.state != SubscriptionState.SUBMITTED:
        return
    if _is_late(row, now_ms()):
        await refresh_subscription(context, tenant_id, subscription_id)
        row = await context.read(Subscription, tenant_id, subscription_id)
    is_halted = row.status == SubscriptionStatus.HALTED and row.cancel_state is None
    if is_halted and row.current_end_ms is not None and row.current_end_ms < now_ms() + NOTICE_MS:
        await _end_halted(context, row)
        row = await context.read(Subscription, tenant_id, subscription_id)
    if row.cancel_state in _CANCEL_PENDING and _cancel_is_due(row, now_ms()):
        await _cancel(context, row)
    elif row.wanted is not None:
        await _pause_or_resume(context, row)


async def wait_for_other_push(
    context: BillingContext, tenant_id: UUID, subscription_id: UUID, *, patience_s: float
) -> None:
    """Waits for another process's or request's call that is creating this subscription right now.

    Returns at once if no such call can be running any more; a lost answer is searched for by the duty.
    """
    deadline = time.monotonic() + patience_s
    row = await context.read(Subscription, tenant_id, subscription_id)
    while (
        row.state == SubscriptionState.SUBMITTING
        and now_ms() < (row.tried_ms or 0) + _CALL_MS
        and time.monotonic() < deadline
    ):
        await asyncio.sleep(_POLL_S)
        row = await context.read(Subscription, tenant_id, subscription_id)


def _due(at_ms: int) -> Select[UUID, UUID]:
    late = and_(
        Subscription.status.not_in(TERMINAL),
        or_(
            Subscription.charge_at_ms < at_ms - _LATE_MS,
            and_(Subscription.is_open, Subscription.expire_by_ms < at_ms - _LATE_MS),
        ),
        or_(Subscription.fetched_ms.is_(None), Subscription.fetched_ms < at_ms - _REFETCH_MS),
    )
    halted = and_(Subscription.status == SubscriptionStatus.HALTED, Subscription.current_end_ms < at_ms + NOTICE_MS)
    due_step = or_(late, halted, Subscription.cancel_state.in_(_CANCEL_PENDING), Subscription.wanted.is_not(None))
    submitted = and_(Subscription.state == SubscriptionState.SUBMITTED, due_step)
    return (
        select(Subscription.tenant_id, Subscription.id)
        .where(or_(Subscription.state.in_(UNANSWERED), submitted))
        .order_by(Subscription.id)
    )


def notes_of(row: Subscription) -> dict[str, str]:
    """The notes of our subscriptions at Razorpay."""
    return {"tenant_id": str(row.tenant_id), "naka_subscription": str(row.id)}


async def _create(context: BillingContext, row: Subscription) -> None:
    """Creates the subscription. A refusal voids the intent, since repeating the call would be refused again."""
    if row.cancel_state == CancelState.INTENDED:
        await _void(context, row, "cancelled before it was made")
        return
    try:
        treatment = supply_from_json(row.supply).treatment
        plan_id = await ensure_razorpay_plan(context, row.plan_code, row.plan_version, treatment)
    except RazorpayRefused as refused:
        await _void(context, row, f"the plan: {refused}")
        return
    async with context.locked(row) as (_, fresh):
        if not claim(fresh):
            return
    await submit(
        partial(
            context.razorpay.create_subscription,
            plan_id=plan_id,
            total_count=fresh.total_count,
            notes=notes_of(row),
            start_at=_seconds(fresh.wanted_start_ms),
            expire_by=_seconds(fresh.expire_by_ms),
        ),
        apply=partial(adopt_subscription, context, row.tenant_id, row.id),
        on_refused=lambda refused: _void(context, row, str(refused)),
        on_error=partial(release, context, fresh),
    )


async def _find_created(context: BillingContext, row: Subscription) -> None:
    """Adopts the subscription that an unanswered call created; of several, the oldest."""
    tried_ms = row.tried_ms or row.created_ms
    found = await context.razorpay.find_subscriptions(notes_of(row), since=tried_ms // 1000 - _LOOK_BACK_S)
    found = [one for one in found if one.status not in TERMINAL] or found
    if found:
        first, *others = sorted(found, key=lambda one: (one.created_at, one.id))
        await adopt_subscription(context, row.tenant_id, row.id, first)
        for extra in others:
            await cancel_extra(context, extra, row.tenant_id, row.id)
    elif now_ms() > tried_ms + LIST_LAG_MS:
        await release(context, row, "the call had no effect")


async def _void(context: BillingContext, row: Subscription, reason: str) -> None:
    async with context.locked(row) as (session, fresh):
        if fresh.state in UNANSWERED:
            fresh.state, fresh.is_open, fresh.cancel_state = SubscriptionState.VOID, False, None
            fresh.error = reason[:MAX_ERROR]
            await project(session, context.zone, row.tenant_id, now_ms())


def _is_late(row: Subscription, at_ms: int) -> bool:
    due_ms = min(
        (moment for moment in (row.charge_at_ms, row.expire_by_ms if row.is_open else None) if moment), default=0
    )
    fetched_ms = row.fetched_ms or 0
    return (
        bool(due_ms) and row.status not in TERMINAL and at_ms > due_ms + _LATE_MS and fetched_ms < at_ms - _REFETCH_MS
    )


def _cancel_is_due(row: Subscription, at_ms: int) -> bool:
    return row.cancel_at_ms is None or row.cancel_at_ms <= at_ms + NOTICE_MS


async def _end_halted(context: BillingContext, row: Subscription) -> None:
    """Ends a halted subscription: its next cycle would only add an invoice that nobody is charged for."""
    async with context.locked(row) as (session, fresh):
        if fresh.status == SubscriptionStatus.HALTED and fresh.cancel_state is None:
            end_at(fresh, fresh.current_end_ms or now_ms(), "halted")
            await project(session, context.zone, row.tenant_id, now_ms())


async def _cancel(context: BillingContext, row: Subscription) -> None:
    """Cancels at Razorpay immediately; serving to the cycle's end is up to us.

    Razorpay ignores its own option for that on pending, halted and paused subscriptions.
    """
    if row.razorpay_id is None:
        return
    if row.status not in TERMINAL:
        async with context.locked(row) as (session, fresh):
            if fresh.cancel_state not in _CANCEL_PENDING or not _cancel_is_due(fresh, now_ms()):
                return  # the tenant took the cancel back
            fresh.cancel_state = CancelState.SUBMITTING
        try:
            await context.razorpay.cancel_subscription(row.razorpay_id)
        except RazorpayRefused as refused:
            log.info("cancel_refused", subscription=str(row.id), error=str(refused))
    await refresh_subscription(context, row.tenant_id, row.id)
    async with context.locked(row) as (session, fresh):
        if fresh.status in TERMINAL:
            fresh.cancel_state, fresh.is_open = CancelState.DONE, False
            await project(session, context.zone, row.tenant_id, now_ms())
        else:
            key = f"cancel:{row.id}"
            await record_finding(session, key, "cancel_refused", tenant_id=row.tenant_id, status=fresh.status)


async def _pause_or_resume(context: BillingContext, row: Subscription) -> None:
    """Tries once. A refusal isn't retried: a pause made in the UPI app can only be resumed there."""
    if row.razorpay_id is None:
        return
    call = context.razorpay.pause_subscription if row.wanted == "pause" else context.razorpay.resume_subscription
    target = SubscriptionStatus.PAUSED if row.wanted == "pause" else SubscriptionStatus.ACTIVE
    error = None
    if row.status != target:
        try:
            await call(row.razorpay_id)
        except RazorpayRefused as refused:
            error = str(refused)
    await refresh_subscription(context, row.tenant_id, row.id)
    async with context.locked(row) as (_, fresh):
        # Reaching the target despite a refusal means that an unanswered call had worked.
        fresh.wanted, fresh.error = None, None if fresh.status == target else error


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1000
