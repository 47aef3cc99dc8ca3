"""The `RateLimit` and `RateLimit-Policy` headers of a metered answer (IETF draft-ietf-httpapi-ratelimit-headers).

One item per limit: `"user-tokens-day";q=100000;w=86400;qu="tokens"`, and `"user-tokens-day";r=62000;t=3600`. Budgets
of tags and tokens follow: `"tag-feature-tokens-day"`, `"token-requests"`. The remainder counts this request's hold as
used. Limits of spend are left out where tenants do not see the provider's cost.
"""

from core.money import ceil_div
from metering.quota.budgets import Budget
from metering.quota.decision import budget_room
from metering.quota.limits import EffectiveLimit, Entitlement, Meter
from metering.quota.query import Grant
from metering.quota.windows import WindowKind

_WINDOW_S = {WindowKind.MINUTE: 60, WindowKind.DAY: 86_400}


def rate_limit_headers(grant: Grant, *, with_spend: bool = True) -> dict[str, str]:
    """Returns both headers; none when the user has no limits to show."""
    now_ms, limits = grant.request.opened_ms, grant.entitlement.limits
    shown: list[tuple[EffectiveLimit | Budget, int, int]] = [
        *zip(limits, grant.room, grant.window_ends_ms, strict=True),
        *((one.budget, budget_room(one), one.window.ends_ms) for one in grant.budgets),
    ]
    shown = [one for one in shown if with_spend or one[0].meter is not Meter.SPEND]
    if not shown:
        return {}
    states = [
        f'"{limit.name}";r={max(0, limit.room_in_unit(room))};t={max(0, ceil_div(ends_ms - now_ms, 1000))}'
        for limit, room, ends_ms in shown
    ]
    return {"ratelimit-policy": ", ".join(_policy_item(limit) for limit, _, _ in shown), "ratelimit": ", ".join(states)}


def refusal_headers(limit: EffectiveLimit | Budget, retry_after_s: int) -> dict[str, str]:
    """Returns both headers of a refusal: the limit that refused, with 0 remaining; none of spend."""
    if limit.meter is Meter.SPEND:
        return {}
    return {"ratelimit-policy": _policy_item(limit), "ratelimit": f'"{limit.name}";r=0;t={retry_after_s}'}


def policy(entitlement: Entitlement, *, with_spend: bool = True) -> str:
    """Returns the value of `RateLimit-Policy`."""
    shown = (limit for limit in entitlement.limits if with_spend or limit.meter is not Meter.SPEND)
    return ", ".join(_policy_item(limit) for limit in shown)


def _policy_item(limit: EffectiveLimit | Budget) -> str:
    """Returns the item of one limit. A billing period and a token's life have no fixed length, so they have no `w`."""
    window_s = None if limit.window is None else _WINDOW_S.get(limit.window)
    length = "" if window_s is None else f";w={window_s}"
    return f'"{limit.name}";q={limit.limit}{length};qu="{limit.unit}"'
