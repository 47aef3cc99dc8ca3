"""Budgets: limits on all requests of a tenant that have one tag, and those of a short-lived token. Pure.

Postgres alone knows what a budget's requests used and hold (`metering.budgets`); Redis has no counters of them. A
token's budget is a limit on its reserved tag (`metering.tags.tags.TOKEN_KEY`) in the token's life.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from core.tenancy.principal import Principal
from metering.quota.counters import WindowState
from metering.quota.limits import Limit, Meter, Metered
from metering.quota.windows import WindowKind
from metering.tags.tags import TOKEN_KEY, Tags

LIFE = "life"
"""The name of the window of a token's budget: all of its requests."""
Tag = tuple[str, str]
"""A key and a value."""
TagLimits = Mapping[Tag, tuple[Limit, ...]]
"""The limits of a tenant's tags."""


@dataclass(frozen=True, slots=True)
class Budget(Metered):
    """At most `limit` of `meter` in each `window` for the requests with this tag. Spend in micro-USD.

    `window` None: in the life of the token whose id is `value`. Read like an `EffectiveLimit`.
    """

    key: str
    value: str
    meter: Meter
    window: WindowKind | None
    limit: int
    prices: ClassVar[tuple[tuple[int, int], ...]] = ()

    @property
    def is_of_token(self) -> bool:
        """Whether it is a short-lived token's own."""
        return self.key == TOKEN_KEY

    @property
    def scope(self) -> str:
        """The owner of the limit, beside those of `limits.LimitScope`."""
        return "token" if self.is_of_token else "tag"

    @property
    def window_name(self) -> str:
        """The kind of its window, `LIFE` included."""
        return LIFE if self.window is None else self.window.value

    @property
    def name(self) -> str:
        """The name in the RateLimit headers and in refusals: `tag-feature-tokens-day`, `token-tokens`.

        It lacks the value, which may have any characters; a request has one value of a key.
        """
        meter = self.meter.value.replace("_", "-")
        return f"token-{meter}" if self.window is None else f"tag-{self.key}-{meter}-{self.window.value}"


@dataclass(frozen=True, slots=True)
class BudgetWindow:
    """The window of a budget at a moment. `name`: as rows name it (`metering/sql/budget_usage.sql`)."""

    budget: Budget
    name: str
    ends_ms: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget's window, and what is used and held in it."""

    window: BudgetWindow
    state: WindowState

    @property
    def budget(self) -> Budget:
        """The budget."""
        return self.window.budget


def budgets_of(principal: Principal, added_up: Tags, limits: TagLimits) -> tuple[Budget, ...]:
    """The budgets of a request with these tags that are added up: of its tags, then of its token."""
    of_tags = (budget for tag in added_up for budget in tag_budgets(tag, limits.get(tag, ())))
    return (*of_tags, *token_budgets(principal))


def tag_budgets(tag: Tag, limits: Iterable[Limit]) -> tuple[Budget, ...]:
    """The limits of a tag as budgets."""
    return tuple(Budget(*tag, limit.meter, limit.window, limit.limit) for limit in limits)


def token_budgets(principal: Principal) -> Iterable[Budget]:
    """The budgets of a short-lived token in its life."""
    return (Budget(TOKEN_KEY, principal.token_id, Meter(meter), None, limit) for meter, limit in principal.budget)
