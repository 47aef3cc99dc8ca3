"""Telling Razorpay what is wanted of subscriptions: each step stored before its call, and looked up after a doubt.

Nothing makes a subscription unique at Razorpay but our notes in it. So one whose answer was lost is looked for by its
notes, with patience, for the list may lag by minutes; only then it is made again. Should the first one turn up later,
it is an extra one (`billing.subscriptions.orphans`). A cancel may be repeated: what reads as cancelled is cancelled.
Razorpay away: what is wanted waits, and the duty comes again. It also keeps our own clock: what is to end is cancelled
before its next charge is announced, a halted one before its next cycle, and what should have moved is fetched.
"""

import asyncio
import time
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import and_, or_, select

from billing.access.projection import project
from billing.catalogue.profiles import supply_from_json
from billing.catalogue.razorpay_plans import ensure
from billing.context import BillingContext, record_finding
from billing.models import Subscription
from billing.razorpay.errors import RazorpayError, RazorpayInDoubt, RazorpayRefused
from billing.subscriptions.intents import NOTICE_MS, TERMINAL, end_at
from billing.subscriptions.orphans import adopt, dismiss
from billing.subscriptions.sync import refresh
from core.clock import now_ms
from core.errors import NakaError
from core.logs import get_logger

PATIENCE_MS = 10 * 60_000
_LOOK_BACK_S = 3600
_CALL_MS = 30_000
"""No call to Razorpay is longer (`razorpay_transport.Patience`)."""
_POLL_S = 0.1
_LATE_MS = 5 * 60_000
"""So long after a charge was due, what became of it is fetched, were its webhook lost."""
_AGAIN_MS = 15 * 60_000

log = get_logger(__name__)


async def drive(context: BillingContext) -> None:
    """The duty: every step that is due, of every tenant. What fails is tried again at the next tick."""
    for tenant_id, subscription_id in await _due(context):
        try:
            await drive_one(context, tenant_id, subscription_id)
        except (RazorpayError, NakaError) as error:
            log.warning("subscription_waits", subscription=str(subscription_id), error=str(error))
        except Exception:
            log.exception("subscription_fails", subscription=str(subscription_id))


async def drive_one(context: BillingContext, tenant_id: UUID, subscription_id: UUID) -> None:
    """Every step of one subscription that is due. Raises RazorpayError, Unavailable, Invalid."""
    row = await _read(context, tenant_id, subscription_id)
    if row.state == "submitting":
        await _look_for(context, row)
        row = await _read(context, tenant_id, subscription_id)
    if row.state == "intended":
        await _submit(context, row)
        row = await _read(context, tenant_id, subscription_id)
    if row.state != "submitted":
        return
    if _is_late(row, now_ms()):
        await refresh(context, tenant_id, subscription_id)
        row = await _read(context, tenant_id, subscription_id)
    if row.status == "halted" and row.cancel_state is None and _nears_its_end(row, now_ms()):
        await _end_halted(context, row)
        row = await _read(context, tenant_id, subscription_id)
    if row.cancel_state in {"intended", "submitting"} and _cancel_is_due(row, now_ms()):
        await _cancel(context, row)
    elif row.wanted is not None:
        await _pause_or_resume(context, row)


async def others_call(context: BillingContext, tenant_id: UUID, subscription_id: UUID, *, patience_s: float) -> None:
    """Waits for the end of a call that another process, or another request, is making right now to have this one made.

    Not where nobody can be in that call any more: what is in doubt is looked for in its own time.
    """
    deadline = time.monotonic() + patience_s
    row = await _read(context, tenant_id, subscription_id)
    while row.state == "submitting" and now_ms() < (row.tried_ms or 0) + _CALL_MS and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_S)
        row = await _read(context, tenant_id, subscription_id)


async def _due(context: BillingContext) -> Sequence[tuple[UUID, UUID]]:
    at_ms = now_ms()
    going = Subscription.status.not_in(TERMINAL)
    late = and_(
        going,
        or_(
            Subscription.charge_at_ms < at_ms - _LATE_MS,
            and_(Subscription.is_open, Subscription.expire_by_ms < at_ms - _LATE_MS),
        ),
        or_(Subscription.fetched_ms.is_(None), Subscription.fetched_ms < at_ms - _AGAIN_MS),
    )
    halted = and_(Subscription.status == "halted", Subscription.current_end_ms < at_ms + NOTICE_MS)
    ending = and_(Subscription.cancel_state.in_(("intended", "submitting")), Subscription.state == "submitted")
    query = (
        select(Subscription.tenant_id, Subscription.id)
        .where(
            or_(
                Subscription.state.in_(("intended", "submitting")),
                and_(Subscription.state == "submitted", or_(late, halted, ending, Subscription.wanted.is_not(None))),
            )
        )
        .order_by(Subscription.id)
    )
    async with context.database.session() as session:
        return [(row[0], row[1]) for row in (await session.execute(query)).all()]


async def _read(context: BillingContext, tenant_id: UUID, subscription_id: UUID) -> Subscription:
    async with context.database.session() as session:
        return await session.get_one(Subscription, (tenant_id, subscription_id))


def notes_of(row: Subscription) -> dict[str, str]:
    """What every subscription of ours bears at Razorpay."""
    return {"tenant_id": str(row.tenant_id), "naka_subscription": str(row.id)}


# --------------------------------------------------------------------------------------------------- making it


async def _submit(context: BillingContext, row: Subscription) -> None:
    """The call that makes it. A refusal ends the intent; nobody can mend it by trying again."""
    treatment = supply_from_json(row.supply).treatment
    if row.cancel_state == "intended":
        await _give_up(context, row, "cancelled before it was made")
        return
    try:
        plan_id = await ensure(context, row.plan_code, row.plan_version, treatment)
    except RazorpayRefused as refused:
        await _give_up(context, row, f"the plan: {refused}")
        return
    if not await _begin(context, row):
        return
    try:
        made = await context.razorpay.create_subscription(
            plan_id=plan_id,
            total_count=row.total_count,
            notes=notes_of(row),
            start_at=_seconds(row.wanted_start_ms),
            expire_by=_seconds(row.expire_by_ms),
        )
    except RazorpayRefused as refused:
        await _give_up(context, row, str(refused))
    except RazorpayInDoubt:
        raise
    except RazorpayError as error:  # certainly not sent, or throttled: as if it had not been tried
        await _set_state(context, row, "intended", str(error))
        raise
    else:
        await adopt(context, row.tenant_id, row.id, made)


async def _begin(context: BillingContext, row: Subscription) -> bool:
    """From here on the call may have happened. Only one process gets past this."""
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
        if fresh.state != "intended":
            return False
        fresh.state, fresh.tried_ms, fresh.error = "submitting", now_ms(), None
        return True


async def _look_for(context: BillingContext, row: Subscription) -> None:
    """Whether the lost call had its effect. With several, the oldest is it."""
    tried_ms = row.tried_ms or row.created_ms
    found = await context.razorpay.find_subscriptions(notes_of(row), since=tried_ms // 1000 - _LOOK_BACK_S)
    found = [one for one in found if one.status not in TERMINAL] or found
    if found:
        first, *others = sorted(found, key=lambda one: (one.created_at, one.id))
        await adopt(context, row.tenant_id, row.id, first)
        for extra in others:
            await dismiss(context, extra, row.tenant_id, row.id)
    elif now_ms() > tried_ms + PATIENCE_MS:
        await _set_state(context, row, "intended", "the call had no effect")


async def _set_state(context: BillingContext, row: Subscription, state: str, error: str) -> None:
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
        if fresh.state == "submitting":
            fresh.state, fresh.error = state, error[:500]


async def _give_up(context: BillingContext, row: Subscription, reason: str) -> None:
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
        if fresh.state in {"intended", "submitting"}:
            fresh.state, fresh.is_open, fresh.error, fresh.cancel_state = "void", False, reason[:500], None
            await project(session, context.zone, row.tenant_id, now_ms())


# --------------------------------------------------------------------------------------------------- our clock


def _is_late(row: Subscription, at_ms: int) -> bool:
    due_ms = min(
        (moment for moment in (row.charge_at_ms, row.expire_by_ms if row.is_open else None) if moment), default=0
    )
    fetched_ms = row.fetched_ms or 0
    return bool(due_ms) and row.status not in TERMINAL and at_ms > due_ms + _LATE_MS and fetched_ms < at_ms - _AGAIN_MS


def _nears_its_end(row: Subscription, at_ms: int) -> bool:
    return row.current_end_ms is not None and row.current_end_ms < at_ms + NOTICE_MS


def _cancel_is_due(row: Subscription, at_ms: int) -> bool:
    return row.cancel_at_ms is None or row.cancel_at_ms <= at_ms + NOTICE_MS


async def _end_halted(context: BillingContext, row: Subscription) -> None:
    """Its next cycle would only be one more invoice that nobody is charged for."""
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
        if fresh.status == "halted" and fresh.cancel_state is None:
            end_at(fresh, fresh.current_end_ms or now_ms(), "halted")
            await project(session, context.zone, row.tenant_id, now_ms())


async def _cancel(context: BillingContext, row: Subscription) -> None:
    """Immediately, at Razorpay: the cycle's end is our business, since Razorpay ignores it where it matters."""
    if row.razorpay_id is None:
        return
    if row.status not in TERMINAL:
        async with context.tenant_transaction(row.tenant_id) as session:
            fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
            if fresh.cancel_state not in {"intended", "submitting"} or not _cancel_is_due(fresh, now_ms()):
                return  # taken back meanwhile
            fresh.cancel_state = "submitting"
        try:
            await context.razorpay.cancel_subscription(row.razorpay_id)
        except RazorpayRefused as refused:
            log.info("cancel_refused", subscription=str(row.id), error=str(refused))
    await refresh(context, row.tenant_id, row.id)
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
        if fresh.status in TERMINAL:
            fresh.cancel_state, fresh.is_open = "done", False
            await project(session, context.zone, row.tenant_id, now_ms())
        else:
            await record_finding(
                session, f"cancel:{row.id}", "cancel_refused", tenant_id=row.tenant_id, status=fresh.status
            )


async def _pause_or_resume(context: BillingContext, row: Subscription) -> None:
    """Once; a refusal (a customer who paused in the UPI app alone can resume) is not tried again."""
    if row.razorpay_id is None:
        return
    call = context.razorpay.pause_subscription if row.wanted == "pause" else context.razorpay.resume_subscription
    target, error = "paused" if row.wanted == "pause" else "active", None
    if row.status != target:
        try:
            await call(row.razorpay_id)
        except RazorpayRefused as refused:
            error = str(refused)
    await refresh(context, row.tenant_id, row.id)
    async with context.tenant_transaction(row.tenant_id) as session:
        fresh = await session.get_one(Subscription, (row.tenant_id, row.id))
        fresh.wanted, fresh.error = None, None if fresh.status == target else error  # a lost answer's repetition


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1000
