"""Shapes of usage reports: the query, the rows of the API, and the figures of the pages."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row

from api.schemas.usage.counts import Counts, UsageFilter
from billing.invoicing.report_prices import margin_paise, paise_of
from metering.counts import TOKEN_COLUMNS
from metering.reports.usage_report import RATED, SUMS, TAG_GROUP

Rows = Sequence[Row[*tuple[Any, ...]]]
_NUMBERS = frozenset({*SUMS, RATED})


class Group(StrEnum):
    """The groups of the pages' reports."""

    DAY = "day"
    USER = "user"
    KEY = "key"
    MODEL = "model"
    TENANT = "tenant"
    TAG = "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery(UsageFilter):
    """A report by any groups. `first` None: the first of the month; `last`, included, None: today.

    With `order`, the rows come by that sum, highest first; else by their groups. `named` adds names beside the ids.
    """

    first: date | None = None
    last: date | None = None
    group_by: Sequence[str] = ()
    order: str | None = None
    top: int | None = None
    named: bool = False


@dataclass(frozen=True, slots=True)
class UsageRows:
    """A report's days, its columns, and its rows in batches out of a cursor."""

    first: date
    last: date
    columns: list[str]
    batches: AsyncGenerator[Rows, None]

    def exact(self, row: Sequence[Any]) -> dict[str, Any]:
        """A row by its columns; Postgres's sums, which are decimals, as integers."""
        named = zip(self.columns, row, strict=True)
        return {name: int(value) if name in _NUMBERS and value is not None else value for name, value in named}


class ReportRow(Counts):
    """The sums of one group; only the columns of the groups asked for are there, and their names if wanted.

    `tag`: the value of the tag that is grouped by, null for usage without it.
    """

    tenant_id: UUID | None = None
    tenant_slug: str | None = None
    user_id: UUID | None = None
    external_id: str | None = None
    key_id: UUID | None = None
    key_name: str | None = None
    key_prefix: str | None = None
    model: str | None = None
    day: date | None = None
    month: date | None = None
    tag: str | None = None
    errors: int = 0
    rated_nano_paise: int = 0


class RefusalRow(BaseModel):
    """Refused requests of one group; only the columns of the groups asked for are there."""

    tenant_id: UUID | None = None
    tenant_slug: str | None = None
    day: date | None = None
    code: str | None = None
    requests: int = 0


class RefusalsFound(BaseModel):
    """All rows; `next` is always null."""

    items: list[RefusalRow]
    next: None = None


class Report(BaseModel):
    """All rows; `next` is always null."""

    items: list[ReportRow]
    next: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresQuery(UsageFilter):
    """A report by one group, sorted by a column in either direction."""

    first: date
    last: date
    group: Group
    order: str
    is_falling: bool
    by_tag: str = ""
    """The tag key of a report by tag."""

    @property
    def group_name(self) -> str:
        """The group as reports name it."""
        return f"{TAG_GROUP}{self.by_tag}" if self.group == Group.TAG else self.group.value

    @property
    def days(self) -> int:
        """The number of its days."""
        return (self.last - self.first).days + 1

    @property
    def is_narrowed(self) -> bool:
        """Whether it covers less than whole tenants, which bills are for."""
        return any(value is not None for value in (self.user_id, self.key_id, self.model, self.tag))


@dataclass(frozen=True, slots=True)
class Figures:
    """The sums of a row: the nine counts, errors among the requests, and the rated value."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    thinking_tokens: int = 0
    web_searches: int = 0
    cost_nano_usd: int = 0
    errors: int = 0
    rated_nano_paise: int = 0

    @classmethod
    def of(cls, row: Any, prefix: str = "") -> "Figures":
        """Of a row that has a column for each."""
        return cls(*(int(row[f"{prefix}{name}"]) for name in FIGURES))

    @property
    def tokens(self) -> int:
        """Of all classes."""
        return sum(self.by_class)

    @property
    def by_class(self) -> tuple[int, ...]:
        """The five classes of tokens."""
        return tuple(getattr(self, name) for name in TOKEN_COLUMNS)

    @property
    def rated_paise(self) -> int:
        """The rated value in whole paise."""
        return paise_of(self.rated_nano_paise)

    def margin_paise(self, paise_per_usd: int) -> int:
        """The rated value less the provider's cost."""
        return margin_paise(self.rated_nano_paise, self.cost_nano_usd, paise_per_usd)

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) + getattr(other, name) for name in FIGURES))

    def __sub__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) - getattr(other, name) for name in FIGURES))


FIGURES = tuple(each.name for each in fields(Figures))


@dataclass(frozen=True, slots=True)
class GroupName:
    """The name of a group, and what it belongs to; `label` is both, where a name alone is ambiguous."""

    name: str
    detail: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class FiguresRow:
    """One group; `key` is its id, its model or its day."""

    key: Any
    named: GroupName
    figures: Figures


@dataclass(frozen=True, slots=True)
class FiguresReport:
    """The shown rows, the number of all, and their sum.

    `tenant_id` is the tenant it is confined to (None: all), `names` are of what it is narrowed to, by the query's
    field; `billed_paise` is what whole tenants were billed in these days, for the operator alone; `refusals` are the
    requests refused to whole tenants, by the error's code.
    """

    rows: Sequence[FiguresRow] = ()
    groups: int = 0
    total: Figures = field(default_factory=Figures)
    tenant_id: UUID | None = None
    names: dict[str, str] = field(default_factory=dict)
    billed_paise: int = 0
    refusals: dict[str, int] = field(default_factory=dict)

    def others(self, shown: int | None = None) -> Figures:
        """The sum of all but the first `shown` rows, or of what is not in `rows`."""
        return self.total - sum((row.figures for row in self.rows[:shown]), Figures())
