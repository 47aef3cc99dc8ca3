"""The operator's overview: what needs a person, and the money of this month."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.services.billing.standing import Arrears, list_arrears
from api.services.context import ServiceContext
from billing.invoicing.report_prices import billed_by_tenant, cost_in_paise
from billing.models import Bill, BillingFinding, Payment, Refund
from billing.models.bills import balance_sql
from billing.models.states import BillState, RefundState
from billing.webhooks.inbox import InboxGauges, read_inbox_gauges
from core.clock import now_ms
from core.postgres.database import Connections
from core.tenancy.principal import Scope
from metering.quota.windows import Calendar, day_start_ms
from metering.reports.gauges import Gauges, read_gauges
from metering.reports.refusals import RefusalReport
from metering.reports.usage_report import UsageReport


@dataclass(frozen=True, slots=True)
class OperatorOverview:
    """Counts of now, and sums since `month` began; `due_paise` is of all time."""

    gauges: Gauges
    inbox: InboxGauges
    held_bills: int
    refunds_to_approve: int
    open_findings: int
    month: date
    billed_paise: int
    """Before GST."""
    collected_paise: int
    due_paise: int
    cost_nano_usd: int
    margin_paise: int | None
    """Billed less provider cost; None without an exchange rate (`PAISE_PER_USD`)."""
    requests: int
    refused: int
    """Requests refused this month."""
    arrears: list[Arrears]
    """Tenants that are late, the largest sum first."""


async def find_overview(context: ServiceContext, connections: Connections) -> OperatorOverview:
    """The overview of every tenant. Raises Unavailable."""
    context.require(Scope.PLATFORM_ADMIN)
    today = Calendar(context.settings.timezone).date_of(now_ms())
    first = today.replace(day=1)
    async with connections.acquire() as connection:
        gauges = await read_gauges(connection, dead_after_s=context.settings.dead_after_s)
        inbox = await read_inbox_gauges(connection)
    due, rate = func.greatest(balance_sql(), 0), context.settings.paise_per_usd
    arrears = await list_arrears(context)
    async with context.transaction() as session:
        (used,) = (await session.execute(UsageReport(first, today).query())).mappings().all()
        billed_paise = sum((await billed_by_tenant(session, context.zone, first, today)).values())
        cost_nano_usd = int(used["cost_nano_usd"])
        return OperatorOverview(
            gauges=gauges,
            inbox=inbox,
            held_bills=await _count(session, Bill.id, Bill.state == BillState.HELD),
            refunds_to_approve=await _count(session, Refund.id, Refund.state == RefundState.AWAITING_OPERATOR),
            open_findings=await _count(session, BillingFinding.key, BillingFinding.closed_ms.is_(None)),
            month=first,
            billed_paise=billed_paise,
            collected_paise=await _sum(
                session, Payment.amount_paise, Payment.captured_ms >= day_start_ms(first, context.zone)
            ),
            due_paise=await _sum(session, due, Bill.state == BillState.OPEN),
            cost_nano_usd=cost_nano_usd,
            margin_paise=None if rate is None else billed_paise - cost_in_paise(cost_nano_usd, rate),
            arrears=arrears,
            requests=int(used["requests"]),
            refused=int(await session.scalar(RefusalReport(first, today).query()) or 0),
        )


async def _count(session: AsyncSession, column: Any, condition: Any) -> int:
    return int(await session.scalar(select(func.count(column)).where(condition)) or 0)


async def _sum(session: AsyncSession, amount: Any, condition: Any) -> int:
    return int(await session.scalar(select(func.coalesce(func.sum(amount), 0)).where(condition)) or 0)
