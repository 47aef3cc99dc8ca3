"""Shapes of the limits of a tag: budgets for a feature, a conversation, or any other declared key."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Self

import msgspec
from pydantic import AfterValidator, AliasPath, BaseModel, BeforeValidator, Field, StringConstraints

from api.schemas.accounts.limits import LimitItem, once_each
from api.schemas.fields import Body, example
from api.schemas.rows import Row
from core.clock import to_datetime
from metering.admission.budget_status import BudgetStatus
from metering.quota.limits import METERS, WINDOWS, Limit, Meter
from metering.quota.windows import WindowKind
from metering.tags.tags import MAX_VALUE_CHARS, checked

TagKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")]
TagValue = Annotated[str, StringConstraints(min_length=1, max_length=MAX_VALUE_CHARS)]


class NewTagLimits(Body):
    """The limits of all requests of a tenant with this tag, whose key is declared. They replace those before.

    Spend is in micro-USD. With 0, every request is refused.
    """

    model_config = example(
        key="feature", value="search", limits=[{"meter": "spend", "window": "day", "limit": 5_000_000}]
    )

    key: TagKey
    value: TagValue
    limits: Annotated[
        list[LimitItem], Field(min_length=1, max_length=len(METERS) * len(WINDOWS)), AfterValidator(once_each)
    ]

    @property
    def tag(self) -> tuple[str, str]:
        """The key and the value as requests store them. Raises Invalid."""
        ((key, value),) = checked([(self.key, self.value)])
        return key, value

    def as_limits(self) -> tuple[Limit, ...]:
        """Returns the limits as metering's type."""
        return msgspec.convert([item.model_dump() for item in self.limits], tuple[Limit, ...])


class BudgetItem(Row):
    """A limit of a tag now. Spend is in micro-USD; what is used of it is null for those who do not see the cost."""

    meter: Meter = Field(validation_alias=AliasPath("budget", "meter"))
    window: WindowKind = Field(validation_alias=AliasPath("budget", "window"))
    limit: int = Field(validation_alias=AliasPath("budget", "limit"))
    used: int | None
    held: int | None
    remaining: int | None
    used_percent: int
    resets_at: Annotated[datetime, BeforeValidator(to_datetime)] = Field(validation_alias="resets_ms")

    def shown(self, *, with_cost: bool) -> Self:
        """Itself, or a copy without the provider's cost."""
        if with_cost or self.meter != Meter.SPEND:
            return self
        return self.model_copy(update=dict.fromkeys(("used", "held", "remaining")))


class TagLimitItem(BaseModel):
    """A tag with limits, and what is used of each."""

    key: str
    value: str
    limits: list[BudgetItem]

    @classmethod
    def of(cls, key: str, value: str, statuses: Iterable[BudgetStatus], *, with_cost: bool) -> Self:
        """The shape of a tag's limits."""
        return cls(key=key, value=value, limits=[BudgetItem.of(one).shown(with_cost=with_cost) for one in statuses])
