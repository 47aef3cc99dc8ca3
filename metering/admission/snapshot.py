"""What Postgres says of the windows and holds of a tenant (shadow.sql), or of users, many at once (shadow_users.sql).

Each is one statement, one snapshot.

The periods are those of the tenant's schedule; who reads it here and then writes to Redis holds the tenant's lock, or
writes only into what was built under it, so a newer schedule cannot have committed unseen.

Redis's hashes are built from it, fallback judges by it, and `/v1/limits` shows it while Redis is away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import msgspec

from core.clock import to_ms
from core.ids import uuid7_floor
from metering.quota.counters import Hold, ScopeCounters, WindowState
from metering.quota.schedule import Period, Schedule, period_at, periods_between
from metering.quota.windows import MINUTE_MS, Calendar, minute_window
from metering.sql import load


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """Windows by the names of Redis's fields (`m:`, `d:`, `p:`), and the holds of requests that run."""

    windows: dict[str, WindowState]
    holds: dict[UUID, Hold]

    def state(self, names: list[str]) -> ScopeCounters:
        """As the hash would say it; a window without a count is empty."""
        return ScopeCounters(len(self.holds), tuple(self.windows.get(name, WindowState()) for name in names))

    def fields(self) -> dict[str, Any]:
        """The hash's fields, but for the epoch and the run."""
        fields: dict[str, Any] = {name: state.pack() for name, state in self.windows.items()}
        fields |= {f"h:{request_id.hex}": hold.pack() for request_id, hold in self.holds.items()}
        fields["c"] = len(self.holds)
        fields["k"] = " ".join(sorted(self.windows))
        if self.holds:
            fields["x"] = min(hold.deadline_ms for hold in self.holds.values())
        return fields


@dataclass(frozen=True, slots=True)
class _Which:
    """The windows that are read: minutes from an id on, days from one on, and periods by name."""

    from_id: UUID
    from_day: date
    periods: tuple[str, ...]

    @classmethod
    def around(cls, calendar: Calendar, now_ms: int, periods: Sequence[Period], around_ms: int) -> "_Which":
        """Those of a moment, and of `around_ms` before and after it."""
        earliest, latest = now_ms - around_ms, now_ms + around_ms
        names = {period.name for period in periods_between(periods, earliest, latest, calendar)}
        from_id = uuid7_floor(earliest // MINUTE_MS * MINUTE_MS)
        return cls(from_id, calendar.date_of(earliest), tuple(sorted(names)))


@dataclass(frozen=True, slots=True)
class UserQuery:
    """A user, and the windows that are read of it."""

    tenant_id: UUID
    user_id: UUID
    which: _Which

    @classmethod
    def around(
        cls,
        calendar: Calendar,
        tenant_id: UUID,
        user_id: UUID,
        now_ms: int,
        *,
        periods: Sequence[Period] = (),
        around_ms: int = 0,
    ) -> "UserQuery":
        """The windows of a moment, and of `around_ms` before and after it."""
        return cls(tenant_id, user_id, _Which.around(calendar, now_ms, periods, around_ms))


async def read_periods(connection: Any, tenant_id: UUID) -> tuple[Period, ...]:
    """The periods of the tenant's schedule, on an asyncpg connection."""
    found = await connection.fetchval("SELECT schedule::text FROM entitlements WHERE tenant_id = $1", tenant_id)
    return () if found is None else msgspec.json.decode(found, type=Schedule).periods


async def read_snapshot(
    connection: Any,
    calendar: Calendar,
    tenant_id: UUID,
    user_id: UUID | None,
    now_ms: int,
    *,
    periods: Sequence[Period] = (),
    around_ms: int = 0,
) -> CounterSnapshot:
    """The windows of `now_ms`, and those of `around_ms` before and after it; all holds. On an asyncpg connection."""
    if user_id is not None:
        ask = UserQuery.around(calendar, tenant_id, user_id, now_ms, periods=periods, around_ms=around_ms)
        return (await read_user_snapshots(connection, [ask]))[ask]
    which = _Which.around(calendar, now_ms, periods, around_ms)
    rows = await connection.fetch(load("shadow"), tenant_id, which.from_id, which.from_day, list(which.periods))
    return snapshot_of(rows, which.periods)


async def read_user_snapshots(connection: Any, asks: Sequence[UserQuery]) -> dict[UserQuery, CounterSnapshot]:
    """The windows and the holds of each, in one statement on an asyncpg connection."""
    periods = [(number, name) for number, ask in enumerate(asks, 1) for name in ask.which.periods]
    rows = await connection.fetch(
        load("shadow_users"),
        [ask.tenant_id for ask in asks],
        [ask.user_id for ask in asks],
        [ask.which.from_id for ask in asks],
        [ask.which.from_day for ask in asks],
        [number for number, _ in periods],
        [name for _, name in periods],
    )
    of_user: dict[object, list[Any]] = {}
    for row in rows:  # windows have the number of their ask; holds have their user, who may have been asked for twice
        whose = (row["tenant_id"], row["user_id"]) if row["number"] is None else row["number"]
        of_user.setdefault(whose, []).append(row)
    return {
        ask: snapshot_of(
            of_user.get(number, []) + of_user.get((ask.tenant_id, ask.user_id), []),
            ask.which.periods,
        )
        for number, ask in enumerate(asks, 1)
    }


def snapshot_of(rows: list[Any], periods: Sequence[str] = ()) -> CounterSnapshot:
    """What the rows of shadow.sql say. Pure.

    `periods` are there even if nothing was counted in them, so that one which was interrupted is known to be whole.
    """
    used: dict[str, tuple[int, ...]] = {}
    held: dict[str, list[int]] = {}
    holds: dict[UUID, Hold] = {}
    for row in rows:
        if row["kind"] != "h":
            used[f"{row['kind']}:{row['name']}"] = tuple(row.values())[4:11]
            continue
        hold = Hold(
            prompt=row["held_prompt_tokens"],
            output=row["held_output_tokens"],
            nano_usd=row["held_nano_usd"],
            deadline_ms=to_ms(row["deadline_at"]),
            minute=int(row["name"]),
            day=row["day"].isoformat(),
            period=row["period_id"],
            user_id=row["user_id"],
        )
        holds[row["id"]] = hold
        for window in (f"m:{hold.minute}", f"d:{hold.day}", f"p:{hold.period}"):
            sums = held.setdefault(window, [0, 0, 0, 0])
            for index, amount in enumerate((1, hold.prompt, hold.output, hold.nano_usd)):
                sums[index] += amount
    empty = WindowState()
    counted = {
        name: WindowState(used.get(name, empty.used), tuple(held.get(name, empty.held)))
        for name in used.keys() | held.keys()
    }
    return CounterSnapshot({f"p:{name}": empty for name in periods} | counted, holds)


def names_at(calendar: Calendar, at_ms: int, periods: Sequence[Period] = ()) -> list[str]:
    """The fields of a moment's windows, in the order of `metering.quota.limits.WINDOWS`."""
    period = period_at(periods, at_ms, calendar)
    return [f"m:{minute_window(at_ms).name}", f"d:{calendar.day(at_ms).name}", f"p:{period.name}"]
