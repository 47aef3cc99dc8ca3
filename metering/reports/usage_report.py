"""Usage reports: sums by any groups, from the smallest rollup that has them. Never from the request rows.

A report reads `usage_by_day` if it neither groups nor filters by users or keys; else `usage_monthly` for whole months
and `usage_daily` for the days outside them, if it does not group by day; else `usage_daily`. A report by a tag reads
`usage_by_tag`; what has no such tag is the rest of `usage_by_day`, so that the rows add up. It is a SELECT, to be run
from a cursor. Metering knows no prices: billing passes `rates`, the price of a million units in each tenant's period.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import add
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Label, Select, Subquery, Text, func, null, or_, select, union_all

from core.errors import Invalid
from core.tenancy.models import ApiKey, Tenant, User
from metering.counts import LATER_COLUMNS, REPORTED_COLUMNS, TOKEN_COLUMNS
from metering.models import UsageByDay, UsageByTag, UsageDaily, UsageMonthly

GROUP_COLUMNS = {
    "tenant": "tenant_id",
    "user": "user_id",
    "key": "key_id",
    "model": "model",
    "day": "day",
    "month": "month",
}
"""The column of each group."""
GROUPS = tuple(GROUP_COLUMNS)
"""The groups that a report can be grouped by."""
SUMS = REPORTED_COLUMNS
RATED = "rated_nano_paise"
TAG_GROUP = "tag:"
"""The start of a group by the values of a tag: `tag:feature`. Its column is `tag`."""
_FIRST_SUMS = tuple(name for name in SUMS if name not in LATER_COLUMNS)
RATED_SUMS = (*_FIRST_SUMS, RATED, *LATER_COLUMNS)
"""The sums and the rated value, in the order of the columns of a report with rates."""
ORDERS = (*SUMS, "tokens", RATED)
"""The columns that a report can be ordered by, largest first."""

RATES = ("input_rate", "output_rate", "cache_read_rate", "cache_write_rate", "spend_rate", "web_search_rate")
"""The columns of a table of rates, beside `tenant_id` and `period_id`: paise per million units, or NULL.

In the order of `billing.rating.overage.Meter`.
"""

_PERSONAL = frozenset({"user", "key"})
_NOT_BY_TAG = ("user", "key", "model")
_NANO_PAISE = 1000
"""Nano-paise per unit, for a rate of one paise per million units."""
_NAMED: dict[str, tuple[Any, tuple[Label[Any], ...]]] = {
    "tenant": (Tenant, (Tenant.slug.label("tenant_slug"),)),
    "user": (User, (User.external_id.label("external_id"),)),
    "key": (ApiKey, (ApiKey.name.label("key_name"), ApiKey.prefix.label("key_prefix"))),
}
"""The table that has the names of a group, and the columns that a named report shows."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The report to make, for the operator's days `first` to `last`, both included; None filters nothing.

    With `today`, a range that ends today counts the current month as whole. With `order`, the rows are ordered by that
    sum, largest first, at most `top`; else by their groups. `tag`: only requests with this key and value.

    Raises Invalid for a tag beside users, keys or models, or beside another tag.
    """

    first: date
    last: date
    group_by: Sequence[str] = ()
    tenant_id: UUID | None = None
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: str | None = None
    order: str | None = None
    top: int | None = None
    today: date | None = None
    named: bool = False
    tag: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        tags = [*(group for group in self.group_by if group.startswith(TAG_GROUP)), *([self.tag] if self.tag else [])]
        filters = (self.user_id, self.key_id, self.model)
        if tags and (set(_NOT_BY_TAG) & set(self.group_by) or any(value is not None for value in filters)):
            raise Invalid("a report by a tag cannot have users, keys or models: they are not added up by tag")
        if len(tags) > 1:
            raise Invalid("a report has one tag, as a group or as a filter")

    @property
    def columns(self) -> list[str]:
        """The names of the columns that `query` selects, given rates."""
        named = [_NAMED[group][1] for group in self.group_by if self.named and group in _NAMED]
        names = [label.name for labels in named for label in labels]
        return [*(column_of(group) for group in self.group_by), *names, *RATED_SUMS]

    def query(self, rates: FromClause | None = None) -> Select[*tuple[Any, ...]]:
        """The SELECT: `columns`, with the rated value in nano-paise if there are `rates`."""
        summed = self._summed(rates)
        if self.named and self.top is not None:
            summed = select(summed).order_by(*self._ordered(summed)).limit(self.top).subquery("shown")
        query = self._with_names(summed) if self.named else select(summed)
        return query.order_by(*self._ordered(summed)).limit(self.top)

    def _ordered(self, summed: Subquery) -> list[ColumnElement[Any]]:
        groups: list[ColumnElement[Any]] = [summed.c[column_of(group)] for group in self.group_by]
        if self.order is None:
            return groups
        return [sum_of(summed, self.order).desc(), *groups]

    def _summed(self, rates: FromClause | None) -> Subquery:
        rows = self._rows().subquery("usage")
        parts = rows if rates is None else self._by_rates(rows, rates)
        groups = [parts.c[column_of(group)] for group in self.group_by]
        units = {name: parts.c[name] for name in SUMS} | ({} if rates is None else {RATED: _rated(parts)})
        sums: list[ColumnElement[Any]] = [
            func.coalesce(func.sum(units[name]), 0).label(name) for name in RATED_SUMS if name in units
        ]
        query = select(*groups, *sums).group_by(*groups)
        if self._tag_key is not None:  # where all requests have the tag, nothing is left without it
            query = query.having(or_(*(func.sum(parts.c[name]) != 0 for name in SUMS)))
        return query.subquery("report")

    def _by_rates(self, rows: Subquery, rates: FromClause) -> Subquery:
        """Sums per set of rates, so that a price is computed from a few sums and not from each row."""
        per_million = [rates.c[name].label(name) for name in RATES]
        groups = [rows.c[column_of(group)] for group in self.group_by]
        sums = [func.sum(rows.c[name]).label(name) for name in SUMS]
        on = (rates.c.tenant_id == rows.c.tenant_id) & (rates.c.period_id == rows.c.period_id)
        joined = rows.outerjoin(rates, on)
        return (
            select(*groups, *per_million, *sums).select_from(joined).group_by(*groups, *per_million).subquery("parts")
        )

    def _rows(self) -> Any:
        """The rows of the range, from the smallest rollup."""
        if self._tag_key is not None or self.tag is not None:
            return self._rows_by_tag()
        by_person = bool(_PERSONAL & set(self.group_by)) or self.user_id is not None or self.key_id is not None
        if not by_person:
            return self._select(UsageByDay, UsageByDay.day, self.first, self.last)
        months = None if "day" in self.group_by else whole_months(self.first, self.last, self.today)
        if months is None:
            return self._select(UsageDaily, UsageDaily.day, self.first, self.last)
        begin, end = months
        parts = [self._select(UsageMonthly, UsageMonthly.month, begin, end)]
        if self.first < begin:
            parts.append(self._select(UsageDaily, UsageDaily.day, self.first, begin - timedelta(days=1)))
        if end < self.last:
            parts.append(self._select(UsageDaily, UsageDaily.day, end + timedelta(days=1), self.last))
        return union_all(*parts)

    def _select(self, table: Any, day: Any, first: date, last: date) -> Select[*tuple[Any, ...]]:
        query = select(*self._groups(table, day, None), *(getattr(table, name) for name in SUMS))
        query = query.where(day.between(first, last))
        for name in ("tenant_id", "user_id", "key_id", "model"):
            value = getattr(self, name)
            if value is not None:
                query = query.where(getattr(table, name) == value)
        return query

    def _rows_by_tag(self) -> Any:
        """The rows of a tag: by its values and, without a tag, all usage less that of all values; or of one value."""
        day = UsageByTag.day
        if self.tag is not None:
            return self._select(UsageByTag, day, self.first, self.last).where(
                UsageByTag.tag_key == self.tag[0], UsageByTag.tag_value == self.tag[1]
            )
        is_tagged: list[ColumnElement[bool]] = [UsageByTag.tag_key == self._tag_key, day.between(self.first, self.last)]
        if self.tenant_id is not None:
            is_tagged.append(UsageByTag.tenant_id == self.tenant_id)
        counted = [getattr(UsageByTag, name).label(name) for name in SUMS]
        negated = [(-getattr(UsageByTag, name)).label(name) for name in SUMS]
        return union_all(
            select(*self._groups(UsageByTag, day, UsageByTag.tag_value), *counted).where(*is_tagged),
            select(*self._groups(UsageByTag, day, None), *negated).where(*is_tagged),
            self._select(UsageByDay, UsageByDay.day, self.first, self.last),
        )

    @property
    def _tag_key(self) -> str | None:
        return next((group.removeprefix(TAG_GROUP) for group in self.group_by if group.startswith(TAG_GROUP)), None)

    def _groups(self, table: Any, day: Any, tag: ColumnElement[str] | Any | None) -> list[ColumnElement[Any]]:
        """The columns that sums are grouped by; `tag`: the value of the tag, None without one."""
        wanted = dict.fromkeys(["tenant_id", "period_id", *(column_of(group) for group in self.group_by)])
        value = null().cast(Text) if tag is None else tag
        special = {"month": _month_of(table, day), "tag": value.label("tag")}
        return [special[name] if name in special else getattr(table, name) for name in wanted]

    def _with_names(self, summed: Subquery) -> Select[*tuple[Any, ...]]:
        """Joins the names to the rows that are shown, after the sums."""
        names: list[ColumnElement[Any]] = []
        source: FromClause = summed
        for group in self.group_by:
            if group in _NAMED:
                table, labels = _NAMED[group]
                source = source.outerjoin(table, table.id == summed.c[column_of(group)])
                names += labels
        groups = [summed.c[column_of(group)] for group in self.group_by]
        rest = [column for column in summed.c if column.name not in {group.name for group in groups}]
        return select(*groups, *names, *rest).select_from(source)


def column_of(group: str) -> str:
    """The column of a group."""
    return "tag" if group.startswith(TAG_GROUP) else GROUP_COLUMNS[group]


def sum_of(rows: Subquery, name: str) -> ColumnElement[Any]:
    """The column of this name; `tokens` is the sum of the token classes."""
    return reduce(add, (rows.c[each] for each in (TOKEN_COLUMNS if name == "tokens" else (name,))))


def whole_months(first: date, last: date, today: date | None = None) -> tuple[date, date] | None:
    """The first and last day of the whole months within a range, or None. The current month is whole up to `today`."""
    begin = first if first.day == 1 else _next_month(first)
    end = last if _is_last(last) or (today is not None and last >= today) else last.replace(day=1) - timedelta(days=1)
    return (begin, end) if begin <= end else None


def _rated(parts: Subquery) -> ColumnElement[Any]:
    """The exact value of sums at their rates, in nano-paise; 0 without a rate."""
    columns = parts.c
    priced = (
        (columns.input_tokens, columns.input_rate),
        (columns.output_tokens, columns.output_rate),
        (columns.cache_read_tokens, columns.cache_read_rate),
        (columns.cache_write_5m_tokens + columns.cache_write_1h_tokens, columns.cache_write_rate),
        (columns.web_searches, columns.web_search_rate),
    )
    classes = sum(units * func.coalesce(per_million, 0) for units, per_million in priced)
    # The rate of spend is per micro-USD (1,000 nano-USD), which already includes the factor.
    return classes * _NANO_PAISE + columns.cost_nano_usd * func.coalesce(columns.spend_rate, 0)


def _month_of(table: Any, day: Any) -> ColumnElement[Any]:
    if table is UsageMonthly:
        return UsageMonthly.month.label("month")
    return func.date_trunc("month", day).cast(UsageMonthly.month.type).label("month")


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _is_last(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1
