"""The limits and features of a tenant that has neither a plan nor limits of its own, so that none is unlimited. Pure.

They are settings (0: no bound) in the form of a plan's limits, so they apply in Redis, in Postgres and in `/v1/limits`
alike. A plan, or limits set for the user or the tenant, replace them.
"""

from core.settings import Settings
from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits
from metering.quota.windows import WindowKind


def default_limits(settings: Settings) -> PlanLimits:
    """The default limits of each user and of the tenant, and the features; every model is allowed."""
    return PlanLimits(
        user=_limits(
            Meter.REQUESTS,
            WindowKind.MINUTE,
            settings.default_user_requests_per_minute,
            settings.default_user_concurrency,
        ),
        tenant=_limits(
            Meter.SPEND,
            WindowKind.DAY,
            settings.default_tenant_spend_per_day_micro_usd,
            settings.default_tenant_concurrency,
        ),
        features=tuple(sorted(settings.default_features)),
    )


def _limits(meter: Meter, window: WindowKind, limit: int, concurrency: int) -> LimitSet:
    return LimitSet((Limit(meter, window, limit),) if limit else (), concurrency or None)
