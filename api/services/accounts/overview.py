"""The operator's view of tenants: all with this month's figures, one with everything that billing knows of it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.accounts.overview import (
    MonthFigures,
    TenantOverview,
    TenantSummaries,
    TenantSummary,
)
from api.schemas.accounts.privacy import AuditItem
from api.schemas.accounts.tenants import TenantItem
from api.services.context import ServiceContext
from api.services.usage.days import today
from billing.catalogue.plans import offered_plans
from billing.invoicing.bill_list import list_bills
from billing.invoicing.report_prices import billed_by_tenant, cost_in_paise
from billing.models import BillingFinding, BillingPeriod, Payment, Subscription
from billing.standing.reader import money_status
from core.clock import now_ms
from core.tenancy.accounts import find_tenant
from core.tenancy.lists import list_audit
from core.tenancy.models import Tenant, User
from core.tenancy.principal import Scope
from metering.reports.usage_report import UsageReport

_LATEST = 10


async def list_tenant_summaries(
    context: ServiceContext, *, search: str, before: UUID | None, size: int
) -> TenantSummaries:
    """Tenants, newest first, or those with `search` in their name or slug."""
    context.require(Scope.PLATFORM_ADMIN)
    query = select(Tenant).order_by(Tenant.id.desc()).limit(size + 1)
    if search:
        query = query.where(or_(*(column.icontains(search, autoescape=True) for column in (Tenant.name, Tenant.slug))))
    if before is not None:
        query = query.where(Tenant.id < before)
    async with context.transaction() as session:
        rows = (await session.scalars(query)).all()
        month = await _month(context, session)
        status = await _subscription_status(session, [row.id for row in rows])
        plans = await _plan_codes(session)
    items = [
        TenantSummary(
            tenant=TenantItem.of(row), subscription=status.get(row.id), month=month.get(row.id, MonthFigures())
        )
        for row in rows[:size]
    ]
    return TenantSummaries(items=items, next=rows[size - 1].id if len(rows) > size else None, plans=plans)


async def describe_tenant(context: ServiceContext, tenant_id: UUID) -> TenantOverview:
    """Everything about a tenant. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        tenant = await find_tenant(session, tenant_id)
        month = (await _month(context, session, tenant_id)).get(tenant_id, MonthFigures())
        rate = context.settings.paise_per_usd
        audit = await list_audit(session, tenant_id=tenant_id, before=None, limit=_LATEST)
        return TenantOverview(
            tenant=TenantItem.of(tenant),
            users=int(await session.scalar(select(func.count(User.id)).where(User.tenant_id == tenant_id)) or 0),
            month=month,
            standing=await money_status(session, tenant_id, now_ms()),
            margin_paise=None if rate is None else month.billed_paise - cost_in_paise(month.cost_nano_usd, rate),
            subscriptions=await _latest(session, Subscription, tenant_id, Subscription.id.desc()),
            periods=await _latest(session, BillingPeriod, tenant_id, BillingPeriod.starts_ms.desc()),
            bills=await list_bills(session, tenant_id=tenant_id, limit=_LATEST),
            payments=await _latest(session, Payment, tenant_id, Payment.captured_ms.desc().nulls_last()),
            findings=await _latest(
                session, BillingFinding, tenant_id, BillingFinding.seen_ms.desc(), BillingFinding.closed_ms.is_(None)
            ),
            audit=[AuditItem.of(entry) for entry in audit.rows],
            plans=await _plan_codes(session),
        )


async def _latest(
    session: AsyncSession, table: Any, tenant_id: UUID, order: Any, *where: ColumnElement[bool]
) -> Sequence[Any]:
    query = select(table).where(table.tenant_id == tenant_id, *where).order_by(order).limit(_LATEST)
    return (await session.scalars(query)).all()


async def _plan_codes(session: AsyncSession) -> list[str]:
    return [plan.code for plan in await offered_plans(session)]


async def _month(
    context: ServiceContext, session: AsyncSession, tenant_id: UUID | None = None
) -> dict[UUID, MonthFigures]:
    """The current month's figures of every tenant with any, or of one."""
    day = today(context)
    first = day.replace(day=1)
    report = UsageReport(first, day, ["tenant"], tenant_id=tenant_id)
    usage = {row["tenant_id"]: row for row in (await session.execute(report.query())).mappings()}
    paise = await billed_by_tenant(session, context.zone, first, day, tenant_id)
    return {
        each: MonthFigures(
            requests=int(usage[each]["requests"]) if each in usage else 0,
            cost_nano_usd=int(usage[each]["cost_nano_usd"]) if each in usage else 0,
            billed_paise=paise.get(each, 0),
        )
        for each in {*usage, *paise}
    }


async def _subscription_status(session: AsyncSession, ids: list[UUID]) -> dict[UUID, str]:
    """Razorpay's status of the newest subscription of each tenant."""
    query = (
        select(Subscription.tenant_id, Subscription.status)
        .where(Subscription.tenant_id.in_(ids), Subscription.status.is_not(None))
        .order_by(Subscription.tenant_id, Subscription.id.desc())
        .ext(distinct_on(Subscription.tenant_id))
    )
    return {tenant_id: str(status) for tenant_id, status in (await session.execute(query)).all()}
