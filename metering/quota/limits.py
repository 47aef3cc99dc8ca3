"""Limits, and which of them apply to a user. Pure.

A window is a vector of counts; a limit bounds a function of it (its meter). A user's limits and its tenant's are
checked together. A plan's defaults apply unless limits were set for the user or the tenant. Billing's bounds (a plan
that blocks at its allowance, a ceiling in money) apply on top in any case. Spend is set in micro-USD and counted in
nano-USD; a charge is set in paise and counted in their millionths.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from core.money import MAX_EXACT_DOUBLE, NANO_USD_PER_MICRO_USD, ceil_div
from core.tenancy.principal import Forbidden
from metering.quota.windows import WindowKind


class Meter(StrEnum):
    """The quantity that a limit bounds."""

    REQUESTS = "requests"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    CACHE_READ = "cache_read_tokens"
    CACHE_WRITE_5M = "cache_write_5m_tokens"
    CACHE_WRITE_1H = "cache_write_1h_tokens"
    SPEND = "spend"
    TOKENS = "tokens"
    CACHE_WRITE = "cache_write_tokens"
    WEB_SEARCHES = "web_searches"


class LimitScope(StrEnum):
    """The owner of a limit."""

    USER = "user"
    TENANT = "tenant"


class BillMeter(StrEnum):
    """The meter of a plan's ceiling: the unrounded charge for overage."""

    CHARGE = "charge"


METERS = tuple(Meter)
_CHARGE_INDEX = len(METERS) + 1
WINDOWS = tuple(WindowKind)
MAX_LIMIT = MAX_EXACT_DOUBLE // NANO_USD_PER_MICRO_USD
"""The largest limit: micro-USD that are still exact as nano-USD in Redis."""
PAISE = 1_000_000
"""A paisa in the counting unit of charges: a rate is paise per million units."""
MAX_CEILING_PAISE = MAX_EXACT_DOUBLE // PAISE
PRICED_CLASSES = (Meter.INPUT, Meter.CACHE_READ, Meter.CACHE_WRITE, Meter.OUTPUT, Meter.WEB_SEARCHES)
"""The order of `EffectiveLimit.prices`: the classes that a prompt can have, the output, and the searches."""
_PRICED = {*PRICED_CLASSES, Meter.SPEND}
_QUOTA_UNITS: dict[Meter | BillMeter, str] = {
    Meter.REQUESTS: "requests",
    Meter.SPEND: "micro-usd",
    Meter.WEB_SEARCHES: "searches",
    BillMeter.CHARGE: "paise",
}
_COUNTED_IN: dict[Meter | BillMeter, int] = {Meter.SPEND: NANO_USD_PER_MICRO_USD, BillMeter.CHARGE: PAISE}


def counting_unit(meter: Meter | BillMeter) -> int:
    """The counts of a window in one unit of a limit: 1,000 nano-USD in a micro-USD."""
    return _COUNTED_IN.get(meter, 1)


def quota_unit(meter: Meter | BillMeter) -> str:
    """The quota unit of a meter in the RateLimit-Policy header."""
    return _QUOTA_UNITS.get(meter, "tokens")


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


class PricedMeter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Overage: units beyond `allowance` cost `rate_paise` per million. Spend counts in micro-USD."""

    meter: Meter
    allowance: int
    rate_paise: int


class Ceiling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A period's overage may cost at most `paise`, before tax. Spend is priced alone or not at all.

    `is_wallet`: they are what a wallet holds. Not stored otherwise, so that an older process reads other ceilings.
    """

    paise: int
    meters: tuple[PricedMeter, ...]
    is_wallet: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a ceiling that cannot be counted."""
        priced = [one.meter for one in self.meters]
        if len(set(priced)) < len(priced) or not _PRICED.issuperset(priced):
            raise ValueError("a ceiling prices each meter of a plan once")
        if Meter.SPEND in priced and len(priced) > 1:
            raise ValueError("a plan prices spend instead of its classes")
        if not 0 <= self.paise <= MAX_CEILING_PAISE:
            raise ValueError(f"a ceiling is of 0 to {MAX_CEILING_PAISE} paise")
        if any(not 0 <= number <= MAX_LIMIT for one in self.meters for number in (one.allowance, one.rate_paise)):
            raise ValueError(f"allowances and rates are of 0 to {MAX_LIMIT}")


class PlanLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A plan's limits: defaults of each user and of the tenant, and bounds that apply to the tenant in any case.

    `features`: names of Feature, or of one that a newer version knows. `models`: names, or
    prefixes that end in `*`; None: all. Fields with defaults are not stored, so that an older process, which knows
    neither, reads the rows of plans that have none.
    """

    user: LimitSet = NO_LIMITS
    tenant: LimitSet = NO_LIMITS
    bounds: tuple[Limit, ...] = ()
    ceiling: Ceiling | None = None
    features: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None


def names_model(models: Sequence[str] | None, model: str) -> bool:
    """Whether one of a plan's names or prefixes (`PlanLimits.models`) is the model's."""
    return models is None or any(model.startswith(one[:-1]) if one.endswith("*") else model == one for one in models)


class Metered:
    """A limit on a meter, and the units of both."""

    __slots__ = ()
    meter: Meter | BillMeter
    limit: int

    @property
    def bound(self) -> int:
        """The limit in the unit that windows count in."""
        return self.limit * counting_unit(self.meter)

    @property
    def unit(self) -> str:
        """The quota unit of the RateLimit-Policy header."""
        return quota_unit(self.meter)

    def in_unit(self, counted: int) -> int:
        """A count in the unit of `limit`, rounded up."""
        return ceil_div(counted, counting_unit(self.meter))

    def room_in_unit(self, room: int) -> int:
        """The rest of a window in the unit of `limit`, rounded down."""
        return room // counting_unit(self.meter)

    def used_percent(self, used: int) -> int:
        """The used part of the limit, rounded down; 100 of a limit of 0."""
        return used * 100 // self.limit if self.limit else 100


@dataclass(frozen=True, slots=True)
class EffectiveLimit(Metered):
    """A limit as admission checks it; `bound` is in the meter's counting unit (nano-USD for spend).

    `prices`, only of a charge: (allowance, rate in paise per million) of each of PRICED_CLASSES. `is_wallet`: adding
    money raises it.
    """

    scope: LimitScope
    meter: Meter | BillMeter
    window: WindowKind
    limit: int
    prices: tuple[tuple[int, int], ...] = ()
    is_wallet: bool = False

    @property
    def name(self) -> str:
        """The name in the RateLimit headers and in refusals: `user-tokens-day`."""
        return f"{self.scope.value}-{self.meter.value.replace('_', '-')}-{self.window.value}"

    @property
    def packed(self) -> list[object]:
        """The limit for the Lua script: scope, window, meter, bound, and the prices of a charge."""
        scope, window = 1 if self.scope is LimitScope.USER else 2, WINDOWS.index(self.window) + 1
        if isinstance(self.meter, BillMeter):
            return [scope, window, _CHARGE_INDEX, self.bound, [number for pair in self.prices for number in pair]]
        return [scope, window, METERS.index(self.meter) + 1, self.bound]


@dataclass(frozen=True, slots=True)
class Entitlement:
    """A user's limits and its tenant's, the features and models that it may use, and the plan that all come from."""

    limits: tuple[EffectiveLimit, ...]
    user_concurrency: int | None
    tenant_concurrency: int | None
    plan_version: str | None
    packed: bytes
    """For the Lua script: MessagePack of [user concurrency, tenant concurrency, [[scope, window, meter, bound], ...]],
    with -1 for no bound, indexes into WINDOWS and METERS from 1, and the index after the METERS for a charge."""
    features: frozenset[str] = frozenset()
    models: tuple[str, ...] | None = None

    def allows_model(self, model: str) -> bool:
        """Whether one of the plan's names or prefixes is the model's."""
        return names_model(self.models, model)

    def require(self, model: str, features: Iterable[str]) -> None:
        """Raises Forbidden, with a code for programs, for a model or a feature that the plan does not have."""
        if not self.allows_model(model):
            raise Forbidden(f"Your plan does not include the model {model!r}.", code="model_not_in_plan")
        missing = sorted(set(features) - self.features)
        if missing:
            raise Forbidden(f"Your plan does not include {', '.join(missing)}.", code="feature_not_in_plan")


def resolve(
    plan: PlanLimits, *, user: LimitSet | None, tenant: LimitSet | None, plan_version: str | None
) -> Entitlement:
    """The entitlement of a user: limits set for it and its tenant, else the plan's, and billing's bounds."""
    for_user = plan.user if user is None else user
    for_tenant = plan.tenant if tenant is None else tenant
    limits = (
        *(EffectiveLimit(LimitScope.USER, one.meter, one.window, one.limit) for one in for_user.limits),
        *(EffectiveLimit(LimitScope.TENANT, one.meter, one.window, one.limit) for one in _bounded(for_tenant, plan)),
        *_ceiling(plan.ceiling),
    )
    packed = msgspec.msgpack.encode(
        [
            -1 if for_user.concurrency is None else for_user.concurrency,
            -1 if for_tenant.concurrency is None else for_tenant.concurrency,
            [limit.packed for limit in limits],
        ]
    )
    features = frozenset(plan.features)
    return Entitlement(
        limits, for_user.concurrency, for_tenant.concurrency, plan_version, packed, features, plan.models
    )


def _bounded(chosen: LimitSet, plan: PlanLimits) -> tuple[Limit, ...]:
    """The tenant's limits and billing's bounds; of two on the same meter and window, the tighter."""
    bounds = [*plan.bounds]
    if plan.ceiling is not None and (most := _most_spend(plan.ceiling)) is not None:
        bounds.append(Limit(Meter.SPEND, WindowKind.PERIOD, most))
    limits = list(chosen.limits)
    for bound in bounds:
        same = [at for at, limit in enumerate(limits) if (limit.meter, limit.window) == (bound.meter, bound.window)]
        if not same:
            limits.append(bound)
        elif bound.limit < limits[same[0]].limit:
            limits[same[0]] = bound
    return tuple(limits)


def _most_spend(ceiling: Ceiling) -> int | None:
    """The micro-USD that reach a ceiling on spend; None for a ceiling on tokens, or without a rate."""
    for one in ceiling.meters:
        if one.meter is Meter.SPEND and one.rate_paise > 0:
            return min(MAX_LIMIT, one.allowance + ceiling.paise * PAISE // one.rate_paise)
    return None


def _ceiling(ceiling: Ceiling | None) -> tuple[EffectiveLimit, ...]:
    """A ceiling on tokens as a limit; none when it could never be reached."""
    prices = {one.meter: (one.allowance, one.rate_paise) for one in ceiling.meters} if ceiling is not None else {}
    in_order = tuple(prices.get(meter, (0, 0)) for meter in PRICED_CLASSES)
    if ceiling is None or not any(rate for _, rate in in_order):
        return ()
    charge = LimitScope.TENANT, BillMeter.CHARGE, WindowKind.PERIOD, ceiling.paise, in_order
    return (EffectiveLimit(*charge, is_wallet=ceiling.is_wallet),)
