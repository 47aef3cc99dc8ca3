"""The counts of usage, as every answer has them, and what lists and reports are narrowed to."""

from dataclasses import dataclass
from datetime import date
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel

from api.schemas.moments import Day, Moment
from metering.counts import COUNT_COLUMNS, TOKEN_COLUMNS

COST = "cost_nano_usd"
"""The count that the operator may keep to itself (`ServiceContext.sees_cost`)."""


class Counts(BaseModel):
    """U: what was used. The token classes are disjoint; the cost is the provider's, in nano-USD.

    The cost is null for a tenant, unless the operator shows it. `thinking_tokens` are part of `output_tokens`, as the
    provider reported them.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    cost_nano_usd: int | None = 0

    def shown(self, *, with_cost: bool) -> Self:
        """Itself, or a copy without the provider's cost."""
        return self if with_cost else self.model_copy(update={COST: None})

    @property
    def tokens(self) -> int:
        """The sum of the token classes."""
        return sum(getattr(self, name) for name in TOKEN_COLUMNS)


class DayUsage(Counts):
    """One day of the operator, one model."""

    day: date
    model: str


def counts(row: Any) -> dict[str, int]:
    """The nine counts of a row, by the names of the API."""
    return {name: int(getattr(row, name)) for name in COUNT_COLUMNS}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """Whose usage, of which model; None filters nothing. `tenant` is an id or a slug, `tag` a key and its value."""

    tenant: UUID | str | None = None
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: str | None = None
    tag: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery(UsageFilter):
    """A list, newest first. A day as `until` is included; `before` is a cursor."""

    since: Moment | Day | None = None
    until: Moment | Day | None = None
    before: UUID | None = None
