"""Shapes of a user's own usage and limits."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AliasPath, BaseModel, BeforeValidator, Field

from api.schemas.rows import Row
from api.schemas.usage.counts import Counts, DayUsage, counts
from core.clock import to_datetime
from metering.admission.limit_status import UserLimitStatus
from metering.counts import COUNT_COLUMNS
from metering.quota.windows import WindowKind


class UsageAnswer(BaseModel):
    """The sum, and its days."""

    totals: Counts
    days: list[DayUsage]

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """The shape of rows (day, model, counts)."""
        days = [DayUsage(day=row.day, model=row.model, **counts(row)) for row in rows]
        sums = {name: sum(getattr(day, name) for day in days) for name in COUNT_COLUMNS}
        return cls(totals=Counts(**sums), days=days)


class LimitWindow(Row):
    """One limit: spend is in micro-USD, a charge (bounded by a plan's ceiling) in paise before tax.

    `held` is reserved by running requests.
    """

    scope: Literal["user", "tenant"] = Field(validation_alias=AliasPath("limit", "scope"))
    meter: str = Field(validation_alias=AliasPath("limit", "meter"))
    window: WindowKind = Field(validation_alias=AliasPath("limit", "window"))
    limit: int = Field(validation_alias=AliasPath("limit", "limit"))
    used: int
    held: int
    remaining: int
    resets_at: Annotated[datetime, BeforeValidator(to_datetime)] = Field(validation_alias="resets_ms")


class Concurrency(BaseModel):
    """Requests at a time: `limit` null for no bound."""

    limit: int | None
    active: int


class LimitsAnswer(BaseModel):
    """The limits of a user and of its tenant."""

    windows: list[LimitWindow]
    concurrency: Concurrency

    @classmethod
    def of(cls, status: UserLimitStatus) -> Self:
        """The shape of all limits' status."""
        return cls(
            windows=[LimitWindow.of(limit) for limit in status.limits],
            concurrency=Concurrency(limit=status.concurrency, active=status.active),
        )
