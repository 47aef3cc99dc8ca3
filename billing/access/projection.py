"""Projecting what a tenant's subscriptions, bills and own plan mean for admission: where billing ends, metering begins.

The rule: the entitlement is a function of billing's rows. Whoever moves one of them projects in the same transaction,
under the tenant's lock; projecting again writes nothing. Postgres away: Unavailable, and nothing of the caller's holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import CYCLE, CycleFacts
from billing.access.lifecycle import DebtFacts, PlanFacts, SubscriptionFacts, Switched, Timeline, timeline
from billing.access.periods import Sold, mark_of, materialise, periods_of
from billing.context import invalidate_after_commit
from billing.models import Bill, BillingPeriod, Plan, Subscription
from billing.rating.overage import PastAllowance, Terms
from billing.rating.terms import bounded, limits_of, terms_of
from core.tenancy.accounts import find_tenant
from metering.admission.entitlements import project_entitlement
from metering.models import EntitlementRow
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Schedule

PlanKey = tuple[str, int]
NO_PLAN = ""
"""Stands in the row of a tenant that has no plan any more; its segments say None."""


@dataclass(frozen=True, slots=True)
class _Books:
    """A tenant's rows, as far as they count here."""

    own_plan: Plan | None
    sold: dict[str, Sold]
    periods: Sequence[BillingPeriod]
    debts: Sequence[DebtFacts]


async def project(session: AsyncSession, zone: ZoneInfo | None, tenant_id: UUID, now_ms: int) -> None:
    """Puts the tenant's entitlement and its periods in line with its rows. The tenant's lock is held.

    `zone`: the operator's months; without one, the rows of months are left for the next projection. Raises NotFound.
    """
    await session.flush()
    books = await _read(session, tenant_id)
    own_plan = None if books.own_plan is None else _plan_facts(books.own_plan)
    begun = [period for period in books.periods if not period.foreseen or period.starts_ms <= now_ms]
    subscriptions = [_facts(sold, begun) for sold in books.sold.values()]
    found = timeline(own_plan, subscriptions, books.debts, now_ms)
    await materialise(session, tenant_id, found.planned, books.sold, books.own_plan, zone, now_ms)
    if await _write(session, tenant_id, found, now_ms):
        invalidate_after_commit(session)


async def _write(session: AsyncSession, tenant_id: UUID, found: Timeline, now_ms: int) -> bool:
    """Whether it is another entitlement now. One that never changes needs no schedule, and none at all no row."""
    present = found.segment(now_ms)
    steady = len(found.segments) == 1 and present.refusal is None
    unlimited = steady and not found.periods and present.plan_version is None
    if unlimited and await session.get(EntitlementRow, tenant_id) is None:
        return False
    schedule = Schedule(() if steady and present.plan_version is not None else found.segments, found.periods)
    return await project_entitlement(
        session, tenant_id, plan_version=present.plan_version or NO_PLAN, limits=present.limits, schedule=schedule
    )


async def _read(session: AsyncSession, tenant_id: UUID) -> _Books:
    tenant = await find_tenant(session, tenant_id)
    query = select(Subscription).where(Subscription.tenant_id == tenant_id, Subscription.state == "submitted")
    subscriptions = (await session.scalars(query.order_by(Subscription.id))).all()
    own_key = None
    if tenant.plan_code is not None and tenant.plan_version is not None:
        own_key = (tenant.plan_code, tenant.plan_version)
    plans = await _plans(session, [key for key in (own_key, *map(_plan_key, subscriptions)) if key is not None])
    return _Books(
        own_plan=None if own_key is None else plans[own_key],
        sold={str(one.id): Sold(one, plans[_plan_key(one)]) for one in subscriptions},
        periods=await periods_of(session, tenant_id),
        debts=await _debts(session, tenant_id),
    )


def _plan_key(subscription: Subscription) -> PlanKey:
    return subscription.plan_code, subscription.plan_version


async def _plans(session: AsyncSession, keys: Iterable[PlanKey]) -> dict[PlanKey, Plan]:
    query = select(Plan).where(tuple_(Plan.code, Plan.version).in_(set(keys)))
    return {(plan.code, plan.version): plan for plan in await session.scalars(query)}


async def _debts(session: AsyncSession, tenant_id: UUID) -> list[DebtFacts]:
    """What is to be paid for usage. A held bill is not asked for yet."""
    query = select(Bill.due_ms).where(
        Bill.tenant_id == tenant_id,
        Bill.kind == "overage",
        Bill.state == "open",
        Bill.due_ms.is_not(None),
        Bill.total_paise - Bill.credited_paise - Bill.paid_paise > 0,
    )
    return [DebtFacts(due_ms) for due_ms in await session.scalars(query.order_by(Bill.due_ms)) if due_ms is not None]


def _facts(sold: Sold, periods: Sequence[BillingPeriod]) -> SubscriptionFacts:
    row = sold.subscription
    cycles = [one for one in periods if one.subscription_id == row.id and one.kind == CYCLE]
    switched = ((one, _limits_of_its_own(one, sold.plan)) for one in cycles)
    return SubscriptionFacts(
        id=str(row.id),
        mark=mark_of(row),
        plan=_plan_facts(sold.plan),
        status=row.status or "created",
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
        version=f"{plan.code}@{plan.version}",
        limits=limits_of(plan),
        blocking=_limits_under(plan, replace(terms_of(plan), past_allowance=PastAllowance.BLOCK)),
        when_unpaid=cast("Literal['block', 'free']", plan.when_unpaid),
    )


def _limits_of_its_own(period: BillingPeriod, plan: Plan) -> PlanLimits | None:
    """Where a period that began was switched to other terms than its subscription's plan has."""
    terms = msgspec.convert(period.terms, Terms)
    return None if terms == terms_of(plan) else _limits_under(plan, terms)


def _limits_under(plan: Plan, terms: Terms) -> PlanLimits:
    return bounded(msgspec.convert(plan.limits, PlanLimits), terms)
