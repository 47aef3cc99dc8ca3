"""The past months of tenants on a plan that bills, which nothing made a period of yet.

A month that a projection saw has its row. One in which a tenant used something while no projection ran gets it here,
with the terms of the plan that the tenant is on; its end has passed, so it is closed right after.
"""

from datetime import date
from uuid import UUID

import msgspec
from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert

from billing.context import BillingContext
from billing.models import BillingPeriod, Plan
from billing.rating.overage import PastAllowance
from billing.rating.terms import terms_of
from core.tenancy.models import Tenant
from metering.models import UsageMeter
from metering.quota.windows import Calendar, day_start_ms

_MONTH = "^20[0-9]{2}-(0[1-9]|1[0-2])$"


async def enter_months(context: BillingContext, now_ms: int, tenant_id: UUID | None = None) -> None:
    """Makes the rows that are missing, of one tenant or of all. Whoever else makes one at once makes the same."""
    present = Calendar(context.zone.key).month(now_ms).name
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
        for whose, name, plan in {(row[0], row[1]): row for row in await session.execute(query)}.values():
            starts_ms, ends_ms = _bounds(context, name)
            values = {
                "tenant_id": whose,
                "period_id": name,
                "kind": "month",
                "starts_ms": starts_ms,
                "ends_ms": ends_ms,
                "plan_code": plan.code,
                "plan_version": plan.version,
                "terms": msgspec.to_builtins(terms_of(plan)),
            }
            await session.execute(insert(BillingPeriod).values(**values).on_conflict_do_nothing())


def _bounds(context: BillingContext, name: str) -> tuple[int, int]:
    first = date.fromisoformat(f"{name}-01")
    month = Calendar(context.zone.key).month(day_start_ms(first, context.zone))
    return month.starts_ms, month.ends_ms
