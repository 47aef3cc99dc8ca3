"""The windows and holds that Postgres has: of a tenant (snapshot.sql), or of many users at once (snapshot_users.sql).

Each read is one statement, so one snapshot. The periods are those of the tenant's schedule. A caller that writes the
result to Redis holds the tenant's lock, or writes only into a hash that was built under it: so a newer schedule cannot
have committed unseen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import msgspec

from core.clock import to_ms
from core.ids import uuid7_floor
from metering.counts import counts_in
from metering.quota.counters import HELD, Hold, ScopeCounters, WindowState
from metering.quota.schedule import Period, Schedule, period_at, periods_between, window_of
from metering.quota.windows import MINUTE_MS, Calendar, minute_window
from metering.sql import load


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """Windows by their fields in Redis (`m:`, `d:`, `p:`), and the holds of running requests."""

    windows: dict[str, WindowState]
    holds: dict[UUID, Hold]

    def counters(self, names: list[str]) -> ScopeCounters:
        """The counters of the named windows; a missing window is empty."""
        return ScopeCounters(len(self.holds), tuple(self.windows.get(name, WindowState()) for name in names))

    def fields(self) -> dict[str, Any]:
        """The fields of the hash, except the epoch and the run."""
        fields: dict[str, Any] = {name: window.pack() for name, window in self.windows.items()}
        fields |= {f"h:{request_id.hex}": hold.pack() for request_id, hold in self.holds.items()}
        fields["c"] = len(self.holds)
        fields["k"] = " ".join(sorted(self.windows))
        if self.holds:
            fields["x"] = min(hold.deadline_ms for hold in self.holds.values())
        return fields


@dataclass(frozen=True, slots=True)
class WindowRange:
    """The windows to read: minutes from an id on, days from a date on, and periods by name, with all their segments."""

    from_id: UUID
    from_day: date
    periods: tuple[str, ...]

    @classmethod
    def around(
        cls, calendar: Calendar, now_ms: int, *, periods: Sequence[Period] = (), around_ms: int = 0
    ) -> "WindowRange":
        """The windows of a moment, and of `around_ms` before and after it."""
        earliest, latest = now_ms - around_ms, now_ms + around_ms
        names = {window_of(part.name) for part in periods_between(periods, earliest, latest, calendar)}
        from_id = uuid7_floor(earliest // MINUTE_MS * MINUTE_MS)
        return cls(from_id, calendar.date_of(earliest), tuple(sorted(names)))


@dataclass(frozen=True, slots=True)
class UserQuery:
    """A user, and the windows to read."""

    tenant_id: UUID
    user_id: UUID
    windows: WindowRange


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
    """The windows of `now_ms` and of `around_ms` before and after it, and all holds. On an asyncpg connection."""
    windows = WindowRange.around(calendar, now_ms, periods=periods, around_ms=around_ms)
    if user_id is not None:
        query = UserQuery(tenant_id, user_id, windows)
        return (await read_user_snapshots(connection, [query]))[query]
    rows = await connection.fetch(load("snapshot"), tenant_id, windows.from_id, windows.from_day, list(windows.periods))
    return snapshot_of(rows, windows.periods)


async def read_user_snapshots(connection: Any, queries: Sequence[UserQuery]) -> dict[UserQuery, CounterSnapshot]:
    """The windows and holds of each user, in one statement on an asyncpg connection."""
    periods = [(number, name) for number, query in enumerate(queries, 1) for name in query.windows.periods]
    rows = await connection.fetch(
        load("snapshot_users"),
        [query.tenant_id for query in queries],
        [query.user_id for query in queries],
        [query.windows.from_id for query in queries],
        [query.windows.from_day for query in queries],
        [number for number, _ in periods],
        [name for _, name in periods],
    )
    of_user: dict[object, list[Any]] = {}
    for row in rows:  # a window has the number of its query; a hold has its user, who may have several queries
        whose = (row["tenant_id"], row["user_id"]) if row["number"] is None else row["number"]
        of_user.setdefault(whose, []).append(row)
    return {
        query: snapshot_of(
            of_user.get(number, []) + of_user.get((query.tenant_id, query.user_id), []),
            query.windows.periods,
        )
        for number, query in enumerate(queries, 1)
    }


def snapshot_of(rows: list[Any], periods: Sequence[str] = ()) -> CounterSnapshot:
    """Decodes the rows of the statements. Pure.

    Every one of `periods` gets a window, if only an empty one: so an interrupted period is known to be complete.
    """
    used: dict[str, tuple[int, ...]] = {}
    held: dict[str, list[int]] = {}
    holds: dict[UUID, Hold] = {}
    for row in rows:
        if row["kind"] != "h":
            used[f"{row['kind']}:{row['name']}"] = counts_in(row)
            continue
        hold = Hold(
            prompt=row["held_prompt_tokens"],
            output=row["held_output_tokens"],
            web_searches=row["held_web_searches"],
            nano_usd=row["held_nano_usd"],
            deadline_ms=to_ms(row["deadline_at"]),
            minute=int(row["name"]),
            day=row["day"].isoformat(),
            period=window_of(row["period_id"]),
            user_id=row["user_id"],
        )
        holds[row["id"]] = hold
        for window in hold.windows:
            sums = held.setdefault(window, [0] * len(HELD))
            for index, amount in enumerate(hold.amounts):
                sums[index] += amount
    empty = WindowState()
    counted = {
        name: WindowState(used.get(name, empty.used), tuple(held.get(name, empty.held)))
        for name in used.keys() | held.keys()
    }
    return CounterSnapshot({f"p:{name}": empty for name in periods} | counted, holds)


def names_at(calendar: Calendar, at_ms: int, periods: Sequence[Period] = ()) -> list[str]:
    """The fields of the windows of a moment, in the order of `metering.quota.limits.WINDOWS`."""
    part = period_at(periods, at_ms, calendar)
    return [f"m:{minute_window(at_ms).name}", f"d:{calendar.day(at_ms).name}", f"p:{window_of(part.name)}"]
