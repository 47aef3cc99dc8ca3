"""Rebuilding the shadow in Redis from Postgres, so that no grant is ever given on counts that are not whole.

A tenant's hash is built under its lock: the epoch moves first, so every grant of an older epoch that is not open yet
bounces; then settled and open requests are summed in one snapshot; then the hash is written, which only the newest
epoch may. A user's hash that was never built in this epoch needs no new one: nothing can be held for it.
One rebuild serves all requests of this process that wait for it; users are read in batches
(`core.postgres.batched_reads`).

A tenant that Postgres admits (`metering.admission.postgres_grants`) is not built before its time has passed; the first
build after that is its way back to Redis.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.batched_reads import BatchedReads
from core.postgres.database import Connections
from core.resilience.cache import TtlCache
from core.resilience.deadline import unbounded
from metering.admission.redis_scripts import QuotaScripts
from metering.admission.snapshot import CounterSnapshot, UserQuery, read_periods, read_snapshot, read_user_snapshots
from metering.journal.journal import InFallback, states
from metering.quota.schedule import Timeline
from metering.quota.windows import MINUTE_MS, Calendar
from metering.sql import load

_SKEW_MS = 2 * MINUTE_MS
"""Windows are built for this much around Redis's time, so that a clock that steps, or a turn of the window while we
read, finds its window."""

log = get_logger(__name__)


class Rebuilder:
    """Builds what `Quota.admit` called stale. One per process."""

    def __init__(self, pool: Connections, quota: QuotaScripts, calendar: Calendar) -> None:
        self._pool = pool
        self._quota = quota
        self._calendar = calendar
        self._newest: TtlCache[UUID, int] = TtlCache(ttl_s=0)  # one reading serves all refusals that wait for it
        self._users: BatchedReads[UserQuery, CounterSnapshot] = BatchedReads("users", pool, read_user_snapshots)
        self._building: dict[tuple[UUID, UUID | None], asyncio.Future[InFallback | None]] = {}

    async def rebuild_tenant(self, tenant_id: UUID, seen_epoch: int) -> InFallback | None:
        """A new epoch and a whole hash of the tenant; or the answer that Postgres admits it, and nothing was built.

        Raises RedisAway, Unavailable.
        """
        return await self._once((tenant_id, None), lambda: self._build_tenant(tenant_id, seen_epoch))

    async def build_user(self, tenant_id: UUID, user_id: UUID, epoch: int, *, timeline: Timeline | None = None) -> None:
        """The hash of a user that has none in `epoch`. Raises RedisAway, Unavailable.

        `timeline` saves a statement, where it was read in that epoch or later: it names the periods.
        """
        await self._once((tenant_id, user_id), lambda: self._build_user(tenant_id, user_id, epoch, timeline))

    async def has_moved(self, tenant_id: UUID, seen_epoch: int) -> bool:
        """Whether Postgres knows better than counters of `seen_epoch`: a refusal opens nothing that could bounce.

        Away: nobody says so, and the refusal stands.
        """
        with contextlib.suppress(Unavailable):
            return await self._newest.load(tenant_id, lambda: self._read_epoch(tenant_id)) > seen_epoch
        return False

    async def _read_epoch(self, tenant_id: UUID) -> int:
        async with self._pool.acquire() as connection:
            mode = await connection.fetchrow(load("fallback_mode"), tenant_id)
        return 0 if mode is None else int(mode["epoch"])

    async def _once(
        self, key: tuple[UUID, UUID | None], build: Callable[[], Awaitable[InFallback | None]]
    ) -> InFallback | None:
        task = self._building.get(key)
        if task is None:
            with unbounded():  # a build that outlasts this caller's deadline is there for the next one
                task = asyncio.ensure_future(build())
            self._building[key] = task
            task.add_done_callback(lambda done: self._built(key, done))
        return await asyncio.shield(task)

    def _built(self, key: tuple[UUID, UUID | None], task: "asyncio.Future[InFallback | None]") -> None:
        del self._building[key]
        if not task.cancelled():
            task.exception()  # whoever waited may have left; then nobody else would ask for it

    async def _build_tenant(self, tenant_id: UUID, seen_epoch: int) -> InFallback | None:
        run_id = await self._quota.lane.connect()
        built = await self._quota.epoch(tenant_id, run_id)
        if built is not None and built > seen_epoch:
            return None  # somebody was quicker; another epoch would only bounce what was granted since
        now_ms = await self._quota.now_ms()
        async with self._pool.acquire(patient=True) as connection, connection.transaction():  # sums a tenant's month
            epoch = await connection.fetchval(load("fallback_leave"), tenant_id, seen_epoch)
            if epoch is None:
                mode = await connection.fetchrow(load("fallback_mode"), tenant_id)
                return InFallback(mode["fallback_s"])
            shadow = await self._read(connection, tenant_id, now_ms)
        written = await self._quota.build_tenant(tenant_id, epoch, run_id, shadow.fields())
        log.info("shadow_rebuilt", tenant_id=str(tenant_id), epoch=epoch, seen=seen_epoch, written=written)
        await self._release(tenant_id, shadow)
        return None

    async def _build_user(self, tenant_id: UUID, user_id: UUID, epoch: int, timeline: Timeline | None) -> None:
        run_id = await self._quota.lane.connect()
        now_ms = await self._quota.now_ms()
        if timeline is not None and timeline.read_epoch >= epoch:
            periods = timeline.periods
        else:  # older ones may lack a period that the user has used since
            async with self._pool.acquire(patient=True) as connection:
                periods = await read_periods(connection, tenant_id)
        ask = UserQuery.around(self._calendar, tenant_id, user_id, now_ms, periods=periods, around_ms=_SKEW_MS)
        shadow = await self._users.get(ask)
        assert shadow is not None  # noqa: S101 - every ask has an answer
        await self._quota.build_user(tenant_id, user_id, epoch, run_id, shadow.fields())
        await self._release(tenant_id, shadow)

    async def _read(self, connection: Any, tenant_id: UUID, now_ms: int) -> CounterSnapshot:
        periods = await read_periods(connection, tenant_id)
        return await read_snapshot(
            connection, self._calendar, tenant_id, None, now_ms, periods=periods, around_ms=_SKEW_MS
        )

    async def _release(self, tenant_id: UUID, shadow: CounterSnapshot) -> None:
        """Settles again what was settled after the snapshot: it may have told Redis before the hash was there."""
        if not shadow.holds:
            return
        async with self._pool.acquire() as connection:
            known = await states(connection, [tenant_id] * len(shadow.holds), list(shadow.holds))
        for request_id, request in known.items():
            if not request.holds:
                await self._quota.settle(tenant_id, request.user_id, request_id, request.counts)
