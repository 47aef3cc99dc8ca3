"""Rebuilds the counters in Redis from Postgres, so that every grant is given on complete counts.

A tenant's hash is built under its lock: the epoch moves first, so every older grant that is not open yet bounces; then
settled and open requests are summed in one snapshot; then the hash is written, which only the newest epoch may do. The
hash of a user that was never built in this epoch needs no new epoch: nothing can be held for the user. A tenant that
Postgres admits is not built before its time has passed; the first build after that returns it to Redis.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from uuid import UUID

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.batched_reads import BatchedReads
from core.postgres.database import Connections
from core.resilience.cache import TtlCache
from core.resilience.deadline import unbounded
from metering.admission.redis_scripts import QuotaScripts
from metering.admission.snapshot import (
    CounterSnapshot,
    UserQuery,
    WindowRange,
    read_periods,
    read_snapshot,
    read_user_snapshots,
)
from metering.journal.journal import InFallback, states
from metering.quota.query import Mend, Retry
from metering.quota.schedule import Timeline
from metering.quota.windows import MINUTE_MS, Calendar
from metering.sql import load

_SKEW_MS = 2 * MINUTE_MS
"""Windows are built for this much around Redis's time, in case its clock steps, or a window ends while we read."""

log = get_logger(__name__)


class Rebuilder:
    """Builds the hashes that `QuotaScripts` found missing or stale. One per process."""

    def __init__(self, pool: Connections, quota: QuotaScripts, calendar: Calendar) -> None:
        self._pool = pool
        self._quota = quota
        self._calendar = calendar
        self._newest: TtlCache[UUID, int] = TtlCache(ttl_s=0)  # one read serves all refusals that wait for it
        self._users: BatchedReads[UserQuery, CounterSnapshot] = BatchedReads("users", pool, read_user_snapshots)
        self._building: dict[tuple[UUID, UUID | None], asyncio.Future[InFallback | None]] = {}

    async def mend(
        self, tenant_id: UUID, user_id: UUID, retry: Retry, *, timeline: Timeline | None = None
    ) -> InFallback | None:
        """Builds the counters that `retry` names: the user's, else the tenant's under a new epoch.

        Returns InFallback when Postgres admits the tenant, and nothing was built. Raises RedisUnavailable, Unavailable.
        """
        if retry.mend is Mend.USER:
            await self.build_user(tenant_id, user_id, retry.min_epoch, timeline=timeline)
            return None
        return await self.rebuild_tenant(tenant_id, retry.min_epoch - 1)

    async def rebuild_tenant(self, tenant_id: UUID, seen_epoch: int) -> InFallback | None:
        """Builds the tenant's hash under an epoch after `seen_epoch`, unless it has one. Results as in `mend`."""
        return await self._once((tenant_id, None), lambda: self._build_tenant(tenant_id, seen_epoch))

    async def build_user(self, tenant_id: UUID, user_id: UUID, epoch: int, *, timeline: Timeline | None = None) -> None:
        """Builds the hash of a user that has none in `epoch`. Raises RedisUnavailable, Unavailable.

        `timeline` names the periods if it was read in that epoch or later, which saves a statement.
        """
        await self._once((tenant_id, user_id), lambda: self._build_user(tenant_id, user_id, epoch, timeline))

    async def has_moved(self, tenant_id: UUID, seen_epoch: int) -> bool:
        """Whether the tenant's epoch is past `seen_epoch`: a refusal opens no row, so it cannot bounce.

        False when Postgres is unreachable: the refusal stands.
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
            task.exception()  # every waiter may have left: asyncio would log an exception that nobody read

    async def _build_tenant(self, tenant_id: UUID, seen_epoch: int) -> InFallback | None:
        run_id = await self._quota.pipeline.connect()
        built = await self._quota.epoch(tenant_id, run_id)
        if built is not None and built > seen_epoch:
            return None  # another rebuild was quicker; a new epoch would only bounce the grants since
        now_ms = await self._quota.now_ms()
        async with self._pool.acquire(patient=True) as connection, connection.transaction():  # sums a tenant's month
            epoch = await connection.fetchval(load("fallback_leave"), tenant_id, seen_epoch)
            if epoch is None:
                mode = await connection.fetchrow(load("fallback_mode"), tenant_id)
                return InFallback(mode["fallback_s"])
            periods = await read_periods(connection, tenant_id)
            snapshot = await read_snapshot(
                connection, self._calendar, tenant_id, None, now_ms, periods=periods, around_ms=_SKEW_MS
            )
        written = await self._quota.build_tenant(tenant_id, epoch, run_id, snapshot.fields())
        log.info("counters_rebuilt", tenant_id=str(tenant_id), epoch=epoch, seen=seen_epoch, written=written)
        await self._release(tenant_id, snapshot)
        return None

    async def _build_user(self, tenant_id: UUID, user_id: UUID, epoch: int, timeline: Timeline | None) -> None:
        run_id = await self._quota.pipeline.connect()
        now_ms = await self._quota.now_ms()
        if timeline is not None and timeline.read_epoch >= epoch:
            periods = timeline.periods
        else:  # an older one may lack a period that the user has used since
            async with self._pool.acquire(patient=True) as connection:
                periods = await read_periods(connection, tenant_id)
        windows = WindowRange.around(self._calendar, now_ms, periods=periods, around_ms=_SKEW_MS)
        snapshot = await self._users.get(UserQuery(tenant_id, user_id, windows))
        assert snapshot is not None  # noqa: S101 - every query has an answer
        await self._quota.build_user(tenant_id, user_id, epoch, run_id, snapshot.fields())
        await self._release(tenant_id, snapshot)

    async def _release(self, tenant_id: UUID, snapshot: CounterSnapshot) -> None:
        """Settles again what was settled after the snapshot: its settlement may have reached Redis before the hash."""
        if not snapshot.holds:
            return
        async with self._pool.acquire() as connection:
            known = await states(connection, [tenant_id] * len(snapshot.holds), list(snapshot.holds))
        await self._quota.settle_all(
            (tenant_id, request.user_id, request_id, request.counts)
            for request_id, request in known.items()
            if not request.holds
        )
