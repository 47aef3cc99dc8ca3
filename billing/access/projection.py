"""Projection of a tenant's subscriptions, bills and own plan to the entitlement that metering admits by.

The entitlement is a function of billing's rows. A transaction that changes one of them projects under the tenant's lock
before it commits; projecting again writes nothing. Postgres down: Unavailable, and the caller's transaction fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import CycleFacts
from billing.access.lifecycle import DebtFacts, PlanFacts, SubscriptionFacts, Switched, Timeline, timeline
from billing.access.periods import Sold, cycle_suffix, periods_of, write_periods
from billing.context import invalidate_after_commit
from billing.models import Bill, BillingPeriod, Plan, Subscription
from billing.models.bills import balance_sql
from billing.models.catalogue import plan_version
from billing.models.states import BillKind, BillState, PeriodKind, SubscriptionState, SubscriptionStatus
from billing.rating.overage import PastAllowance, Terms
from billing.rating.terms import limits_of, terms_of
from core.tenancy.accounts import find_tenant
from metering.admission.entitlements import project_entitlement
from metering.models import EntitlementRow
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Schedule

PlanKey = tuple[str, int]
NO_PLAN = ""
"""Plan version in the row of a tenant that has no plan any more; its segments say None."""


@dataclass(frozen=True, slots=True)
class _TenantRows:
    """A tenant's rows that affect its entitlement."""

    own_plan: Plan | None
    sold: dict[str, Sold]
    periods: Sequence[BillingPeriod]
    debts: Sequence[DebtFacts]


async def project(session: AsyncSession, zone: ZoneInfo, tenant_id: UUID, now_ms: int) -> None:
    """Updates the tenant's entitlement and periods from its rows. The tenant's lock is held. Raises NotFound.

    `zone`: of the operator's months.
    """
    await session.flush()
    rows = await _read(session, tenant_id)
    own_plan = None if rows.own_plan is None else _plan_facts(rows.own_plan)
    begun = [period for period in rows.periods if not period.foreseen or period.starts_ms <= now_ms]
    subscriptions = [_facts(sold, begun) for sold in rows.sold.values()]
    found = timeline(own_plan, subscriptions, rows.debts, now_ms)
    await write_periods(session, tenant_id, rows.periods, found.planned, rows.sold, rows.own_plan, zone, now_ms)
    if await _write(session, tenant_id, found, now_ms):
        invalidate_after_commit(session)


async def _write(session: AsyncSession, tenant_id: UUID, found: Timeline, now_ms: int) -> bool:
    """Whether the entitlement changed. A constant one needs no schedule, and an unlimited one no row."""
    present = found.segment(now_ms)
    steady = len(found.segments) == 1 and present.refusal is None
    unlimited = steady and not found.periods and present.plan_version is None
    if unlimited and await session.get(EntitlementRow, tenant_id) is None:
        return False
    schedule = Schedule(() if steady and present.plan_version is not None else found.segments, found.periods)
    return await project_entitlement(
        session, tenant_id, plan_version=present.plan_version or NO_PLAN, limits=present.limits, schedule=schedule
    )


async def _read(session: AsyncSession, tenant_id: UUID) -> _TenantRows:
    tenant = await find_tenant(session, tenant_id)
    query = select(Subscription).where(
        Subscription.tenant_id == tenant_id, Subscription.state == SubscriptionState.SUBMITTED
    )
    subscriptions = (await session.scalars(query.order_by(Subscription.id))).all()
    own_key = None
    if tenant.plan_code is not None and tenant.plan_version is not None:
        own_key = (tenant.plan_code, tenant.plan_version)
    keys = {key for key in (own_key, *map(_plan_key, subscriptions)) if key is not None}
    found = await session.scalars(select(Plan).where(tuple_(Plan.code, Plan.version).in_(keys)))
    plans = {(plan.code, plan.version): plan for plan in found}
    return _TenantRows(
        own_plan=None if own_key is None else plans[own_key],
        sold={str(one.id): Sold(one, plans[_plan_key(one)]) for one in subscriptions},
        periods=await periods_of(session, tenant_id),
        debts=await _debts(session, tenant_id),
    )


def _plan_key(subscription: Subscription) -> PlanKey:
    return subscription.plan_code, subscription.plan_version


async def _debts(session: AsyncSession, tenant_id: UUID) -> list[DebtFacts]:
    """Unpaid bills for usage. A held bill isn't due yet."""
    query = select(Bill.due_ms).where(
        Bill.tenant_id == tenant_id,
        Bill.kind == BillKind.OVERAGE,
        Bill.state == BillState.OPEN,
        Bill.due_ms.is_not(None),
        balance_sql() > 0,
    )
    return [DebtFacts(due_ms) for due_ms in await session.scalars(query.order_by(Bill.due_ms)) if due_ms is not None]


def _facts(sold: Sold, periods: Sequence[BillingPeriod]) -> SubscriptionFacts:
    row = sold.subscription
    cycles = [one for one in periods if one.subscription_id == row.id and one.kind == PeriodKind.CYCLE]
    switched = ((one, _switched_limits(one, sold.plan)) for one in cycles)
    return SubscriptionFacts(
        id=str(row.id),
        suffix=cycle_suffix(row),
        plan=_plan_facts(sold.plan),
        status=row.status or SubscriptionStatus.CREATED,
        method=row.payment_method,
        authorised_ms=row.authorised_ms,
        starts_later=row.wanted_start_ms is not None,
        replaces=row.replaces is not None,
        start_ms=row.start_ms,
        current_start_ms=row.current_start_ms,
        current_end_ms=row.current_end_ms,
        paid_through_ms=row.paid_through_ms,
        remaining_count=row.remaining_count,
        cancel_at_ms=row.cancel_at_ms,
        ended_ms=row.ended_ms,
        cycles=tuple(CycleFacts(one.period_id, one.starts_ms, one.ends_ms) for one in cycles if not one.foreseen),
        switched=tuple(Switched(one.starts_ms, one.ends_ms, limits) for one, limits in switched if limits is not None),
    )


def _plan_facts(plan: Plan) -> PlanFacts:
    return PlanFacts(
        version=plan_version(plan),
        limits=limits_of(plan),
        blocking=limits_of(plan, replace(terms_of(plan), past_allowance=PastAllowance.BLOCK)),
        when_unpaid=cast("Literal['block', 'free']", plan.when_unpaid),
    )


def _switched_limits(period: BillingPeriod, plan: Plan) -> PlanLimits | None:
    """The limits of a period whose terms were switched from its subscription's plan; None if they weren't."""
    terms = msgspec.convert(period.terms, Terms)
    return None if terms == terms_of(plan) else limits_of(plan, terms)
