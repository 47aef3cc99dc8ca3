"""What Postgres says of a tenant's windows and holds, or of one user's: one statement, one snapshot (shadow.sql).

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
from metering.journal import sql
from metering.schedule import Period, Schedule, period_at, periods_between
from metering.states import HashState, Hold, WindowState
from metering.windows import MINUTE_MS, Calendar, minute_window


@dataclass(frozen=True, slots=True)
class Shadow:
    """Windows by the names of Redis's fields (`m:`, `d:`, `p:`), and the holds of requests that run."""

    windows: dict[str, WindowState]
    holds: dict[UUID, Hold]

    def state(self, names: list[str]) -> HashState:
        """As the hash would say it; a window without a count is empty."""
        return HashState(len(self.holds), tuple(self.windows.get(name, WindowState()) for name in names))

    def fields(self) -> dict[str, Any]:
        """The hash's fields, but for the epoch and the run."""
        fields: dict[str, Any] = {name: state.pack() for name, state in self.windows.items()}
        fields |= {f"h:{request_id.hex}": hold.pack() for request_id, hold in self.holds.items()}
        fields["c"] = len(self.holds)
        fields["k"] = " ".join(sorted(self.windows))
        if self.holds:
            fields["x"] = min(hold.deadline_ms for hold in self.holds.values())
        return fields


async def read_periods(connection: Any, tenant_id: UUID) -> tuple[Period, ...]:
    """The periods of the tenant's schedule, on an asyncpg connection."""
    found = await connection.fetchval("SELECT schedule::text FROM entitlements WHERE tenant_id = $1", tenant_id)
    return () if found is None else msgspec.json.decode(found, type=Schedule).periods


async def read_shadow(
    connection: Any,
    calendar: Calendar,
    tenant_id: UUID,
    user_id: UUID | None,
    now_ms: int,
    *,
    periods: Sequence[Period] = (),
    around_ms: int = 0,
) -> Shadow:
    """The windows of `now_ms`, and those of `around_ms` before and after it; all holds. On an asyncpg connection.

    Its periods are there even if nothing was counted in them, so that one which was interrupted is known to be whole.
    """
    earliest, latest = now_ms - around_ms, now_ms + around_ms
    from_id = uuid7_floor(earliest // MINUTE_MS * MINUTE_MS)
    from_day: date = calendar.date_of(earliest)
    names = sorted({period.name for period in periods_between(periods, earliest, latest, calendar)})
    shadow = shadow_of(await connection.fetch(sql("shadow"), tenant_id, user_id, from_id, from_day, names))
    return Shadow({f"p:{name}": WindowState() for name in names} | shadow.windows, shadow.holds)


def shadow_of(rows: list[Any]) -> Shadow:
    """What the rows of shadow.sql say. Pure."""
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
    return Shadow(
        {
            name: WindowState(used.get(name, empty.used), tuple(held.get(name, empty.held)))
            for name in used.keys() | held.keys()
        },
        holds,
    )


def names_at(calendar: Calendar, at_ms: int, periods: Sequence[Period] = ()) -> list[str]:
    """The fields of a moment's windows, in the order of `metering.limits.WINDOWS`."""
    period = period_at(periods, at_ms, calendar)
    return [f"m:{minute_window(at_ms).name}", f"d:{calendar.day(at_ms).name}", f"p:{period.name}"]
