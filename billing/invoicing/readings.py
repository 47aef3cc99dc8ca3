"""Readings of a period's meters, and which closed periods read otherwise now.

A reading is one statement over all shards of a period's meters, so it is one moment's truth: a settlement is in it
whole or not at all. What it misses moves a meter later, and `moved` finds that.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, ColumnElement, cast, func, literal, or_, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import BillingPeriod
from billing.rating.overage import Reading
from metering.models import UsageMeter, UsageRequest
from metering.pricing.tokens import Usage

MOVES_FOR_MS = 400 * 86_400_000
"""So long after its end a closed period is still looked at."""

_TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
)
_COST = "cost_nano_usd"

PeriodKey = tuple[UUID, str]


async def read_period(session: AsyncSession, tenant_id: UUID, period_id: str) -> Reading:
    """What all meters of the period read now; zeros where nothing was used."""
    whose = (UsageMeter.tenant_id == tenant_id, UsageMeter.period_id == period_id)
    *tokens, cost = (await session.execute(select(*_sums()).where(*whose))).one()
    return Reading(Usage(*tokens), cost)


async def is_awaited(session: AsyncSession, tenant_id: UUID, period_id: str) -> bool:
    """Whether a request of the period is open still."""
    whose = (UsageRequest.tenant_id == tenant_id, UsageRequest.period_id == period_id, UsageRequest.state == "open")
    return bool(await session.scalar(select(select(literal(1)).where(*whose).exists())))


async def moved(session: AsyncSession, now_ms: int, after: PeriodKey | None, limit: int) -> Sequence[PeriodKey]:
    """Closed periods, ended and not too old, whose meters read otherwise than at their last close; by their keys."""
    period = BillingPeriod
    whose = (UsageMeter.tenant_id == period.tenant_id, UsageMeter.period_id == period.period_id)
    meters = select(*_sums()).where(*whose).lateral("meters")
    query = (
        select(period.tenant_id, period.period_id)
        .join(meters, true())
        .where(
            period.state == "closed",
            period.ends_ms <= now_ms,
            period.ends_ms > now_ms - MOVES_FOR_MS,
            or_(
                *(meters.c[name].is_distinct_from(_read(period.reading["usage"][name])) for name in _TOKENS),
                meters.c[_COST].is_distinct_from(_read(period.reading[_COST])),
            ),
        )
        .order_by(period.tenant_id, period.period_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(period.tenant_id, period.period_id) > after)
    return [(tenant_id, period_id) for tenant_id, period_id in await session.execute(query)]


def reading_to_json(reading: Reading) -> dict[str, object]:
    """As a period's row keeps it."""
    return dict(msgspec.to_builtins(reading))


def reading_from_json(kept: dict[str, object]) -> Reading:
    """The same, back."""
    return msgspec.convert(kept, Reading)


def _sums() -> list[ColumnElement[int]]:
    return [
        cast(func.coalesce(func.sum(getattr(UsageMeter, name)), 0), BigInteger).label(name)
        for name in (*_TOKENS, _COST)
    ]


def _read(value: ColumnElement[object]) -> ColumnElement[int]:
    return cast(value.astext, BigInteger)
