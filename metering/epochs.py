"""Rebuilding the shadow in Redis from Postgres, so that no grant is ever given on counts that are not whole.

A tenant's hash is built under its lock: the epoch moves first, so every grant of an older epoch that is not open yet
bounces; then settled and open requests are summed in one snapshot; then the hash is written, which only the newest
epoch may. A user's hash that was never built in this epoch needs no new one: nothing can be held for it.
One rebuild serves all requests of this process that wait for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from core.clock import to_ms
from core.database import Connections
from core.ids import uuid7_floor
from core.logs import get_logger
from metering.journal import sql
from metering.quota import Hold, Quota, WindowState
from metering.windows import MINUTE_MS, Calendar

_SKEW_MS = 2 * MINUTE_MS
"""Windows are built for this much around Redis's time, so that a clock that steps, or a turn of the window while we
read, finds its window."""

log = get_logger(__name__)


class Epochs:
    """Builds what `Quota.admit` called stale. One per process."""

    def __init__(self, pool: Connections, quota: Quota, calendar: Calendar) -> None:
        self._pool = pool
        self._quota = quota
        self._calendar = calendar
        self._building: dict[tuple[UUID, UUID | None], asyncio.Task[None]] = {}

    async def rebuild_tenant(self, tenant_id: UUID, seen_epoch: int) -> None:
        """A new epoch and a whole hash of the tenant. Raises Unavailable."""
        await self._once((tenant_id, None), lambda: self._build_tenant(tenant_id, seen_epoch))

    async def build_user(self, tenant_id: UUID, user_id: UUID, epoch: int) -> None:
        """The hash of a user that has none in `epoch`. Raises Unavailable."""
        await self._once((tenant_id, user_id), lambda: self._build_user(tenant_id, user_id, epoch))

    async def _once(self, key: tuple[UUID, UUID | None], build: Callable[[], Awaitable[None]]) -> None:
        task = self._building.get(key)
        if task is None:
            task = asyncio.ensure_future(build())
            self._building[key] = task
            task.add_done_callback(lambda _: self._building.pop(key, None))
        await asyncio.shield(task)

    async def _build_tenant(self, tenant_id: UUID, seen_epoch: int) -> None:
        run_id = await self._quota.lane.connect()
        built = await self._quota.epoch(tenant_id, run_id)
        if built is not None and built > seen_epoch:
            return  # somebody was quicker; another epoch would only bounce what was granted since
        now_ms = await self._quota.now_ms()
        async with self._pool.acquire() as connection, connection.transaction():
            epoch = await connection.fetchval(sql("bump_epoch"), tenant_id, seen_epoch)
            rows = await self._shadow(connection, tenant_id, None, now_ms)
        written = await self._quota.build_tenant(tenant_id, epoch, run_id, fields_of(rows))
        log.info("shadow_rebuilt", tenant_id=str(tenant_id), epoch=epoch, seen=seen_epoch, written=written)

    async def _build_user(self, tenant_id: UUID, user_id: UUID, epoch: int) -> None:
        run_id = await self._quota.lane.connect()
        now_ms = await self._quota.now_ms()
        async with self._pool.acquire() as connection:
            rows = await self._shadow(connection, tenant_id, user_id, now_ms)
        await self._quota.build_user(tenant_id, user_id, epoch, run_id, fields_of(rows))

    async def _shadow(self, connection: Any, tenant_id: UUID, user_id: UUID | None, now_ms: int) -> list[Any]:
        earliest, latest = now_ms - _SKEW_MS, now_ms + _SKEW_MS
        periods = {self._calendar.month(at).name for at in (earliest, now_ms, latest)}
        rows: list[Any] = await connection.fetch(
            sql("shadow"),
            tenant_id,
            user_id,
            uuid7_floor(earliest // MINUTE_MS * MINUTE_MS),
            self._calendar.date_of(earliest),
            sorted(periods),
        )
        return rows


def fields_of(rows: list[Any]) -> dict[str, Any]:
    """The hash that the rows of shadow.sql describe. Pure."""
    used: dict[str, tuple[int, ...]] = {}
    held: dict[str, list[int]] = {}
    fields: dict[str, Any] = {}
    deadlines = []
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
        fields[f"h:{row['id'].hex}"] = hold.pack()
        deadlines.append(hold.deadline_ms)
        for window in (f"m:{hold.minute}", f"d:{hold.day}", f"p:{hold.period}"):
            sums = held.setdefault(window, [0, 0, 0, 0])
            for index, amount in enumerate((1, hold.prompt, hold.output, hold.nano_usd)):
                sums[index] += amount
    for window in used.keys() | held.keys():
        state = WindowState(used.get(window, WindowState().used), tuple(held.get(window, (0, 0, 0, 0))))
        fields[window] = state.pack()
    fields["c"] = len(deadlines)
    fields["k"] = " ".join(sorted(used.keys() | held.keys()))
    if deadlines:
        fields["x"] = min(deadlines)
    return fields
