"""What limits are, and which of them hold for a user: pure.

A window is a vector of counts; a limit is a bound on a function of it (its meter). A user's own limits and its
tenant's are checked at once. What a plan gives as default holds where nothing was set for the user or the tenant
itself. Spend is set in micro-USD and counted in nano-USD.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from core.money import MAX_EXACT_DOUBLE, NANO_USD_PER_MICRO_USD, ceil_div
from metering.windows import WindowKind


class Meter(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    CACHE_READ = "cache_read_tokens"
    CACHE_WRITE_5M = "cache_write_5m_tokens"
    CACHE_WRITE_1H = "cache_write_1h_tokens"
    SPEND = "spend"
    TOKENS = "tokens"
    CACHE_WRITE = "cache_write_tokens"


class LimitScope(StrEnum):
    """Whose limit it is."""

    USER = "user"
    TENANT = "tenant"


METERS = tuple(Meter)
WINDOWS = tuple(WindowKind)
MAX_LIMIT = MAX_EXACT_DOUBLE // NANO_USD_PER_MICRO_USD
"""The largest limit: as micro-USD it still is exact in nano-USD where Redis counts."""
_QUOTA_UNITS = {Meter.REQUESTS: "requests", Meter.SPEND: "micro-usd"}


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `limit` of `meter` in each `window`; spend in micro-USD."""

    meter: Meter
    window: WindowKind
    limit: int


class LimitSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of one user or tenant. `concurrency`: requests at a time, None for no bound."""

    limits: tuple[Limit, ...] = ()
    concurrency: int | None = None


NO_LIMITS = LimitSet()


class PlanLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a plan gives: the defaults of each user, and the tenant's own."""

    user: LimitSet = NO_LIMITS
    tenant: LimitSet = NO_LIMITS


@dataclass(frozen=True, slots=True)
class EffectiveLimit:
    """One limit as admission checks it; `bound` is in the meter's counting unit (nano-USD for spend)."""

    scope: LimitScope
    meter: Meter
    window: WindowKind
    limit: int

    @property
    def bound(self) -> int:
        """The limit in the unit that windows count in."""
        return self.limit * NANO_USD_PER_MICRO_USD if self.meter is Meter.SPEND else self.limit

    @property
    def name(self) -> str:
        """Its name in the RateLimit headers and in refusals: `user-tokens-day`."""
        return f"{self.scope.value}-{self.meter.value.replace('_', '-')}-{self.window.value}"

    @property
    def unit(self) -> str:
        """The quota unit of the RateLimit-Policy header."""
        return _QUOTA_UNITS.get(self.meter, "tokens")

    def in_unit(self, counted: int) -> int:
        """A count of the window in the unit of `limit`, spend rounded up: the part of a micro-USD is used."""
        return ceil_div(counted, NANO_USD_PER_MICRO_USD) if self.meter is Meter.SPEND else counted

    def room_in_unit(self, room: int) -> int:
        """What is left of the window, in the unit of `limit`, rounded down."""
        return room // NANO_USD_PER_MICRO_USD if self.meter is Meter.SPEND else room


@dataclass(frozen=True, slots=True)
class Entitlement:
    """All that admission needs to know of a user: its limits and its tenant's, and the plan they come from."""

    limits: tuple[EffectiveLimit, ...]
    user_concurrency: int | None
    tenant_concurrency: int | None
    plan_version: str | None
    packed: bytes
    """The same for the Lua script: MessagePack of [user concurrency, tenant concurrency, [[scope, window, meter,
    bound], ...]], with -1 for no bound and indexes into WINDOWS and METERS from 1."""


def resolve(
    plan: PlanLimits, *, user: LimitSet | None, tenant: LimitSet | None, plan_version: str | None
) -> Entitlement:
    """What holds for a user: what was set for it and for its tenant, else what the plan gives."""
    for_user = plan.user if user is None else user
    for_tenant = plan.tenant if tenant is None else tenant
    limits = tuple(
        EffectiveLimit(scope, limit.meter, limit.window, limit.limit)
        for scope, chosen in ((LimitScope.USER, for_user), (LimitScope.TENANT, for_tenant))
        for limit in chosen.limits
    )
    packed = msgspec.msgpack.encode(
        [
            -1 if for_user.concurrency is None else for_user.concurrency,
            -1 if for_tenant.concurrency is None else for_tenant.concurrency,
            [
                [
                    1 if limit.scope is LimitScope.USER else 2,
                    WINDOWS.index(limit.window) + 1,
                    METERS.index(limit.meter) + 1,
                    limit.bound,
                ]
                for limit in limits
            ],
        ]
    )
    return Entitlement(limits, for_user.concurrency, for_tenant.concurrency, plan_version, packed)
