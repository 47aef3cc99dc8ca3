"""The figures of a view: its rows, the sum of all of them, and the names of what is shown.

Two reads, whatever is looked at: the rows with their total out of a rollup, and the names of the shown ids. A group
with very many rows is cut after the ones that come first; what is left of it is "the others", so that table and total
always add up. Postgres away: raises what the session raises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.pages.reports.view import TOKENS, Group, View
from billing.invoicing.report_prices import margin_paise, paise_of, period_rates
from core.tenancy.models import ApiKey, Tenant, User
from metering.reports import usage_report as reports

SHOWN_ROWS = 100
_NOBODY = UUID(int=0)
"""The key of a credit, which is given for no single request; its model is empty."""
_IDS = {"day": "day", "model": "model", "user": "user_id", "key": "key_id", "tenant": "tenant_id"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a row came to: U, how many of its requests were errors, and its price at the plan's rates."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost_nano_usd: int = 0
    errors: int = 0
    price_nano_paise: int = 0

    @classmethod
    def of(cls, row: Any, prefix: str = "") -> "Figures":
        """Of a row that has a column for each."""
        return cls(*(int(row[f"{prefix}{name}"]) for name in NAMES))

    @property
    def tokens(self) -> int:
        """Of all classes."""
        return sum(self.by_class)

    @property
    def by_class(self) -> tuple[int, ...]:
        """The five classes of tokens."""
        return tuple(getattr(self, name) for name in TOKENS)

    @property
    def price_paise(self) -> int:
        """As it is shown: whole paise."""
        return paise_of(self.price_nano_paise)

    def margin_paise(self, paise_per_usd: int) -> int:
        """What the price leaves after the provider's cost."""
        return margin_paise(self.price_nano_paise, self.cost_nano_usd, paise_per_usd)

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) + getattr(other, name) for name in NAMES))

    def __sub__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) - getattr(other, name) for name in NAMES))


NAMES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True)
class Named:
    """What a person knows an id by: its name, and what it belongs to; `label` is both, where a name says too little."""

    name: str
    detail: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One group; `key` is its id, its model or its day."""

    key: Any
    named: Named
    figures: Figures


@dataclass(frozen=True, slots=True)
class Report:
    """The rows that are shown, how many there are, and the sum of all."""

    rows: Sequence[Row]
    groups: int
    total: Figures

    def others(self, shown: int | None = None) -> Figures:
        """The sum of all but the first `shown` rows, or of what is not in `rows`."""
        return self.total - sum((row.figures for row in self.rows[:shown]), Figures())


async def read_report(session: AsyncSession, view: View, tenant_id: UUID | None, *, today: date) -> Report:
    """The report of a view; `tenant_id` None: of every tenant."""
    found = (await session.execute(_query(view, tenant_id, today))).mappings().all()
    if not found:
        return Report([], 0, Figures())
    keys = [row[_IDS[view.group]] for row in found]
    names = await _names(session, view.group, keys)
    rows = [Row(key, names.get(key) or _unnamed(key), Figures.of(row)) for key, row in zip(keys, found, strict=True)]
    return Report(rows, int(found[0]["groups"]), Figures.of(found[0], "all_"))


def _query(view: View, tenant_id: UUID | None, today: date) -> Select[*tuple[Any, ...]]:
    """The first rows in the view's order, each with the sum of all rows and their number beside it."""
    report = reports.UsageReport(
        first=view.first,
        last=view.last,
        group_by=(view.group.value,),
        tenant_id=tenant_id,
        user_id=view.user_id,
        key_id=view.key_id,
        model=view.model,
        today=today,
    )
    rows = report.query(period_rates(tenant_id)).order_by(None).subquery("rows")
    totals = [func.sum(rows.c[name]).over().label(f"all_{name}") for name in NAMES]
    order = _order(rows, view)
    limit = view.days if view.group == Group.DAY else SHOWN_ROWS
    shown = select(rows, *totals, func.count().over().label("groups"))
    return shown.order_by(order.desc() if view.is_falling else order.asc(), rows.c[_IDS[view.group]]).limit(limit)


def _order(rows: Any, view: View) -> ColumnElement[Any]:
    if view.order == "tokens":
        tokens: ColumnElement[Any] = sum((rows.c[name] for name in TOKENS[1:]), rows.c[TOKENS[0]])
        return tokens
    column: ColumnElement[Any] = rows.c[_IDS.get(view.order, view.order)]
    return column


def _unnamed(key: Any) -> Named:
    return Named("Credits", "for no single request") if key in ("", _NOBODY) else Named(str(key))


async def _names(session: AsyncSession, group: Group, ids: Sequence[Any]) -> dict[Any, Named]:
    """Of the shown ids alone."""
    match group:
        case Group.DAY | Group.MODEL:
            return {}
        case Group.TENANT:
            query = select(Tenant.id, Tenant.slug, Tenant.name).where(Tenant.id.in_(ids))
        case Group.USER:
            query = select(User.id, User.external_id, Tenant.slug).where(User.id.in_(ids)).join(Tenant)
        case Group.KEY:
            of_user = (User.tenant_id == ApiKey.tenant_id) & (User.id == ApiKey.user_id)
            named = (ApiKey.id, ApiKey.name, func.concat(ApiKey.prefix, "… · ", User.external_id), User.external_id)
            keys = await session.execute(select(*named).join(User, of_user).where(ApiKey.id.in_(ids)))
            return {key: Named(name, detail, f"{user} · {name}") for key, name, detail, user in keys}
    return {key: Named(name, detail) for key, name, detail in (await session.execute(query))}
