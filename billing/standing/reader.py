"""Reads the facts of a tenant's money status: bills, subscription, entitlement, wallet. The caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.periods import period_at
from billing.invoicing.bill_list import live_charges
from billing.models import Bill, BillingPeriod, Charge, Plan, Subscription, WalletSettings
from billing.models.bills import balance_sql, due_of
from billing.models.catalogue import plan_version
from billing.models.states import BillKind, BillState, ChargeState, Instrument, PeriodKind, SubscriptionStatus
from billing.rating.overage import PastAllowance
from billing.segments import own_terms
from billing.standing.status import Access, Debt, FeeFacts, Funds, Given, MoneyStatus, StandingFacts, status_of
from billing.subscriptions.intents import in_last_cycle, live_of, subscriptions_of, waiting_of
from billing.wallet.bounds import unused_paise
from core.tenancy.models import Tenant
from metering.models import EntitlementRow
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Schedule, Segment, segments_of

_MOST_BILLS = 100
"""Bills that a status reads; a tenant with more unpaid ones is shown the oldest."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The tenant's own plan, its live subscription with its plan, and its unpaid bills."""

    own: Plan | None
    live: Subscription | None
    sold: Plan | None
    waits: bool
    debts: Sequence[Debt]


async def money_status(session: AsyncSession, tenant_id: UUID, at_ms: int) -> MoneyStatus:
    """The status of a tenant's money. Raises NotFound, Unavailable."""
    rows = await _read(session, tenant_id)
    period = await period_at(session, tenant_id, at_ms)
    is_trial = period is not None and period.kind == PeriodKind.TRIAL
    plan = rows.sold or rows.own
    open_charges = select(func.count(Charge.id)).where(
        Charge.tenant_id == tenant_id, Charge.state == ChargeState.SUBMITTED
    )
    facts = StandingFacts(
        plan=None if plan is None else plan.name,
        fee=None if rows.live is None or rows.sold is None else _fee(rows.live, rows.sold),
        waits=rows.waits,
        debts=rows.debts,
        given=await _given(session, tenant_id, rows, at_ms),
        trial_ends_ms=period.ends_ms if period is not None and is_trial else None,
        funds=await _funds(session, tenant_id, period, rows.own, at_ms),
        open_charges=int(await session.scalar(open_charges) or 0),
    )
    return status_of(facts, at_ms)


async def tenants_in_arrears(
    session: AsyncSession, at_ms: int, *, limit: int, largest_first: bool = False
) -> Sequence[UUID]:
    """Tenants with an overdue bill for usage or a fee that Razorpay could not collect, at most `limit`.

    By id, or with `largest_first` by the sum of both.
    """
    late = select(Bill.tenant_id, balance_sql().label("paise")).where(_is_debt(), Bill.due_ms <= at_ms)
    failed = select(Subscription.tenant_id, Subscription.gross_paise).where(
        Subscription.authorised_ms.is_not(None),
        or_(
            Subscription.status.in_((SubscriptionStatus.PENDING, SubscriptionStatus.HALTED)),
            and_(Subscription.status == SubscriptionStatus.ACTIVE, Subscription.paid_through_ms <= at_ms),
        ),
    )
    owed = late.union_all(failed).subquery().c
    order = (func.sum(owed.paise).desc(), owed.tenant_id) if largest_first else (owed.tenant_id,)
    query = select(owed.tenant_id).group_by(owed.tenant_id).order_by(*order).limit(limit)
    return (await session.scalars(query)).all()


def _is_debt() -> ColumnElement[bool]:
    """Bills that are due, for fees and usage. An unpaid top-up is no debt."""
    return and_(Bill.kind.in_((BillKind.BASE, BillKind.OVERAGE)), Bill.state == BillState.OPEN, balance_sql() > 0)


async def _read(session: AsyncSession, tenant_id: UUID) -> _Rows:
    tenant = await session.get_one(Tenant, tenant_id)
    subscriptions = await subscriptions_of(session, tenant_id)
    live = live_of(subscriptions)
    own_key = None if tenant.plan_code is None else (tenant.plan_code, tenant.plan_version)
    query = select(Bill).where(Bill.tenant_id == tenant_id, _is_debt(), Bill.due_ms.is_not(None))
    bills = (await session.scalars(query.order_by(Bill.due_ms).limit(_MOST_BILLS))).all()
    charges = await live_charges(session, bills)
    return _Rows(
        own=None if own_key is None else await session.get(Plan, own_key),
        live=live,
        sold=None if live is None else await session.get(Plan, (live.plan_code, live.plan_version)),
        waits=waiting_of(subscriptions) is not None,
        debts=[_debt(bill, charges.get(bill.id)) for bill in bills],
    )


def _debt(bill: Bill, charge: Charge | None) -> Debt:
    link = None if charge is None else charge.short_url
    is_debited = charge is not None and charge.instrument == Instrument.MANDATE
    return Debt(bill.number or "", due_of(bill), bill.due_ms or 0, link, is_debited=is_debited)


async def _funds(
    session: AsyncSession, tenant_id: UUID, period: BillingPeriod | None, own: Plan | None, at_ms: int
) -> Funds | None:
    """The balance left in the wallet of a tenant whose terms are prepaid now; None for other terms."""
    if period is not None:
        past = own_terms(period).past_allowance
    else:
        past = PastAllowance.BLOCK if own is None else PastAllowance(own.past_allowance)
    if past is not PastAllowance.PREPAID:
        return None
    low_paise = await session.scalar(select(WalletSettings.low_paise).where(WalletSettings.tenant_id == tenant_id))
    return Funds(await unused_paise(session, tenant_id, at_ms), low_paise)


def _fee(row: Subscription, plan: Plan) -> FeeFacts:
    return FeeFacts(
        status=row.status or SubscriptionStatus.CREATED,
        gross_paise=row.gross_paise,
        plan=plan.name,
        paid_through_ms=row.paid_through_ms,
        start_ms=row.start_ms,
        current_end_ms=row.current_end_ms,
        retry_ms=row.charge_at_ms,
        cancel_at_ms=row.cancel_at_ms,
        is_last_month=in_last_cycle(row),
        pay_url=row.short_url,
    )


async def _given(session: AsyncSession, tenant_id: UUID, rows: _Rows, at_ms: int) -> list[Given]:
    """The access now and later, as admission reads it."""
    row = await session.get(EntitlementRow, tenant_id)
    if row is None:
        return [Given(0, Access.FULL)]
    segments = segments_of(
        msgspec.convert(row.schedule, Schedule),
        plan=msgspec.convert(row.limits, PlanLimits),
        plan_version=row.plan_version or None,
        defaults=PlanLimits(),
    )
    begun = [segment for segment in segments if segment.from_ms <= at_ms]
    return [_access(segment, rows, at_ms) for segment in (begun[-1], *(one for one in segments if one.from_ms > at_ms))]


def _access(segment: Segment, rows: _Rows, at_ms: int) -> Given:
    if segment.refusal is not None:
        return Given(segment.from_ms, Access.REFUSED, code=segment.refusal.code)
    names = {plan_version(plan): plan.name for plan in (rows.own, rows.sold) if plan is not None}
    kind = Access.REDUCED if _is_reduced(segment, rows, max(segment.from_ms, at_ms)) else Access.FULL
    return Given(segment.from_ms, kind, names.get(segment.plan_version or ""))


def _is_reduced(segment: Segment, rows: _Rows, at_ms: int) -> bool:
    """Whether an unpaid subscriber has the limits of its own plan at this time (`when_unpaid: free`)."""
    own, live, sold = rows.own, rows.live, rows.sold
    if own is None or live is None or sold is None or plan_version(own) == plan_version(sold):
        return False
    if segment.plan_version != plan_version(own):
        return False
    owes_bill = any(debt.due_ms <= at_ms for debt in rows.debts)
    ends = live.cancel_at_ms is not None and live.cancel_at_ms <= at_ms
    owes_fee = live.paid_through_ms is not None and live.paid_through_ms <= at_ms and not ends
    return owes_bill or (owes_fee and not in_last_cycle(live))
