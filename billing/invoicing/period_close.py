"""Closing periods: the reading of each period that has ended becomes a bill, credit notes, or nothing.

A period is due when its end has passed; a clock or a webhook only makes us look. It waits for the requests that are
open in it, no longer than they may run. Each is closed in one transaction under its tenant's lock, with its number, its
debt and its projection, so that two workers, a kill or a repetition make one bill; one tenant that fails stops no
other. What moves a closed period's meters later (a late settlement, a revision, a credit) closes it again.
Postgres away: Unavailable, and the duty comes again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

from sqlalchemy import Select, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext, record_finding
from billing.invoicing.calendar_periods import enter_months
from billing.invoicing.issuing import parties_of
from billing.invoicing.overage_bills import NO_PROFILE, bill_usage
from billing.invoicing.readings import is_awaited, moved, read_period, reading_from_json, reading_to_json
from billing.models import Bill, BillingPeriod, BillingProfile, OperatorProfile
from billing.rating.overage import Reading
from core.clock import now_ms
from core.errors import NakaError, Unavailable
from core.logs import get_logger

PATIENCE_MS = 15 * 60_000
"""So long past the longest request an open one is waited for: then it is an orphan, and recovery's."""
_BATCH = 200

PeriodKey = tuple[UUID, str]
Find = Callable[[AsyncSession, int, PeriodKey | None, int], Awaitable[Sequence[PeriodKey]]]

log = get_logger(__name__)


async def close_due(context: BillingContext) -> int:
    """The duty CLOSES: every period that is due, one by one. Answers how many were closed. Raises Unavailable."""
    await enter_months(context, now_ms())
    closed = 0
    for find in (_ended, moved, _named_by_now):
        async for tenant_id, period_id in _found(context, find):
            closed += await _close_or_log(context, tenant_id, period_id)
    return closed


async def close_tenant(context: BillingContext, tenant_id: UUID) -> int:
    """The same for one tenant, at once. Raises what went wrong."""
    await enter_months(context, now_ms(), tenant_id)
    query = select(BillingPeriod.period_id).where(
        BillingPeriod.tenant_id == tenant_id, BillingPeriod.ends_ms <= now_ms()
    )
    async with context.database.session() as session:
        names = (await session.scalars(query.order_by(BillingPeriod.ends_ms, BillingPeriod.period_id))).all()
    return sum([await close_one(context, tenant_id, name) for name in names])


async def close_one(context: BillingContext, tenant_id: UUID, period_id: str) -> bool:
    """Closes a period if it is due now; False if it is not, or is awaited still."""
    async with context.tenant_transaction(tenant_id) as session:
        at_ms = now_ms()
        period = await session.get(BillingPeriod, (tenant_id, period_id))
        if period is None or period.ends_ms > at_ms or not await _is_due(session, context, period, at_ms):
            return False
        await close_period(session, context, period, at_ms)
        await project(session, context.zone, tenant_id, at_ms)
    return True


async def close_period(
    session: AsyncSession, context: BillingContext, period: BillingPeriod, now_ms: int
) -> Sequence[Bill]:
    """Closes a period as its meters read now; the documents that this made. The tenant's lock is held.

    Nobody projects here what the documents mean for admission: the caller does.
    """
    reading = await read_period(session, period.tenant_id, period.period_id)
    made = await bill_usage(session, context, period, reading, now_ms)
    period.state, period.closed_ms, period.reading = "closed", now_ms, reading_to_json(reading)
    await session.flush()
    return made


async def _is_due(session: AsyncSession, context: BillingContext, period: BillingPeriod, now_ms: int) -> bool:
    """Whether a close would do something, and need not wait."""
    patience_ms = context.settings.request_deadline_s * 1000 + PATIENCE_MS
    if now_ms < period.ends_ms + patience_ms and await is_awaited(session, period.tenant_id, period.period_id):
        return False
    if period.state == "open":
        return True
    reading = await read_period(session, period.tenant_id, period.period_id)
    return reading != _last_reading(period) or await _can_be_named(session, period)


async def _can_be_named(session: AsyncSession, period: BillingPeriod) -> bool:
    """Whether a bill of it waits for a profile that is there by now."""
    waits = exists().where(
        Bill.tenant_id == period.tenant_id, Bill.period_id == period.period_id, Bill.reason == NO_PROFILE
    )
    return bool(await session.scalar(select(waits))) and await parties_of(session, period.tenant_id) is not None


def _last_reading(period: BillingPeriod) -> Reading | None:
    return None if period.reading is None else reading_from_json(period.reading)


async def _close_or_log(context: BillingContext, tenant_id: UUID, period_id: str) -> bool:
    """Like `close_one`; what fails is told, and tried again at the next run."""
    try:
        return await close_one(context, tenant_id, period_id)
    except Unavailable:
        raise
    except Exception as error:
        log.exception("close_failed", tenant=str(tenant_id), period=period_id)
        said = str(error) if isinstance(error, NakaError) else type(error).__name__
        async with context.database.session() as session:
            key = f"close-failed:{tenant_id}:{period_id}"
            await record_finding(session, key, "close_failed", tenant_id=tenant_id, period=period_id, error=said)
        return False


async def _found(context: BillingContext, find: Find) -> AsyncIterator[PeriodKey]:
    """What a search finds, a page at a time: no session is open while one is worked on."""
    last: PeriodKey | None = None
    while True:
        async with context.database.session() as session:
            keys = await find(session, now_ms(), last, _BATCH)
        for key in keys:
            yield key
        if len(keys) < _BATCH:
            return
        last = keys[-1]


async def _ended(session: AsyncSession, now_ms: int, after: PeriodKey | None, limit: int) -> Sequence[PeriodKey]:
    """Open periods whose end has passed. A tenant's come in the order of their names, which begin with their dates."""
    query = _keys(after, limit).where(BillingPeriod.state == "open", BillingPeriod.ends_ms <= now_ms)
    return [(tenant_id, period_id) for tenant_id, period_id in await session.execute(query)]


async def _named_by_now(session: AsyncSession, now_ms: int, after: PeriodKey | None, limit: int) -> Sequence[PeriodKey]:
    """Periods with a bill that waited for a profile, where there is one."""
    query = _keys(after, limit).where(
        BillingPeriod.ends_ms <= now_ms,
        exists().where(
            Bill.tenant_id == BillingPeriod.tenant_id,
            Bill.period_id == BillingPeriod.period_id,
            Bill.state == "held",
            Bill.reason == NO_PROFILE,
        ),
        exists().where(BillingProfile.tenant_id == BillingPeriod.tenant_id),
        exists().where(OperatorProfile.id == 1),
    )
    return [(tenant_id, period_id) for tenant_id, period_id in await session.execute(query)]


def _keys(after: PeriodKey | None, limit: int) -> Select[UUID, str]:
    key = (BillingPeriod.tenant_id, BillingPeriod.period_id)
    query = select(*key).order_by(*key).limit(limit)
    return query if after is None else query.where(tuple_(*key) > after)
