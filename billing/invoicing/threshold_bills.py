"""Threshold bills: the overage of a running period is billed each time it reaches the plan's threshold.

So each debit stays within what a mandate may collect, and the debt stays small. The period stays open: its close prices
the whole reading and deducts these bills, as it deducts any earlier one. A bill that is held for an operator, or lacks
a profile, waits for the close. Postgres down: Unavailable.
"""

from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext
from billing.invoicing.issuing import billed_by, parties_of
from billing.invoicing.overage_bills import bill_usage, documents_of, is_draft
from billing.models import BillingPeriod, Plan
from billing.models.states import BillState, PeriodKind, PeriodState
from billing.rating.overage import PastAllowance, Reading, price_period
from billing.readings import read_period
from billing.segments import effective_terms
from billing.writes import for_each_key
from core.clock import now_ms


async def bill_thresholds(context: BillingContext) -> int:
    """The duty THRESHOLDS: bills every running period that reached its threshold, and returns how many.

    A failing period doesn't stop the others. Raises Unavailable.
    """
    return await for_each_key(context, _running(now_ms()), bill_if_reached, "threshold_bill")


async def bill_if_reached(context: BillingContext, tenant_id: UUID, period_id: str) -> bool:
    """Bills a running period if its overage that isn't billed yet has reached the plan's threshold."""
    async with context.database.session() as session:
        period = await session.get(BillingPeriod, (tenant_id, period_id))
        if period is None or await _reached(session, period) is None:
            return False  # without the tenant's lock, which most runs need not take
    async with context.tenant_transaction(tenant_id) as session:
        at_ms = now_ms()
        period = await session.get_one(BillingPeriod, (tenant_id, period_id))
        parties = await parties_of(session, tenant_id)
        reading = await _reached(session, period)
        is_running = period.state == PeriodState.OPEN and period.starts_ms <= at_ms < period.ends_ms
        if reading is None or parties is None or not is_running:
            return False
        made = await bill_usage(session, context, period, reading, parties, at_ms)
        await project(session, context.zone, tenant_id, at_ms)
    return bool(made)


def _running(at_ms: int) -> Select[UUID, str]:
    """The running periods of plans with a threshold."""
    plan = (Plan.code == BillingPeriod.plan_code) & (Plan.version == BillingPeriod.plan_version)
    return (
        select(BillingPeriod.tenant_id, BillingPeriod.period_id)
        .join(Plan, plan)
        .where(
            Plan.threshold_paise.is_not(None),
            Plan.past_allowance == PastAllowance.BILL,
            BillingPeriod.state == PeriodState.OPEN,
            BillingPeriod.kind != PeriodKind.TRIAL,
            BillingPeriod.starts_ms <= at_ms,
            BillingPeriod.ends_ms > at_ms,
        )
        .order_by(BillingPeriod.tenant_id, BillingPeriod.starts_ms)
    )


async def _reached(session: AsyncSession, period: BillingPeriod) -> Reading | None:
    """The reading whose overage, less what was billed, reached the threshold. None: it has not, or a bill waits."""
    plan = await session.get(Plan, (period.plan_code, period.plan_version))
    if plan is None or plan.threshold_paise is None:
        return None
    documents = await documents_of(session, period)
    if any(is_draft(bill) and bill.state == BillState.HELD for bill in documents):
        return None
    reading = await read_period(session, period.tenant_id, period.period_id)
    billed = billed_by(bill for bill in documents if not is_draft(bill))
    owed = price_period(reading, await effective_terms(session, period), billed)
    return reading if owed.taxable_paise >= plan.threshold_paise else None
