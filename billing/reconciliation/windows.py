"""The days to compare, and when each was compared last: a run that stops half-way is continued by the next one.

The list of a past day doesn't change while it is read, and no list has to be skipped far. Postgres down: Unavailable.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import ComparedDay
from core.clock import DAY_MS

_DAY_S = DAY_MS // 1000
_SKEW_S = 60
"""The most that Razorpay's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Whole days in UTC, the last one until now. Unix seconds, both inclusive, as Razorpay's lists take them."""

    since: int
    until: int

    @property
    def days(self) -> list[int]:
        """The first second of each day in it."""
        return list(range(self.since, self.until + 1, _DAY_S))


def windows(since_ms: int, until_ms: int) -> list[Window]:
    """The days that touch this time, newest first."""
    end_s = until_ms // 1000 + _SKEW_S
    first, last = since_ms // DAY_MS, end_s // _DAY_S
    return [Window(day * _DAY_S, min((day + 1) * _DAY_S - 1, end_s)) for day in range(last, first - 1, -1)]


def as_one(days: list[Window]) -> list[Window]:
    """All these days, newest first, in one window."""
    return [Window(days[-1].since, days[0].until)]


def in_order(days: list[Window], compared_ms: Mapping[int, int]) -> list[Window]:
    """The newest day, then the others by how long ago they were compared (never: first), newer ones before older."""
    rest = sorted(days[1:], key=lambda day: (compared_ms.get(day.since, 0), -day.since))
    return [*days[:1], *rest]


async def compared_since(session: AsyncSession, days: Iterable[Window]) -> dict[int, int]:
    """The time of the last comparison of each of these days, by its first second."""
    first_ms = min(day.since for day in days) * 1000
    rows = await session.execute(
        select(ComparedDay.starts_ms, ComparedDay.compared_ms).where(ComparedDay.starts_ms >= first_ms)
    )
    return {starts_ms // 1000: at for starts_ms, at in rows}


async def mark_compared(session: AsyncSession, window: Window, now_ms: int) -> None:
    """Stores that these days were compared."""
    insertion = insert(ComparedDay).values([{"starts_ms": day * 1000, "compared_ms": now_ms} for day in window.days])
    await session.execute(insertion.on_conflict_do_update(index_elements=["starts_ms"], set_={"compared_ms": now_ms}))
