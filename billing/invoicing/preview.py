"""Preview of the current period's bill, as if it were closed now. Stores nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.periods import new_period, period_at
from billing.context import BillingContext
from billing.documents.bill_lines import overage_lines
from billing.invoicing.issuing import billed_by, parties_of, totals_of
from billing.invoicing.overage_bills import documents_of, is_draft
from billing.models import Bill, BillingPeriod, Plan
from billing.models.states import PeriodKind
from billing.rating.overage import price_period
from billing.readings import read_period
from billing.wallet.bounds import billed_terms
from core.errors import NotFound
from core.tenancy.accounts import find_tenant
from metering.quota.windows import Calendar


@dataclass(frozen=True, slots=True)
class UpcomingCharges:
    """The period and its overage so far. `is_taxed` is false while a profile is missing."""

    period: BillingPeriod
    lines: list[dict[str, Any]]
    taxable_paise: int
    tax: list[dict[str, Any]]
    total_paise: int
    is_taxed: bool


async def upcoming_charges(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, now_ms: int
) -> UpcomingCharges:
    """The overage by the current meters. Raises NotFound for a tenant without a plan."""
    period = await _current(session, context, tenant_id, now_ms)
    reading = await read_period(session, tenant_id, period.period_id)
    documents: list[Bill] = [bill for bill in await documents_of(session, period) if not is_draft(bill)]
    billed = billed_by(documents)
    owed = price_period(reading, await billed_terms(session, period, billed, now_ms), billed)
    parties = await parties_of(session, tenant_id)
    return UpcomingCharges(
        period=period,
        lines=overage_lines(owed),
        is_taxed=parties is not None,
        **totals_of(owed.taxable_paise, parties),
    )


async def _current(session: AsyncSession, context: BillingContext, tenant_id: UUID, now_ms: int) -> BillingPeriod:
    """The current period's row, or the row that a month without one will get."""
    found = await period_at(session, tenant_id, now_ms)
    if found is not None:
        return found
    tenant = await find_tenant(session, tenant_id)
    if tenant.plan_code is None:
        raise NotFound("the tenant has neither a subscription nor a plan")
    plan = await session.get_one(Plan, (tenant.plan_code, tenant.plan_version))
    month = Calendar(context.zone.key).month(now_ms)
    return new_period(tenant_id, month.name, PeriodKind.MONTH, month.starts_ms, month.ends_ms, plan)
