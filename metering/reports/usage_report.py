"""Usage reports: sums by any groups, from the smallest rollup that can say it. Never from the request rows.

The three rollups move in one statement, so whichever answers, the sums are the same. Which one does:

- `usage_by_day` where nobody asks for users or keys: some rows a day, however many users there are;
- `usage_monthly` for the whole months of a range, and `usage_daily` for what sticks out at its ends, where users or
  keys are asked for and days are not;
- `usage_daily` else.

A report is a SELECT to be run from a cursor. What usage is worth is not metering's to know: `rates` is a table, made by
billing, of what a million units cost in each tenant's period.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from operator import add
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Select, Subquery, func, select, union_all

from core.tenancy.models import ApiKey, Tenant, User
from metering.models import COUNT_COLUMNS, REPORTED_COLUMNS, UsageByDay, UsageDaily, UsageMonthly

GROUPS = ("tenant", "user", "key", "model", "day", "month")
"""What a report can be grouped by."""
SUMS = REPORTED_COLUMNS
PRICE = "price_nano_paise"
ORDERS = (*SUMS, "tokens", PRICE)
"""What a report can be ordered by, dearest first."""

RATES = ("input_rate", "output_rate", "cache_read_rate", "cache_write_rate", "spend_rate")
"""The columns of a table of rates, beside `tenant_id` and `period_id`: paise for a million units, or none."""

_COLUMNS = {"tenant": "tenant_id", "user": "user_id", "key": "key_id", "model": "model", "day": "day", "month": "month"}
_OF_SOMEBODY = frozenset({"user", "key"})
_TOKENS = tuple(name for name in COUNT_COLUMNS if name.endswith("_tokens"))
_NANO_PAISE = 1000
"""A rate is paise for a million units; so a unit is this many nano-paise times the rate."""
_NAMED = {"tenant": ("tenant_slug",), "user": ("external_id",), "key": ("key_name", "key_prefix")}


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What is asked: the operator's days `first` to `last`, both included; None filters nothing.

    `today` lets a range that ends today count the present month as whole. With `order` the rows come by that sum, most
    first, at most `top`; else by their groups.
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

    @property
    def columns(self) -> list[str]:
        """The names of the columns that `query` selects, without the price."""
        names = [name for group in self.group_by for name in (_NAMED.get(group, ()) if self.named else ())]
        return [*(_COLUMNS[group] for group in self.group_by), *names, *SUMS]

    def query(self, rates: FromClause | None = None) -> Select[*tuple[Any, ...]]:
        """The SELECT: `columns`, and with `rates` the price in nano-paise after them."""
        summed = self._summed(rates)
        if self.named and self.top is not None:
            summed = select(summed).order_by(*self._ordered(summed)).limit(self.top).subquery("shown")
        query = self._with_names(summed) if self.named else select(summed)
        return query.order_by(*self._ordered(summed)).limit(self.top)

    def _ordered(self, summed: Subquery) -> list[ColumnElement[Any]]:
        groups: list[ColumnElement[Any]] = [summed.c[_COLUMNS[group]] for group in self.group_by]
        if self.order is None:
            return groups
        wanted = _TOKENS if self.order == "tokens" else (self.order,)
        return [reduce(add, (summed.c[name] for name in wanted)).desc(), *groups]

    def _summed(self, rates: FromClause | None) -> Subquery:
        rows = self._rows().subquery("usage")
        groups = [rows.c[_COLUMNS[group]] for group in self.group_by]
        sums: list[ColumnElement[Any]] = [func.coalesce(func.sum(rows.c[name]), 0).label(name) for name in SUMS]
        if rates is None:
            return select(*groups, *sums).group_by(*groups).subquery("report")
        parts = self._by_rates(rows, rates)
        groups = [parts.c[_COLUMNS[group]] for group in self.group_by]
        sums = [func.coalesce(func.sum(parts.c[name]), 0).label(name) for name in SUMS]
        sums.append(func.coalesce(func.sum(_price(parts)), 0).label(PRICE))
        return select(*groups, *sums).group_by(*groups).subquery("report")

    def _by_rates(self, rows: Subquery, rates: FromClause) -> Subquery:
        """Added up as far as one set of rates holds, so that a price is made of a few sums and not of each row."""
        per_million = [rates.c[name].label(name) for name in RATES]
        groups = [rows.c[_COLUMNS[group]] for group in self.group_by]
        sums = [func.sum(rows.c[name]).label(name) for name in SUMS]
        on = (rates.c.tenant_id == rows.c.tenant_id) & (rates.c.period_id == rows.c.period_id)
        joined = rows.outerjoin(rates, on)
        return (
            select(*groups, *per_million, *sums).select_from(joined).group_by(*groups, *per_million).subquery("parts")
        )

    def _rows(self) -> Any:
        """The rollup's rows of the range."""
        of_somebody = bool(_OF_SOMEBODY & set(self.group_by)) or self.user_id is not None or self.key_id is not None
        if not of_somebody:
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
        wanted = dict.fromkeys(["tenant_id", "period_id", *(_COLUMNS[group] for group in self.group_by)])
        columns = [_month_of(table, day) if name == "month" else getattr(table, name) for name in wanted]
        query = select(*columns, *(getattr(table, name) for name in SUMS)).where(day.between(first, last))
        for name in ("tenant_id", "user_id", "key_id", "model"):
            value = getattr(self, name)
            if value is not None:
                query = query.where(getattr(table, name) == value)
        return query

    def _with_names(self, summed: Subquery) -> Select[*tuple[Any, ...]]:
        """Names are looked up for the rows that are shown, not for those that are added up."""
        names: list[ColumnElement[Any]] = []
        source: FromClause = summed
        for group in self.group_by:
            match group:
                case "tenant":
                    source = source.outerjoin(Tenant, Tenant.id == summed.c.tenant_id)
                    names.append(Tenant.slug.label("tenant_slug"))
                case "user":
                    source = source.outerjoin(User, User.id == summed.c.user_id)
                    names.append(User.external_id.label("external_id"))
                case "key":
                    source = source.outerjoin(ApiKey, ApiKey.id == summed.c.key_id)
                    names += [ApiKey.name.label("key_name"), ApiKey.prefix.label("key_prefix")]
                case _:
                    pass
        groups = [summed.c[_COLUMNS[group]] for group in self.group_by]
        rest = [column for column in summed.c if column.name not in {group.name for group in groups}]
        return select(*groups, *names, *rest).select_from(source)


def whole_months(first: date, last: date, today: date | None = None) -> tuple[date, date] | None:
    """The first and last day of the whole months within a range; None when there is none.

    The present month is whole up to `today`: nothing is used later.
    """
    begin = first if first.day == 1 else _next_month(first)
    end = last if _is_last(last) or (today is not None and last >= today) else last.replace(day=1) - timedelta(days=1)
    return (begin, end) if begin <= end else None


def _price(parts: Subquery) -> ColumnElement[Any]:
    """Nano-paise of sums at their rates, exactly; 0 where no rate is known."""
    columns = parts.c
    priced = (
        (columns.input_tokens, columns.input_rate),
        (columns.output_tokens, columns.output_rate),
        (columns.cache_read_tokens, columns.cache_read_rate),
        (columns.cache_write_5m_tokens + columns.cache_write_1h_tokens, columns.cache_write_rate),
    )
    tokens = sum(units * func.coalesce(per_million, 0) for units, per_million in priced)
    # Spend is in micro-USD, a thousand nano-USD: the factor is in it already.
    return tokens * _NANO_PAISE + columns.cost_nano_usd * func.coalesce(columns.spend_rate, 0)


def _month_of(table: Any, day: Any) -> ColumnElement[Any]:
    if table is UsageMonthly:
        return UsageMonthly.month.label("month")
    return func.date_trunc("month", day).cast(UsageMonthly.month.type).label("month")


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _is_last(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1
