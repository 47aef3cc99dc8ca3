"""Where a user stands: each of its limits, what is used, held and left, and when the window turns.

Redis's hashes say it, after they were built where they are not whole; while Redis is away, or Postgres admits the
tenant, Postgres says it; and in a period that was interrupted, whose field the hashes may lack until the next grant.
Postgres away: Redis is believed as it is.
"""

from dataclasses import dataclass
from uuid import UUID

from core.clock import now_ms
from core.errors import Unavailable
from core.postgres.database import Connections
from metering.admission.entitlements import Entitlements
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_pipeline import RedisUnavailable
from metering.admission.redis_scripts import QuotaScripts, Stale
from metering.admission.snapshot import names_at, read_snapshot
from metering.quota.counters import ScopeCounters
from metering.quota.decision import measure
from metering.quota.limits import EffectiveLimit, LimitScope
from metering.quota.schedule import Timeline, period_at, resumes
from metering.quota.windows import Calendar, Window, WindowKind, minute_window
from metering.sql import load

_TRIES = 4


@dataclass(frozen=True, slots=True)
class LimitStatus:
    """One limit now. Spend in micro-USD, a charge in paise, used rounded up; `remaining` is not below 0."""

    limit: EffectiveLimit
    used: int
    held: int
    remaining: int
    resets_ms: int


@dataclass(frozen=True, slots=True)
class UserLimitStatus:
    """All limits, and the requests of the user that run now (`concurrency` None: no bound)."""

    limits: tuple[LimitStatus, ...]
    concurrency: int | None
    active: int


class LimitStatusReader:
    """Reads. One per process."""

    def __init__(
        self, quota: QuotaScripts, epochs: Rebuilder, entitlements: Entitlements, calendar: Calendar, pool: Connections
    ) -> None:
        self._quota = quota
        self._epochs = epochs
        self._entitlements = entitlements
        self._calendar = calendar
        self._pool = pool

    async def of(self, tenant_id: UUID, user_id: UUID) -> UserLimitStatus:
        """Where the user stands. Raises Unavailable."""
        least_epoch, in_fallback = await self._mode(tenant_id)
        timeline = await self._entitlements.of(tenant_id, user_id, least_epoch=least_epoch)
        at_ms = now_ms()
        entitlement = timeline.at(at_ms).entitlement
        windows = {
            WindowKind.MINUTE: minute_window(at_ms),
            WindowKind.DAY: self._calendar.day(at_ms),
            WindowKind.PERIOD: period_at(timeline.periods, at_ms, self._calendar),
        }
        if in_fallback or resumes(timeline.periods, at_ms, self._calendar):
            of_user, of_tenant = await self._from_postgres(tenant_id, user_id, timeline, at_ms)
        else:
            of_user, of_tenant = await self._read(tenant_id, user_id, timeline, at_ms, least_epoch)
        return UserLimitStatus(
            tuple(
                _standing(limit, of_user if limit.scope is LimitScope.USER else of_tenant, windows)
                for limit in entitlement.limits
            ),
            entitlement.user_concurrency,
            of_user.active,
        )

    async def _read(
        self, tenant_id: UUID, user_id: UUID, timeline: Timeline, at_ms: int, least_epoch: int
    ) -> tuple[ScopeCounters, ScopeCounters]:
        names = names_at(self._calendar, at_ms, timeline.periods)
        try:
            return await self._from_redis(tenant_id, user_id, names, least_epoch, timeline)
        except RedisUnavailable:
            return await self._from_postgres(tenant_id, user_id, timeline, at_ms)

    async def _from_postgres(
        self, tenant_id: UUID, user_id: UUID, timeline: Timeline, at_ms: int
    ) -> tuple[ScopeCounters, ScopeCounters]:
        periods = timeline.periods
        names = names_at(self._calendar, at_ms, periods)
        async with self._pool.acquire() as connection:
            user = await read_snapshot(connection, self._calendar, tenant_id, user_id, at_ms, periods=periods)
            tenant = await read_snapshot(connection, self._calendar, tenant_id, None, at_ms, periods=periods)
        return user.state(names), tenant.state(names)

    async def _mode(self, tenant_id: UUID) -> tuple[int, bool]:
        """What hash of the tenant would be whole, and whether Postgres admits it instead."""
        try:
            async with self._pool.acquire() as connection:
                row = await connection.fetchrow(load("fallback_mode"), tenant_id)
        except Unavailable:
            return 0, False
        return (0, False) if row is None else (row["epoch"], row["fallback_s"] is not None)

    async def _from_redis(
        self, tenant_id: UUID, user_id: UUID, names: list[str], least_epoch: int, timeline: Timeline
    ) -> tuple[ScopeCounters, ScopeCounters]:
        for _ in range(_TRIES):
            answer = await self._quota.read(tenant_id, user_id, names, least_epoch=least_epoch)
            if not isinstance(answer, Stale):
                return answer
            if answer.user_only:
                await self._epochs.build_user(tenant_id, user_id, answer.epoch, timeline=timeline)
            elif await self._epochs.rebuild_tenant(tenant_id, answer.epoch) is not None:
                raise RedisUnavailable("Postgres admits this tenant")
        raise Unavailable("the counters do not come to rest")


def _standing(limit: EffectiveLimit, state: ScopeCounters, windows: dict[WindowKind, Window]) -> LimitStatus:
    window = state.windows[list(windows).index(limit.window)]
    used, held = measure(limit, window)
    return LimitStatus(
        limit,
        limit.in_unit(used),
        limit.in_unit(held),
        max(0, limit.room_in_unit(limit.bound - used - held)),
        windows[limit.window].ends_ms,
    )
