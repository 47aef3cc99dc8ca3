"""The bill of the present period, if it were closed now: a preview, which stores nothing and is no demand."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import BillingContext
from billing.documents.bill_lines import overage_lines
from billing.invoicing.already_billed import taken_by
from billing.invoicing.issuing import parties_of, totals_of
from billing.invoicing.overage_bills import documents_of, is_draft, terms_at_close
from billing.invoicing.readings import read_period
from billing.models import Bill, BillingPeriod, Plan
from billing.rating.overage import price_period
from billing.rating.terms import terms_of
from core.errors import NotFound
from core.tenancy.accounts import find_tenant
from metering.quota.windows import Calendar


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The period and what it would cost past the base fee. `is_taxed` is false while no profile says how."""

    period: BillingPeriod
    lines: list[dict[str, Any]]
    taxable_paise: int
    tax: list[dict[str, Any]]
    total_paise: int
    is_taxed: bool


async def upcoming(session: AsyncSession, context: BillingContext, tenant_id: UUID, now_ms: int) -> Upcoming:
    """As the meters read now. Raises NotFound for a tenant that is on no plan."""
    period = await _present(session, context, tenant_id, now_ms)
    reading = await read_period(session, tenant_id, period.period_id)
    documents: list[Bill] = [bill for bill in await documents_of(session, period) if not is_draft(bill)]
    owed = price_period(reading, terms_at_close(period), taken_by(documents))
    parties = await parties_of(session, tenant_id)
    return Upcoming(
        period=period,
        lines=overage_lines(owed),
        is_taxed=parties is not None,
        **totals_of(owed.taxable_paise, parties),
    )


async def _present(session: AsyncSession, context: BillingContext, tenant_id: UUID, now_ms: int) -> BillingPeriod:
    """The row that covers this moment; of a month that has none yet, what its row will say."""
    query = (
        select(BillingPeriod)
        .where(BillingPeriod.tenant_id == tenant_id)
        .where(BillingPeriod.starts_ms <= now_ms, BillingPeriod.ends_ms > now_ms)
        .order_by(BillingPeriod.starts_ms.desc())
        .limit(1)
    )
    found = await session.scalar(query)
    if found is not None:
        return found
    tenant = await find_tenant(session, tenant_id)
    if tenant.plan_code is None:
        raise NotFound("no subscription and no plan: there is nothing to bill")
    plan = await session.get_one(Plan, (tenant.plan_code, tenant.plan_version))
    month = Calendar(context.zone.key).month(now_ms)
    return BillingPeriod(
        tenant_id=tenant_id,
        period_id=month.name,
        kind="month",
        starts_ms=month.starts_ms,
        ends_ms=month.ends_ms,
        plan_code=plan.code,
        plan_version=plan.version,
        terms=msgspec.to_builtins(terms_of(plan)),
    )
