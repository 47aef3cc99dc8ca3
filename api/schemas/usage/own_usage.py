"""Shapes of a user's own usage and limits."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AliasPath, BaseModel, BeforeValidator, Field

from api.schemas.rows import Row
from api.schemas.usage.counts import Counts, DayUsage, counts
from api.schemas.usage.requests import State
from core.clock import to_datetime
from metering.admission.budget_status import BudgetStatus
from metering.admission.limit_status import UserLimitStatus
from metering.counts import COUNT_COLUMNS
from metering.quota.limits import Meter
from metering.reports.requests import RequestUsage


class UsageAnswer(BaseModel):
    """The sum, and its days."""

    totals: Counts
    days: list[DayUsage]

    @classmethod
    def of(cls, rows: Iterable[Any], *, with_cost: bool) -> Self:
        """The shape of rows (day, model, counts)."""
        days = [DayUsage(day=row.day, model=row.model, **counts(row)) for row in rows]
        sums = {name: sum(getattr(day, name) for day in days) for name in COUNT_COLUMNS}
        totals = Counts(**sums).shown(with_cost=with_cost)
        return cls(totals=totals, days=[day.shown(with_cost=with_cost) for day in days])


class OwnRequest(Counts):
    """One request of the key's user; its counts are 0 while it is open.

    `stop_reason` is the provider's, null for an answer that broke off. `granted_output_tokens`: the most output that
    limits allowed, with that of other models (advisors, fallbacks); an answer that reached its own part has the stop
    reason `max_tokens`.
    """

    id: UUID
    state: State
    outcome: str | None
    source: str | None
    model: str | None
    stop_reason: str | None
    granted_output_tokens: int | None
    opened_at: datetime | None
    settled_at: datetime | None

    @classmethod
    def of(cls, usage: RequestUsage) -> Self:
        """The shape of a request."""
        row, known = usage.row, usage.effective
        return cls(
            id=row["id"],
            state=row["state"],
            outcome=known.outcome,
            source=known.source,
            model=known.model or row["model_asked"],
            stop_reason=row["stop_reason"],
            granted_output_tokens=row["held_output_tokens"],
            opened_at=row["opened_at"],
            settled_at=row["settled_at"],
            **counts(known.total),
        )


class LimitedTag(BaseModel):
    """The tag that a limit is of."""

    key: str
    value: str


class LimitWindow(Row):
    """One limit: spend is in micro-USD, a charge (bounded by a plan's ceiling) in paise before tax.

    Of the user, of its tenant, of a `tag` of the request, or of the short-lived token in its life, at whose end it
    `resets_at`. `held` is reserved by running requests. Amounts of spend are null for a tenant, unless the operator
    shows the provider's cost; `used_percent` is there in any case.
    """

    scope: Literal["user", "tenant", "tag", "token"] = Field(validation_alias=AliasPath("limit", "scope"))
    meter: str = Field(validation_alias=AliasPath("limit", "meter"))
    window: Literal["minute", "day", "period", "life"] = Field(validation_alias=AliasPath("limit", "window"))
    limit: int | None = Field(validation_alias=AliasPath("limit", "limit"))
    used: int | None
    held: int | None
    remaining: int | None
    used_percent: int
    resets_at: Annotated[datetime, BeforeValidator(to_datetime)] = Field(validation_alias="resets_ms")
    tag: LimitedTag | None = None

    @classmethod
    def of_budget(cls, status: BudgetStatus) -> Self:
        """The shape of a budget of a tag or a token."""
        budget = status.budget
        return cls.model_validate(
            {
                "scope": budget.scope,
                "meter": budget.meter.value,
                "window": budget.window_name,
                "limit": budget.limit,
                "used": status.used,
                "held": status.held,
                "remaining": status.remaining,
                "used_percent": status.used_percent,
                "resets_at": status.resets_ms,
                "tag": None if budget.is_of_token else LimitedTag(key=budget.key, value=budget.value),
            }
        )

    def shown(self, *, with_cost: bool) -> Self:
        """Itself, or a copy without the provider's cost."""
        if with_cost or self.meter != Meter.SPEND:
            return self
        return self.model_copy(update=dict.fromkeys(("limit", "used", "held", "remaining")))


class Concurrency(BaseModel):
    """Requests at a time: `limit` null for no bound."""

    limit: int | None
    active: int


class LimitsAnswer(BaseModel):
    """The limits of a user, of its tenant, and of the caller's token and tags, and what its plan allows.

    `features` of the Messages API; `models`: names, or prefixes that end in `*`, and null for all.
    """

    windows: list[LimitWindow]
    concurrency: Concurrency
    features: list[str]
    models: list[str] | None

    @classmethod
    def of(cls, status: UserLimitStatus, budgets: Iterable[BudgetStatus], *, with_cost: bool) -> Self:
        """The shape of all limits' status, budgets last."""
        windows = [LimitWindow.of(limit) for limit in status.limits]
        windows += map(LimitWindow.of_budget, budgets)
        return cls(
            windows=[window.shown(with_cost=with_cost) for window in windows],
            concurrency=Concurrency(limit=status.concurrency, active=status.active),
            features=sorted(status.features),
            models=None if status.models is None else list(status.models),
        )
