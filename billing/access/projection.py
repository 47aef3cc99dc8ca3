"""Projection of a tenant's subscriptions, bills and own plan to the entitlement that metering admits by.

The entitlement is a function of billing's rows and of the meters of a period's earlier segments. A transaction that
changes a row, and a close, projects under the tenant's lock before it commits; projecting again writes nothing. Limits
count in the whole period, so they may be too generous by at most what is in flight from a segment that has ended, until
that one is closed. Postgres down: Unavailable, and the caller's transaction fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import CycleFacts
from billing.access.lifecycle import (
    KEPT_MS,
    DebtFacts,
    PinnedPlan,
    PlanFacts,
    SubscriptionFacts,
    Timeline,
    timeline,
)
from billing.access.periods import (
    Sold,
    cycle_suffix,
    periods_of,
    scheduled,
    segments_by_period,
    write_periods,
)
from billing.context import invalidate_after_commit
from billing.models import Bill, BillingPeriod, Plan, Subscription
from billing.models.bills import balance_sql
from billing.models.catalogue import plan_version
from billing.models.states import BillKind, BillState, PeriodKind, SubscriptionState, SubscriptionStatus
from billing.rating.overage import PastAllowance, Terms
from billing.rating.segments import after, counted_in_window
from billing.rating.terms import funded, limits_of, terms_of, unfunded
from billing.segments import own_terms, spent_before_each
from billing.wallet.bounds import funds_of_periods
from core.tenancy.accounts import find_tenant
from metering.admission.entitlements import project_entitlement
from metering.models import EntitlementRow
from metering.quota.schedule import Period, Schedule

PlanKey = tuple[str, int]
NO_PLAN = ""
"""Plan version in the row of a tenant that has no plan any more; its segments say None."""


@dataclass(frozen=True, slots=True)
class _TenantRows:
    """A tenant's rows that affect its entitlement. `plans`: those of all its subscriptions and segments."""

    own_plan: Plan | None
    plans: Mapping[PlanKey, Plan]
    sold: dict[str, Sold]
    periods: Sequence[BillingPeriod]
    debts: Sequence[DebtFacts]


async def project(session: AsyncSession, zone: ZoneInfo, tenant_id: UUID, now_ms: int) -> None:
    """Updates the tenant's entitlement and periods from its rows. The tenant's lock is held. Raises NotFound.

    `zone`: of the operator's months.
    """
    await session.flush()
    rows = await _read(session, tenant_id)
    planned = timeline(None, _facts(rows, {}), (), now_ms).planned
    await write_periods(session, tenant_id, rows.periods, planned, rows.sold, rows.own_plan, zone, now_ms)
    periods = await periods_of(session, tenant_id)
    pinned = await _pinned(session, rows, periods, now_ms)
    own_plan = None if rows.own_plan is None else _plan_facts(rows.own_plan)
    found = timeline(own_plan, _facts(rows, pinned), rows.debts, now_ms, pinned_months=pinned.get(None, ()))
    if await _write(session, tenant_id, found, scheduled(periods, now_ms - KEPT_MS), now_ms):
        invalidate_after_commit(session)


async def _write(
    session: AsyncSession, tenant_id: UUID, found: Timeline, periods: tuple[Period, ...], now_ms: int
) -> bool:
    """Whether the entitlement changed. A constant one needs no schedule, and an unlimited one no row."""
    present = found.segment(now_ms)
    steady = len(found.segments) == 1 and present.refusal is None
    unlimited = steady and not periods and present.plan_version is None
    if unlimited and await session.get(EntitlementRow, tenant_id) is None:
        return False
    schedule = Schedule(() if steady and present.plan_version is not None else found.segments, periods)
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
    periods = await periods_of(session, tenant_id)
    keys = {key for key in (own_key, *map(_plan_key, subscriptions), *map(_plan_key, periods)) if key is not None}
    found = await session.scalars(select(Plan).where(tuple_(Plan.code, Plan.version).in_(keys)))
    plans = {(plan.code, plan.version): plan for plan in found}
    return _TenantRows(
        own_plan=None if own_key is None else plans[own_key],
        plans=plans,
        sold={str(one.id): Sold(one, plans[_plan_key(one)]) for one in subscriptions},
        periods=periods,
        debts=await _debts(session, tenant_id),
    )


def _plan_key(row: Subscription | BillingPeriod) -> PlanKey:
    return row.plan_code, row.plan_version


async def _debts(session: AsyncSession, tenant_id: UUID) -> list[DebtFacts]:
    """Unpaid bills for usage, and fees whose payment a dispute took back. A held bill isn't due yet."""
    query = select(Bill.due_ms).where(
        Bill.tenant_id == tenant_id,
        Bill.kind.in_((BillKind.BASE, BillKind.OVERAGE)),
        Bill.state == BillState.OPEN,
        Bill.due_ms.is_not(None),
        balance_sql() > 0,
    )
    return [DebtFacts(due_ms) for due_ms in await session.scalars(query.order_by(Bill.due_ms)) if due_ms is not None]


async def _pinned(
    session: AsyncSession, rows: _TenantRows, periods: Sequence[BillingPeriod], now_ms: int
) -> dict[str | None, tuple[PinnedPlan, ...]]:
    """Admission's terms for each segment, by its subscription, or None for months. Long ended ones are left out."""
    found: dict[str | None, tuple[PinnedPlan, ...]] = {}
    is_prepaid = any(own_terms(row).past_allowance is PastAllowance.PREPAID for row in periods)
    funds = await funds_of_periods(session, periods[0].tenant_id, now_ms) if is_prepaid else {}
    for segments in segments_by_period(periods).values():
        since_ms = now_ms - KEPT_MS
        if all(row.ends_ms <= max(row.starts_ms, since_ms) for row in segments):
            continue
        spent_before = await spent_before_each(session, segments)
        for row in segments:
            plan, spent = rows.plans.get(_plan_key(row)), spent_before[row.period_id]
            if plan is None or row.ends_ms <= max(row.starts_ms, since_ms):
                continue
            terms = funded(counted_in_window(after(own_terms(row), spent), spent), funds.get(row.period_id, 0))
            of = None if row.subscription_id is None else str(row.subscription_id)
            one = PinnedPlan(row.starts_ms, row.ends_ms, _plan_facts(plan, terms))
            found[of] = (*found.get(of, ()), one)
    return found


def _facts(rows: _TenantRows, pinned: Mapping[str | None, tuple[PinnedPlan, ...]]) -> list[SubscriptionFacts]:
    return [_facts_of(sold, rows.periods, pinned.get(name, ())) for name, sold in rows.sold.items()]


def _facts_of(sold: Sold, periods: Sequence[BillingPeriod], pinned: tuple[PinnedPlan, ...]) -> SubscriptionFacts:
    row = sold.subscription
    own = [one for one in periods if one.subscription_id == row.id and one.kind == PeriodKind.CYCLE]
    cycles = segments_by_period([one for one in own if not one.foreseen])
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
        cycles=tuple(
            CycleFacts(name, found[0].starts_ms, max(one.ends_ms for one in found)) for name, found in cycles.items()
        ),
        pinned=pinned,
    )


def _plan_facts(plan: Plan, terms: Terms | None = None) -> PlanFacts:
    """A plan's limits, or those of a segment by its terms."""
    given = unfunded(terms_of(plan)) if terms is None else terms
    return PlanFacts(
        version=plan_version(plan),
        limits=limits_of(plan, given),
        blocking=limits_of(plan, replace(given, past_allowance=PastAllowance.BLOCK)),
        when_unpaid=cast("Literal['block', 'free']", plan.when_unpaid),
    )
