"""Usage reports: sums by any groups, streamed, and the figures of the reports' pages.

Beside the counts: `errors`, and `rated_nano_paise`, the usage at its plan's own rates past the allowance
(docs/reports.md). A stream reads from a cursor in constant memory, on a connection of the reports' pool.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, null, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.usage.counts import COST, UsageFilter
from api.schemas.usage.reports import (
    FIGURES,
    Figures,
    FiguresQuery,
    FiguresReport,
    FiguresRow,
    Group,
    GroupName,
    Rows,
    UsageQuery,
    UsageRows,
)
from api.services.context import ServiceContext
from api.services.usage.days import date_range, today
from api.services.usage.subject import Subject, find_subject
from billing.invoicing.report_prices import billed_by_tenant, period_rates
from core.errors import Invalid
from core.postgres.database import Database
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Scope
from metering.reports.refusals import RefusalReport
from metering.reports.usage_report import GROUP_COLUMNS, UsageReport, column_of, sum_of

BATCH_ROWS = 500
SHOWN_ROWS = 100
"""Rows of a figures report, but for days; the rest is one row of others, so that the table adds up to the total."""
_NOBODY = UUID(int=0)
"""The key of a credit, which is given for no single request; its model is empty."""


async def stream_usage(context: ServiceContext, reports: Database, wanted: UsageQuery) -> UsageRows:
    """A report by any groups, of any length. Raises Invalid for the days, NotFound for what the query names."""
    context.require(Scope.TENANT_READ)
    first, last = date_range(context, wanted.first, wanted.last)
    async with context.transaction(patient=True) as session:
        subject = await find_subject(context, session, wanted)
    report = UsageReport(
        first,
        last,
        list(dict.fromkeys(wanted.group_by)),
        **_chosen(wanted, subject, today(context)),
        order=wanted.order,
        top=wanted.top,
        named=wanted.named,
    )
    query = report.query(period_rates(subject.tenant_id))
    if not context.sees_cost:
        query = _without_cost(query, wanted.order)
    return UsageRows(first, last, report.columns, _batches(context, reports, query))


def _without_cost(query: Select[*tuple[Any, ...]], order: str | None) -> Select[*tuple[Any, ...]]:
    """The query with NULL for the provider's cost. Raises Invalid for an order by it."""
    if order == COST:
        raise Invalid("`order`: the provider's cost is not shown")
    columns = (null().label(COST) if each.key == COST else each for each in query.selected_columns)
    return query.with_only_columns(*columns)


async def _batches(
    context: ServiceContext, reports: Database, query: Select[*tuple[Any, ...]]
) -> AsyncGenerator[Rows, None]:
    async with context.transaction(database=reports, patient=True) as session:
        result = await session.stream(query, execution_options={"yield_per": BATCH_ROWS})
        async for rows in result.partitions():
            yield rows


async def stream_refusals(context: ServiceContext, reports: Database, wanted: UsageQuery) -> UsageRows:
    """Refused requests by the groups asked for. Raises Invalid for the days, NotFound for the tenant."""
    context.require(Scope.TENANT_READ)
    first, last = date_range(context, wanted.first, wanted.last)
    async with context.transaction(patient=True) as session:
        subject = await find_subject(context, session, wanted)
    report = RefusalReport(first, last, list(dict.fromkeys(wanted.group_by)), subject.tenant_id)
    return UsageRows(first, last, report.columns, _batches(context, reports, report.query()))


async def read_figures(context: ServiceContext, reports: Database, wanted: FiguresQuery) -> FiguresReport:
    """A report by one group: a few reads, whatever is asked. Raises NotFound for what the query names."""
    async with context.transaction(Scope.TENANT_READ, database=reports, patient=True) as session:
        subject = await find_subject(context, session, wanted)
        query = _figures_query(wanted, subject, today(context))
        found = (await session.execute(query)).mappings().all()
        keys = [row[column_of(wanted.group_name)] for row in found]
        names = await _names(session, wanted.group, keys) if keys else {}
        is_billed = context.is_platform_admin and not wanted.is_narrowed
        bills = (
            await billed_by_tenant(session, context.zone, wanted.first, wanted.last, subject.tenant_id)
            if is_billed
            else {}
        )
        refused = RefusalReport(wanted.first, wanted.last, ("code",), subject.tenant_id).query()
        refusals = {} if wanted.is_narrowed else {row.code: int(row.requests) for row in await session.execute(refused)}
    rows = [
        FiguresRow(key, names.get(key) or _unnamed(wanted.group, key), Figures.of(row))
        for key, row in zip(keys, found, strict=True)
    ]
    return FiguresReport(
        rows,
        int(found[0]["groups"]) if found else 0,
        Figures.of(found[0], "all_") if found else Figures(),
        tenant_id=subject.tenant_id,
        names=subject.names,
        billed_paise=sum(bills.values()),
        refusals=refusals,
    )


def _figures_query(wanted: FiguresQuery, subject: Subject, day: date) -> Select[*tuple[Any, ...]]:
    """The first rows in the query's order, each with the sum of all rows and their number beside it."""
    report = UsageReport(wanted.first, wanted.last, (wanted.group_name,), **_chosen(wanted, subject, day))
    rows = report.query(period_rates(subject.tenant_id)).order_by(None).subquery("rows")
    totals = [func.sum(rows.c[name]).over().label(f"all_{name}") for name in FIGURES]
    order = sum_of(rows, GROUP_COLUMNS.get(wanted.order, wanted.order))
    limit = wanted.days if wanted.group == Group.DAY else SHOWN_ROWS
    shown = select(rows, *totals, func.count().over().label("groups"))
    return shown.order_by(
        order.desc() if wanted.is_falling else order.asc(), rows.c[column_of(wanted.group_name)]
    ).limit(limit)


def _chosen(wanted: UsageFilter, subject: Subject, day: date) -> dict[str, Any]:
    selected = {"tenant_id": subject.tenant_id, "user_id": subject.user_id}
    return {**selected, "key_id": wanted.key_id, "model": wanted.model, "tag": wanted.tag, "today": day}


def _unnamed(group: Group, key: Any) -> GroupName:
    if group == Group.TAG and key is None:
        return GroupName("Without this tag")
    return GroupName("Credits", "not tied to one request") if key in ("", _NOBODY) else GroupName(str(key))


async def _names(session: AsyncSession, group: Group, ids: Sequence[Any]) -> dict[Any, GroupName]:
    """Names of the shown ids alone."""
    match group:
        case Group.DAY | Group.MODEL | Group.TAG:
            return {}
        case Group.TENANT:
            query = select(Tenant.id, Tenant.slug, Tenant.name).where(Tenant.id.in_(ids))
        case Group.USER:
            query = select(User.id, User.external_id, Tenant.slug).where(User.id.in_(ids)).join(Tenant)
        case Group.KEY:
            of_user = (User.tenant_id == ApiKey.tenant_id) & (User.id == ApiKey.user_id)
            named = (ApiKey.id, ApiKey.name, func.concat(ApiKey.prefix, "… · ", User.external_id), User.external_id)
            keys = await session.execute(select(*named).join(User, of_user).where(ApiKey.id.in_(ids)))
            return {key: GroupName(name, detail, f"{user} · {name}") for key, name, detail, user in keys}
    return {key: GroupName(name, detail) for key, name, detail in (await session.execute(query))}
