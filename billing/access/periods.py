"""A tenant's billing periods as rows: those that Razorpay confirmed, and foreseen ones.

A period that began is never deleted, though it may end earlier than foreseen. A cycle that Razorpay confirmed has
Razorpay's boundaries. Foreseen periods that have not begun are rewritten by every projection. So a boundary recorded
late leaves the same rows as one recorded in time. A calendar month ends where a subscription begins, and continues if
the tenant returns to its own plan within it. Everything runs under the tenant's lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import Planned, cycle_name
from billing.context import CLOSES, enqueue_after_commit
from billing.models import BillingPeriod, Plan, Subscription
from billing.models.states import PeriodKind, PeriodState
from billing.rating.overage import PastAllowance
from billing.rating.terms import stored_terms
from metering.quota.windows import Calendar, Window

SUFFIX_LENGTH = 6
"""Characters of a subscription's id at the end of its cycles' names."""


@dataclass(frozen=True, slots=True)
class Sold:
    """A subscription and its plan."""

    subscription: Subscription
    plan: Plan


async def record_cycle(
    session: AsyncSession,
    subscription: Subscription,
    *,
    starts_ms: int,
    ends_ms: int,
    razorpay_invoice_id: str,
    paid: bool,
) -> BillingPeriod:
    """Records the cycle that an invoice of Razorpay's opens. Idempotent; a repeat may mark it paid. Project afterwards.

    A cycle that was cut, because its subscription ended unpaid, gets its end back when it is paid after all.
    """
    name = cycle_name(starts_ms, cycle_suffix(subscription))
    row = await session.get(BillingPeriod, (subscription.tenant_id, name))
    if row is None:
        plan = await session.get_one(Plan, (subscription.plan_code, subscription.plan_version))
        row = new_period(subscription.tenant_id, name, PeriodKind.CYCLE, starts_ms, ends_ms, plan)
        row.subscription_id, row.paid = subscription.id, False
        session.add(row)
    elif row.foreseen or (paid and not row.paid):
        row.starts_ms = starts_ms
        _end(session, row, ends_ms)
    row.foreseen = False
    row.paid = row.paid or paid
    row.razorpay_invoice_id = razorpay_invoice_id or row.razorpay_invoice_id
    await session.flush()
    return row


def cycle_suffix(subscription: Subscription) -> str:
    """The end of its cycles' names, which makes them unique."""
    return (subscription.razorpay_id or subscription.id.hex)[-SUFFIX_LENGTH:]


async def periods_of(session: AsyncSession, tenant_id: UUID) -> Sequence[BillingPeriod]:
    """A tenant's periods, oldest first."""
    query = select(BillingPeriod).where(BillingPeriod.tenant_id == tenant_id)
    return (await session.scalars(query.order_by(BillingPeriod.starts_ms, BillingPeriod.period_id))).all()


async def period_at(session: AsyncSession, tenant_id: UUID, at_ms: int) -> BillingPeriod | None:
    """The period that covers a time."""
    query = (
        select(BillingPeriod)
        .where(BillingPeriod.tenant_id == tenant_id, BillingPeriod.starts_ms <= at_ms, BillingPeriod.ends_ms > at_ms)
        .order_by(BillingPeriod.starts_ms.desc())
        .limit(1)
    )
    return (await session.scalars(query)).one_or_none()


async def write_periods(
    session: AsyncSession,
    tenant_id: UUID,
    known: Sequence[BillingPeriod],
    planned: Sequence[Planned],
    sold: Mapping[str, Sold],
    own_plan: Plan | None,
    zone: ZoneInfo,
    now_ms: int,
) -> None:
    """Makes the `known` rows match the planned periods, and this month and the next for a plan without a subscription.

    `known`: all of the tenant's periods (`periods_of`).
    """
    rows = {row.period_id: row for row in known}
    for period in planned:
        found = rows.get(period.name)
        if found is None:
            session.add(_new(tenant_id, period, sold[period.subscription]))
        else:
            _follow(session, found, period, sold[period.subscription].plan, now_ms)
    expected = {period.name for period in planned}
    for row in rows.values():
        if row.kind != PeriodKind.MONTH and row.period_id not in expected and row.ends_ms > now_ms:
            await _remove(session, row, now_ms)
    for month in _months(zone, now_ms):
        ends_ms = _last_gap(month, planned)
        await _write_month(session, tenant_id, rows.get(month.name), month, ends_ms, own_plan, now_ms)
    await session.flush()


def _new(tenant_id: UUID, period: Planned, sold: Sold) -> BillingPeriod:
    row = new_period(tenant_id, period.name, period.kind, period.starts_ms, period.ends_ms, sold.plan)
    row.subscription_id, row.foreseen = sold.subscription.id, period.foreseen
    if period.kind == PeriodKind.TRIAL:
        row.terms = stored_terms(sold.plan) | {"past_allowance": PastAllowance.BLOCK.value}
    return row


def _follow(session: AsyncSession, row: BillingPeriod, period: Planned, plan: Plan, now_ms: int) -> None:
    """Updates a row: confirmed cycles keep their start, ended ones their end; those not begun get the plan's terms."""
    if row.ends_ms <= now_ms and period.ends_ms <= now_ms:
        return
    if row.foreseen and row.starts_ms > now_ms:
        row.starts_ms = period.starts_ms
        row.plan_code, row.plan_version, row.terms = plan.code, plan.version, stored_terms(plan)
    _end(session, row, period.ends_ms)


async def _remove(session: AsyncSession, row: BillingPeriod, now_ms: int) -> None:
    """Deletes a foreseen period that won't happen; one that began ends now, since usage may be metered in it."""
    if row.starts_ms >= now_ms:
        await session.delete(row)
    else:
        _end(session, row, now_ms)


async def _write_month(
    session: AsyncSession,
    tenant_id: UUID,
    row: BillingPeriod | None,
    month: Window,
    ends_ms: int | None,
    own_plan: Plan | None,
    now_ms: int,
) -> None:
    """A month ends with its last time span without a subscription, and has the terms of the tenant's own plan."""
    goes_on = ends_ms is not None and ends_ms > now_ms
    if row is None:
        if own_plan is not None and ends_ms is not None and goes_on:
            session.add(new_period(tenant_id, month.name, PeriodKind.MONTH, month.starts_ms, ends_ms, own_plan))
        return
    if own_plan is not None and ends_ms is not None and goes_on:
        row.plan_code, row.plan_version, row.terms = own_plan.code, own_plan.version, stored_terms(own_plan)
        _end(session, row, ends_ms)
    elif row.starts_ms > now_ms:
        await session.delete(row)
    elif row.ends_ms > now_ms:
        _end(session, row, now_ms if own_plan is None or ends_ms is None else max(ends_ms, row.starts_ms))


def _months(zone: ZoneInfo, now_ms: int) -> tuple[Window, Window]:
    calendar = Calendar(zone.key)
    present = calendar.month(now_ms)
    return present, calendar.month(present.ends_ms)


def _last_gap(month: Window, planned: Sequence[Planned]) -> int | None:
    """End of the month's last time span without a subscription's period; None if there is none."""
    found: int | None = None
    open_from_ms = month.starts_ms
    for period in planned:
        if period.ends_ms <= month.starts_ms or period.starts_ms >= month.ends_ms:
            continue
        if period.starts_ms > open_from_ms:
            found = period.starts_ms
        open_from_ms = max(open_from_ms, period.ends_ms)
    return month.ends_ms if open_from_ms < month.ends_ms else found


def _end(session: AsyncSession, row: BillingPeriod, ends_ms: int) -> None:
    """Moves the end, which makes the period due for another close; that one deducts what was billed already."""
    if row.ends_ms != ends_ms:
        row.ends_ms = ends_ms
        row.state = PeriodState.OPEN
        enqueue_after_commit(session, CLOSES)


def new_period(tenant_id: UUID, name: str, kind: str, starts_ms: int, ends_ms: int, plan: Plan) -> BillingPeriod:
    """The row of an open period with a plan's terms."""
    return BillingPeriod(
        tenant_id=tenant_id,
        period_id=name,
        kind=kind,
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        plan_code=plan.code,
        plan_version=plan.version,
        terms=stored_terms(plan),
        state=PeriodState.OPEN,
        foreseen=False,
        paid=False,
    )
