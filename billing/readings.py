"""Readings of a period's meters, and the closed periods whose meters changed.

A reading is one statement over all shards of a period's meters, so a settlement is in it entirely or not at all.
"""

from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, literal, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import BillingPeriod
from billing.models.states import PeriodState
from billing.rating.overage import Reading
from core.clock import DAY_MS
from metering.counts import LATER_COLUMNS, USAGE_COLUMNS
from metering.models import UsageMeter, UsageRequest
from metering.pricing.tokens import Usage

WATCHED_FOR_MS = 400 * DAY_MS
"""Time after its end for which a closed period is checked for changes."""

_COST = "cost_nano_usd"


async def read_period(session: AsyncSession, tenant_id: UUID, period_id: str) -> Reading:
    """The current sums of all meters of the period; zero without usage."""
    own = (UsageMeter.tenant_id == tenant_id, UsageMeter.period_id == period_id)
    *usage, cost = (await session.execute(select(*_sums()).where(*own))).one()
    return Reading(Usage(*usage), cost)


async def has_open_requests(session: AsyncSession, tenant_id: UUID, period_id: str) -> bool:
    """Whether a request of the period is still open."""
    own = (UsageRequest.tenant_id == tenant_id, UsageRequest.period_id == period_id, UsageRequest.state == "open")
    return bool(await session.scalar(select(select(literal(1)).where(*own).exists())))


def changed_since_close(now_ms: int) -> Select[UUID, int, str]:
    """Closed periods, ended at most WATCHED_FOR_MS ago, whose meters differ from their last close.

    Each row is tenant, start and name.
    """
    period = BillingPeriod
    own = (UsageMeter.tenant_id == period.tenant_id, UsageMeter.period_id == period.period_id)
    meters = select(*_sums()).where(*own).lateral("meters")
    return (
        select(period.tenant_id, period.starts_ms, period.period_id)
        .join(meters, true())
        .where(
            period.state == PeriodState.CLOSED,
            period.ends_ms <= now_ms,
            period.ends_ms > now_ms - WATCHED_FOR_MS,
            or_(
                *(meters.c[name].is_distinct_from(_used(name)) for name in USAGE_COLUMNS),
                meters.c[_COST].is_distinct_from(_read(period.reading[_COST])),
            ),
        )
    )


def _sums() -> list[ColumnElement[int]]:
    return [
        cast(func.coalesce(func.sum(getattr(UsageMeter, name)), 0), BigInteger).label(name)
        for name in (*USAGE_COLUMNS, _COST)
    ]


def _used(name: str) -> ColumnElement[int]:
    """A count at the last close; a reading from before there was such a count has none of it."""
    value = _read(BillingPeriod.reading["usage"][name])
    return func.coalesce(value, 0) if name in LATER_COLUMNS else value


def _read(value: ColumnElement[object]) -> ColumnElement[int]:
    return cast(value.astext, BigInteger)
