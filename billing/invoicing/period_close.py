"""Closing periods: the meters of an ended segment of a period become a bill, credit notes, or nothing.

Each segment is closed and billed on its own when it ends. It waits for its open requests, at most as long as they may
run. It is closed in one transaction under its tenant's lock, with number, amount due and projection, so two workers, a
crash or a repetition make one bill. A closed segment whose meters change later (a late settlement, a revision, a
credit) is closed again, and so are the later segments of its period. Postgres down: Unavailable.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.months import write_past_months
from billing.access.projection import project
from billing.context import CLOSES, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.invoicing.issuing import Parties, parties_of
from billing.invoicing.overage_bills import NO_PROFILE, bill_usage
from billing.models import Bill, BillingPeriod, BillingProfile, OperatorProfile
from billing.models.states import BillState, PeriodState
from billing.rating.overage import Reading
from billing.readings import changed_since_close, has_open_requests, read_period
from billing.segments import segments_of
from core.clock import now_ms
from core.errors import NakaError, Unavailable
from core.logs import get_logger
from metering.quota.schedule import number_of, window_of

PATIENCE_MS = 15 * 60_000
"""Time past the longest request after which an open one is no longer waited for; recovery settles it."""
_BATCH = 200

Search = Callable[[int], Select[UUID, int, str]]
_KEY = (BillingPeriod.tenant_id, BillingPeriod.starts_ms, BillingPeriod.period_id)

log = get_logger(__name__)


async def close_due(context: BillingContext) -> int:
    """The duty CLOSES: closes every due period and returns how many. Raises Unavailable."""
    await _write_months(context)
    closed = 0
    for search in (changed_since_close, _ended, _with_profile):  # a changed one makes later segments due
        async for tenant_id, period_id in _found(context, search):
            closed += await _close_or_log(context, tenant_id, period_id)
    return closed


async def close_tenant(context: BillingContext, tenant_id: UUID) -> int:
    """Closes one tenant's due periods and returns how many. Raises the first failure."""
    await _write_months(context, tenant_id)
    query = select(BillingPeriod.period_id).where(
        BillingPeriod.tenant_id == tenant_id, BillingPeriod.ends_ms <= now_ms()
    )
    async with context.database.session() as session:
        names = (await session.scalars(query.order_by(BillingPeriod.ends_ms, BillingPeriod.starts_ms))).all()
    return sum([await close_if_due(context, tenant_id, name) for name in names])


async def close_if_due(context: BillingContext, tenant_id: UUID, period_id: str) -> bool:
    """Closes a period if it is due; False if it isn't, or has open requests."""
    async with context.tenant_transaction(tenant_id) as session:
        at_ms = now_ms()
        period = await session.get(BillingPeriod, (tenant_id, period_id))
        if period is None or period.ends_ms > at_ms or await _must_wait(session, context, period, at_ms):
            return False
        reading, parties = await read_period(session, tenant_id, period_id), await parties_of(session, tenant_id)
        if not await _would_change(session, period, reading, parties):
            return False
        await _close(session, context, period, reading, parties, at_ms)
        await project(session, context.zone, tenant_id, at_ms)
    return True


async def close_period(
    session: AsyncSession, context: BillingContext, period: BillingPeriod, now_ms: int
) -> Sequence[Bill]:
    """Closes a period by its current meters and returns the new documents. The tenant's lock is held.

    The caller projects afterwards.
    """
    reading = await read_period(session, period.tenant_id, period.period_id)
    parties = await parties_of(session, period.tenant_id)
    return await _close(session, context, period, reading, parties, now_ms)


async def _close(
    session: AsyncSession,
    context: BillingContext,
    period: BillingPeriod,
    reading: Reading,
    parties: Parties | None,
    now_ms: int,
) -> Sequence[Bill]:
    made = await bill_usage(session, context, period, reading, parties, now_ms)
    if reading != _last_reading(period):
        await _reopen_later(session, period)
    period.state = PeriodState.CLOSED if period.ends_ms <= now_ms else PeriodState.OPEN  # its bill was made anew early
    period.closed_ms, period.reading = now_ms, msgspec.to_builtins(reading)
    await session.flush()
    return made


async def _reopen_later(session: AsyncSession, period: BillingPeriod) -> None:
    """Makes the closed later segments due again: their allowances are what this one left."""
    for later in await segments_of(session, period.tenant_id, window_of(period.period_id)):
        if number_of(later.period_id) > number_of(period.period_id) and later.state == PeriodState.CLOSED:
            later.state = PeriodState.OPEN
            enqueue_after_commit(session, CLOSES)


def _last_reading(period: BillingPeriod) -> Reading | None:
    return None if period.reading is None else msgspec.convert(period.reading, Reading)


async def _write_months(context: BillingContext, tenant_id: UUID | None = None) -> None:
    async with context.database.session() as session:
        await write_past_months(session, context.zone, now_ms(), tenant_id)


async def _must_wait(session: AsyncSession, context: BillingContext, period: BillingPeriod, now_ms: int) -> bool:
    """Whether an open request of the period may still settle."""
    patience_ms = context.settings.request_deadline_s * 1000 + PATIENCE_MS
    return now_ms < period.ends_ms + patience_ms and await has_open_requests(
        session, period.tenant_id, period.period_id
    )


async def _would_change(
    session: AsyncSession, period: BillingPeriod, reading: Reading, parties: Parties | None
) -> bool:
    """Whether a close would change something: a first one, other meters, or a bill held for a profile that exists."""
    if period.state == PeriodState.OPEN or reading != _last_reading(period):
        return True
    waits = exists().where(
        Bill.tenant_id == period.tenant_id, Bill.period_id == period.period_id, Bill.reason == NO_PROFILE
    )
    return parties is not None and bool(await session.scalar(select(waits)))


async def _close_or_log(context: BillingContext, tenant_id: UUID, period_id: str) -> bool:
    """Like `close_if_due`, but records a failure as a finding. The next run tries again."""
    try:
        return await close_if_due(context, tenant_id, period_id)
    except Unavailable:
        raise
    except Exception as error:
        log.exception("close_failed", tenant=str(tenant_id), period=period_id)
        said = str(error) if isinstance(error, NakaError) else type(error).__name__
        async with context.database.session() as session:
            key = f"close-failed:{tenant_id}:{period_id}"
            await record_finding(session, key, "close_failed", tenant_id=tenant_id, period=period_id, error=said)
        return False


async def _found(context: BillingContext, search: Search) -> AsyncIterator[tuple[UUID, str]]:
    """The results of a search, in batches; no session is open while one is processed.

    A tenant's periods come in order of time: by name, the tenth segment of a period would come before the second.
    """
    after: list[ColumnElement[bool]] = []
    while True:
        async with context.database.session() as session:
            query = search(now_ms()).where(*after).order_by(*_KEY).limit(_BATCH)
            keys: list[tuple[UUID, int, str]] = [(row[0], row[1], row[2]) for row in await session.execute(query)]
        for tenant_id, _, period_id in keys:
            yield tenant_id, period_id
        if len(keys) < _BATCH:
            return
        after = [tuple_(*_KEY) > keys[-1]]


def _ended(now_ms: int) -> Select[UUID, int, str]:
    """Open periods whose end has passed."""
    return select(*_KEY).where(BillingPeriod.state == PeriodState.OPEN, BillingPeriod.ends_ms <= now_ms)


def _with_profile(now_ms: int) -> Select[UUID, int, str]:
    """Periods with a bill held for a profile that exists by now."""
    return select(*_KEY).where(
        BillingPeriod.ends_ms <= now_ms,
        exists().where(
            Bill.tenant_id == BillingPeriod.tenant_id,
            Bill.period_id == BillingPeriod.period_id,
            Bill.state == BillState.HELD,
            Bill.reason == NO_PROFILE,
        ),
        exists().where(BillingProfile.tenant_id == BillingPeriod.tenant_id),
        exists().where(OperatorProfile.id == 1),
    )
