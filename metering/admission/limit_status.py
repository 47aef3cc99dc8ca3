"""The status of each limit of a user: used, held, left, and when the window ends.

Read from Redis; from Postgres while Redis is unreachable or Postgres admits the tenant, and in an interrupted period,
whose field a hash may lack until the next grant. Postgres unreachable: the counters in Redis are shown as they are.
"""

import contextlib
from dataclasses import dataclass
from uuid import UUID

from core.clock import now_ms
from core.errors import Unavailable
from core.postgres.database import Connections
from metering.admission.entitlements import Entitlements
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_pipeline import RedisUnavailable
from metering.admission.redis_scripts import QuotaScripts
from metering.admission.snapshot import names_at, read_snapshot
from metering.quota.counters import ScopeCounters
from metering.quota.decision import measure
from metering.quota.limits import EffectiveLimit, LimitScope
from metering.quota.query import Retry
from metering.quota.schedule import Timeline, period_at, resumes
from metering.quota.windows import Calendar, Window, WindowKind, minute_window
from metering.sql import load

_TRIES = 4


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """One limit now. Spend in micro-USD, a charge in paise; `used` is rounded up, `remaining` is at least 0."""

    limit: EffectiveLimit
    used: int
    held: int
    remaining: int
    resets_ms: int

    @property
    def used_percent(self) -> int:
        """The used part of the limit, rounded down; 100 of a limit of 0."""
        return self.limit.used_percent(self.used)


@dataclass(frozen=True, slots=True)
class UserLimitStatus:
    """All limits, the user's running requests (`concurrency` None: no bound), and what its plan allows."""

    limits: tuple[LimitStatus, ...]
    concurrency: int | None
    active: int
    features: frozenset[str]
    models: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class LimitStatusReader:
    """Reads. One per process."""

    quota: QuotaScripts
    rebuilder: Rebuilder
    entitlements: Entitlements
    calendar: Calendar
    pool: Connections

    async def of(self, tenant_id: UUID, user_id: UUID) -> UserLimitStatus:
        """The status of the user's limits. Raises Unavailable."""
        least_epoch, in_fallback = await self._mode(tenant_id)
        timeline = await self.entitlements.of(tenant_id, user_id, least_epoch=least_epoch)
        at_ms = now_ms()
        entitlement = timeline.at(at_ms).entitlement
        windows = {
            WindowKind.MINUTE: minute_window(at_ms),
            WindowKind.DAY: self.calendar.day(at_ms),
            WindowKind.PERIOD: period_at(timeline.periods, at_ms, self.calendar),
        }
        names, counters = names_at(self.calendar, at_ms, timeline.periods), None
        if not in_fallback and not resumes(timeline.periods, windows[WindowKind.PERIOD], self.calendar):
            with contextlib.suppress(RedisUnavailable):
                counters = await self._from_redis(tenant_id, user_id, names, least_epoch, timeline)
        user, tenant = counters or await self._from_postgres(tenant_id, user_id, names, timeline, at_ms)
        return UserLimitStatus(
            tuple(
                _status_of(limit, user if limit.scope is LimitScope.USER else tenant, windows)
                for limit in entitlement.limits
            ),
            entitlement.user_concurrency,
            user.active,
            entitlement.features,
            entitlement.models,
        )

    async def _from_postgres(
        self, tenant_id: UUID, user_id: UUID, names: list[str], timeline: Timeline, at_ms: int
    ) -> tuple[ScopeCounters, ScopeCounters]:
        periods = timeline.periods
        async with self.pool.acquire() as connection:
            user = await read_snapshot(connection, self.calendar, tenant_id, user_id, at_ms, periods=periods)
            tenant = await read_snapshot(connection, self.calendar, tenant_id, None, at_ms, periods=periods)
        return user.counters(names), tenant.counters(names)

    async def _mode(self, tenant_id: UUID) -> tuple[int, bool]:
        """(the tenant's epoch, whether Postgres admits the tenant); (0, False) when Postgres is unreachable."""
        try:
            async with self.pool.acquire() as connection:
                row = await connection.fetchrow(load("fallback_mode"), tenant_id)
        except Unavailable:
            return 0, False
        return (0, False) if row is None else (row["epoch"], row["fallback_s"] is not None)

    async def _from_redis(
        self, tenant_id: UUID, user_id: UUID, names: list[str], least_epoch: int, timeline: Timeline
    ) -> tuple[ScopeCounters, ScopeCounters]:
        for _ in range(_TRIES):
            answer = await self.quota.read(tenant_id, user_id, names, least_epoch=least_epoch)
            if not isinstance(answer, Retry):
                return answer
            if await self.rebuilder.mend(tenant_id, user_id, answer, timeline=timeline) is not None:
                raise RedisUnavailable("Postgres admits this tenant")
        raise Unavailable("could not read stable counters; retry")


def _status_of(limit: EffectiveLimit, counters: ScopeCounters, windows: dict[WindowKind, Window]) -> LimitStatus:
    window = counters.windows[list(windows).index(limit.window)]
    used, held = measure(limit, window)
    return LimitStatus(
        limit,
        limit.in_unit(used),
        limit.in_unit(held),
        max(0, limit.room_in_unit(limit.bound - used - held)),
        windows[limit.window].ends_ms,
    )
