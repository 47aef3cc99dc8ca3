"""Months of usage that no projection made a row of, and months that begin without a plan.

A tenant without a subscription is metered in calendar months, whose rows a projection writes for the present month and
the next. A past month with usage but without a row gets one with the plan in force. Months before a tenant's first row
are from before it had a plan: they have no price, so they get none. Postgres down: Unavailable.
"""

from datetime import date
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.selectable import Subquery

from billing.access.periods import new_period
from billing.models import BillingPeriod, Plan
from billing.models.states import PeriodKind
from billing.rating.overage import PastAllowance
from billing.rating.terms import stored_terms
from core.tenancy.models import Tenant
from metering.journal.epoch import fetch_in, move_epoch
from metering.models import UsageMeter, UsageRequest
from metering.quota.schedule import segment_name
from metering.quota.windows import Calendar, day_start_ms

_MONTH = "^20[0-9]{2}-(0[1-9]|1[0-2])$"


async def write_past_months(
    session: AsyncSession, zone: ZoneInfo, now_ms: int, tenant_id: UUID | None = None, *, priced_only: bool = True
) -> None:
    """Creates the missing rows of one tenant or of all. A concurrent call creates the same rows.

    `priced_only`: of plans that price overage. The months of a plan that blocks bill nothing, so their rows matter only
    when that plan changes.
    """
    calendar = Calendar(zone.key)
    where = [UsageMeter.period_id < calendar.month(now_ms).name]
    if priced_only:
        where.append(Plan.past_allowance != PastAllowance.BLOCK)
    if tenant_id is not None:
        where.append(UsageMeter.tenant_id == tenant_id)
    months = months_without_row(*where)
    query = select(months.c.tenant_id, months.c.period_id, Plan).join(
        Plan, (Plan.code == months.c.plan_code) & (Plan.version == months.c.plan_version)
    )
    for owner, name, plan in (await session.execute(query)).all():
        month = calendar.month(day_start_ms(date.fromisoformat(f"{name}-01"), zone))
        values = {
            "tenant_id": owner,
            "period_id": name,
            "kind": PeriodKind.MONTH,
            "starts_ms": month.starts_ms,
            "ends_ms": month.ends_ms,
            "plan_code": plan.code,
            "plan_version": plan.version,
            "terms": stored_terms(plan),
        }
        await session.execute(insert(BillingPeriod).values(**values).on_conflict_do_nothing())


async def begin_months(session: AsyncSession, zone: ZoneInfo, tenant_id: UUID, plan: Plan, now_ms: int) -> None:
    """Gives a tenant that gets its first plan a second segment of this month, if it has used anything in the month.

    The first segment has no row and bills nothing. Without usage, the projection gives it the whole month. Moves the
    tenant's epoch before it looks, so that no request opens unseen. The tenant's lock is held; project afterwards.
    """
    month = Calendar(zone.key).month(now_ms)
    await move_epoch(fetch_in(session), tenant_id)
    tables = (UsageMeter, UsageRequest)
    uses = [exists().where(one.tenant_id == tenant_id, one.period_id == month.name) for one in tables]
    if await session.scalar(select(or_(*uses))):
        name = segment_name(month.name, 2)
        session.add(new_period(tenant_id, name, PeriodKind.MONTH, now_ms, month.ends_ms, plan))
        await session.flush()


def months_without_row(*where: ColumnElement[bool]) -> Subquery:
    """Months with usage and without a row: (tenant_id, period_id, plan_code, plan_version), the plan being today's.

    None from before the tenant's first row. A tenant without any row always had its plan. `where`: more conditions, on
    meters and plans.
    """
    has_row = exists().where(
        BillingPeriod.tenant_id == UsageMeter.tenant_id, BillingPeriod.period_id == UsageMeter.period_id
    )
    found = (  # few or none, so that the first rows of these tenants alone are looked up
        select(UsageMeter.tenant_id, UsageMeter.period_id, Tenant.plan_code, Tenant.plan_version)
        .distinct()
        .join(Tenant, Tenant.id == UsageMeter.tenant_id)
        .join(Plan, (Plan.code == Tenant.plan_code) & (Plan.version == Tenant.plan_version))
        .where(UsageMeter.period_id.regexp_match(_MONTH), ~has_row, *where)
        .cte("found")
        .prefix_with("MATERIALIZED")
    )
    first = select(func.min(func.left(BillingPeriod.period_id, 7))).where(BillingPeriod.tenant_id == found.c.tenant_id)
    return (
        select(found)
        .where(found.c.period_id > func.coalesce(first.scalar_subquery(), ""))
        .subquery("months_without_row")
    )
