"""Where a user stands: each of its limits, what is used, held and left, and when the window turns.

Redis's hashes say it, after they were built where they are not whole; while Redis is away, or Postgres admits the
tenant, Postgres says it. Postgres away: Redis is believed as it is.
"""

from dataclasses import dataclass
from uuid import UUID

from core.clock import now_ms
from core.database import Connections
from core.errors import Unavailable
from metering.entitlements import Entitlements
from metering.epochs import Epochs
from metering.journal import sql
from metering.judge import count
from metering.limits import EffectiveLimit, LimitScope
from metering.quota import Quota, Stale
from metering.redis_lane import RedisAway
from metering.shadow import names_at, read_shadow
from metering.states import HashState
from metering.windows import Calendar, Window, WindowKind, minute_window

_TRIES = 4


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """One limit now. Spend in micro-USD, used rounded up; `remaining` is not below 0."""

    limit: EffectiveLimit
    used: int
    held: int
    remaining: int
    resets_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """All limits, and the requests of the user that run now (`concurrency` None: no bound)."""

    limits: tuple[LimitStanding, ...]
    concurrency: int | None
    active: int


class Standings:
    """Reads. One per process."""

    def __init__(
        self, quota: Quota, epochs: Epochs, entitlements: Entitlements, calendar: Calendar, pool: Connections
    ) -> None:
        self._quota = quota
        self._epochs = epochs
        self._entitlements = entitlements
        self._calendar = calendar
        self._pool = pool

    async def of(self, tenant_id: UUID, user_id: UUID) -> Standing:
        """Where the user stands. Raises Unavailable."""
        entitlement = await self._entitlements.of(tenant_id, user_id)
        at_ms = now_ms()
        windows = {
            WindowKind.MINUTE: minute_window(at_ms),
            WindowKind.DAY: self._calendar.day(at_ms),
            WindowKind.PERIOD: self._calendar.month(at_ms),
        }
        of_user, of_tenant = await self._read(tenant_id, user_id, at_ms)
        return Standing(
            tuple(
                _standing(limit, of_user if limit.scope is LimitScope.USER else of_tenant, windows)
                for limit in entitlement.limits
            ),
            entitlement.user_concurrency,
            of_user.active,
        )

    async def _read(self, tenant_id: UUID, user_id: UUID, at_ms: int) -> tuple[HashState, HashState]:
        names = names_at(self._calendar, at_ms)
        least_epoch, in_fallback = await self._mode(tenant_id)
        if not in_fallback:
            try:
                return await self._from_redis(tenant_id, user_id, names, least_epoch)
            except RedisAway:
                pass
        async with self._pool.acquire() as connection:
            user = await read_shadow(connection, self._calendar, tenant_id, user_id, at_ms)
            tenant = await read_shadow(connection, self._calendar, tenant_id, None, at_ms)
        return user.state(names), tenant.state(names)

    async def _mode(self, tenant_id: UUID) -> tuple[int, bool]:
        """What hash of the tenant would be whole, and whether Postgres admits it instead."""
        try:
            async with self._pool.acquire() as connection:
                row = await connection.fetchrow(sql("fallback_mode"), tenant_id)
        except Unavailable:
            return 0, False
        return (0, False) if row is None else (row["epoch"], row["fallback_s"] is not None)

    async def _from_redis(
        self, tenant_id: UUID, user_id: UUID, names: list[str], least_epoch: int
    ) -> tuple[HashState, HashState]:
        for _ in range(_TRIES):
            answer = await self._quota.read(tenant_id, user_id, names, least_epoch=least_epoch)
            if not isinstance(answer, Stale):
                return answer
            if answer.user_only:
                await self._epochs.build_user(tenant_id, user_id, answer.epoch)
            elif await self._epochs.rebuild_tenant(tenant_id, answer.epoch) is not None:
                raise RedisAway("Postgres admits this tenant")
        raise Unavailable("the counters do not come to rest")


def _standing(limit: EffectiveLimit, state: HashState, windows: dict[WindowKind, Window]) -> LimitStanding:
    window = state.windows[list(windows).index(limit.window)]
    used, held = count(limit.meter, window)
    return LimitStanding(
        limit,
        limit.in_unit(used),
        limit.in_unit(held),
        max(0, limit.room_in_unit(limit.bound - used - held)),
        windows[limit.window].ends_ms,
    )
