"""Periods for past calendar months of tenants on a plan that bills overage.

A month with usage but no projection gets its row here, with the terms of the tenant's current plan, and is closed next.
"""

from datetime import date
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert

from billing.context import BillingContext
from billing.models import BillingPeriod, Plan
from billing.models.states import PeriodKind
from billing.rating.overage import PastAllowance
from billing.rating.terms import stored_terms
from core.tenancy.models import Tenant
from metering.models import UsageMeter
from metering.quota.windows import Calendar, day_start_ms

_MONTH = "^20[0-9]{2}-(0[1-9]|1[0-2])$"


async def create_month_periods(context: BillingContext, now_ms: int, tenant_id: UUID | None = None) -> None:
    """Creates the missing rows of one tenant or of all. A concurrent call creates the same rows."""
    calendar = Calendar(context.zone.key)
    present = calendar.month(now_ms).name
    query = (
        select(UsageMeter.tenant_id, UsageMeter.period_id, Plan)
        .join(Tenant, Tenant.id == UsageMeter.tenant_id)
        .join(Plan, (Plan.code == Tenant.plan_code) & (Plan.version == Tenant.plan_version))
        .where(Plan.past_allowance == PastAllowance.BILL, UsageMeter.period_id.regexp_match(_MONTH))
        .where(UsageMeter.period_id < present)
        .where(
            ~exists().where(
                BillingPeriod.tenant_id == UsageMeter.tenant_id, BillingPeriod.period_id == UsageMeter.period_id
            )
        )
    )
    if tenant_id is not None:
        query = query.where(UsageMeter.tenant_id == tenant_id)
    async with context.database.session() as session:
        for owner, name, plan in {(row[0], row[1]): row for row in await session.execute(query)}.values():
            month = calendar.month(day_start_ms(date.fromisoformat(f"{name}-01"), context.zone))
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
