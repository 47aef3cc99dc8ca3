"""Shapes of limits of a user, or of a tenant as a whole."""

from typing import Annotated, Self

import msgspec
from pydantic import AfterValidator, BaseModel, Field

from api.schemas.fields import Body, ConcurrencyLimit, LimitValue, example
from metering.admission.entitlements import LimitSource
from metering.quota.limits import METERS, WINDOWS, LimitSet, Meter
from metering.quota.windows import WindowKind


class LimitItem(Body):
    """At most `limit` of `meter` in each `window`; spend in micro-USD. With 0, every request is refused."""

    meter: Meter
    window: WindowKind
    limit: LimitValue


def once_each(limits: list[LimitItem]) -> list[LimitItem]:
    """The limits. Raises ValueError if two are of one meter and window."""
    if len({(item.meter, item.window) for item in limits}) < len(limits):
        raise ValueError("a meter has one limit in a window")
    return limits


class Limits(Body):
    """A set of limits. `concurrency`: the most requests at a time; null: any number."""

    model_config = example(
        limits=[
            {"meter": "tokens", "window": "day", "limit": 200_000},
            {"meter": "spend", "window": "period", "limit": 25_000_000},
        ],
        concurrency=4,
    )

    limits: Annotated[list[LimitItem], Field(max_length=len(METERS) * len(WINDOWS)), AfterValidator(once_each)]
    concurrency: ConcurrencyLimit | None = None

    def as_set(self) -> LimitSet:
        """Returns them as metering's type."""
        return msgspec.convert(self.model_dump(), LimitSet)


class LimitsSet(BaseModel):
    """The limits in force, and their source.

    `set`: limits of this user or tenant itself; `users`: set for all users of the tenant; `plan`: those of its plan;
    `default`: the tenant has no plan.
    """

    limits: list[LimitItem]
    concurrency: int | None
    source: LimitSource

    @classmethod
    def of(cls, limits: LimitSet, source: LimitSource) -> Self:
        """The shape of limits in metering's type."""
        return cls.model_validate({**msgspec.to_builtins(limits), "source": source})
