"""A tenant's billing periods as rows: what Razorpay said of them, and what is foreseen.

The rules: what began is history and never goes away, though it may end earlier than foreseen; a cycle that Razorpay
named has Razorpay's boundaries; what is foreseen and has not begun is made anew by every projection. So a boundary that
is learned late, or several at once, leaves the rows that learning it in time would have left. A month that goes over
into a subscription ends there, and goes on if the tenant comes back within it. All under the tenant's lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import CYCLE, MONTH, TRIAL, Planned, cycle_name
from billing.context import CLOSES, enqueue_after_commit
from billing.models import BillingPeriod, Plan, Subscription
from billing.rating.overage import PastAllowance
from billing.rating.terms import terms_of
from metering.quota.windows import Calendar, Window

MARK = 6
"""So many characters of a subscription's id end the names of its cycles."""


@dataclass(frozen=True, slots=True)
class Sold:
    """A subscription and the plan that it is for."""

    subscription: Subscription
    plan: Plan


async def learn_cycle(
    session: AsyncSession,
    subscription: Subscription,
    *,
    starts_ms: int,
    ends_ms: int,
    razorpay_invoice_id: str | None,
    paid: bool,
) -> BillingPeriod:
    """The cycle that an invoice of Razorpay's opens. Again changes nothing, but that it may be paid by now.

    Project afterwards. One that was cut (its subscription ended unpaid) and is paid after all gets its end back.
    """
    name = cycle_name(starts_ms, mark_of(subscription))
    row = await session.get(BillingPeriod, (subscription.tenant_id, name))
    if row is None:
        plan = await session.get_one(Plan, (subscription.plan_code, subscription.plan_version))
        row = _row(subscription.tenant_id, name, CYCLE, starts_ms, ends_ms, plan)
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


def mark_of(subscription: Subscription) -> str:
    """What makes the names of its cycles its own."""
    return (subscription.razorpay_id or subscription.id.hex)[-MARK:]


async def periods_of(session: AsyncSession, tenant_id: UUID) -> Sequence[BillingPeriod]:
    """All of a tenant's, oldest first."""
    query = select(BillingPeriod).where(BillingPeriod.tenant_id == tenant_id)
    return (await session.scalars(query.order_by(BillingPeriod.starts_ms, BillingPeriod.period_id))).all()


async def materialise(
    session: AsyncSession,
    tenant_id: UUID,
    planned: Sequence[Planned],
    sold: Mapping[str, Sold],
    own_plan: Plan | None,
    zone: ZoneInfo | None,
    now_ms: int,
) -> None:
    """Puts the rows in line with what is planned, and with this month and the next for a plan without a subscription.

    Without a zone no month is touched.
    """
    rows = {row.period_id: row for row in await periods_of(session, tenant_id)}
    for period in planned:
        found = rows.get(period.name)
        if found is None:
            session.add(_new(tenant_id, period, sold[period.subscription]))
        else:
            _follow(session, found, period, sold[period.subscription].plan, now_ms)
    expected = {period.name for period in planned}
    for row in rows.values():
        if row.kind != MONTH and row.period_id not in expected and row.ends_ms > now_ms:
            await _drop(session, row, now_ms)
    if zone is not None:
        for month in _months(zone, now_ms):
            ends_ms = _last_gap(month, planned)
            await _lay_month(session, tenant_id, rows.get(month.name), month, ends_ms, own_plan, now_ms)
    await session.flush()


def _new(tenant_id: UUID, period: Planned, sold: Sold) -> BillingPeriod:
    row = _row(tenant_id, period.name, period.kind, period.starts_ms, period.ends_ms, sold.plan)
    row.subscription_id, row.foreseen = sold.subscription.id, period.foreseen
    if period.kind == TRIAL:
        row.terms = _terms(sold.plan) | {"past_allowance": PastAllowance.BLOCK.value}
    return row


def _follow(session: AsyncSession, row: BillingPeriod, period: Planned, plan: Plan, now_ms: int) -> None:
    """What Razorpay named keeps its start; what is over stays as it ended; what has not begun has its plan's terms."""
    if row.ends_ms <= now_ms and period.ends_ms <= now_ms:
        return
    if row.foreseen and row.starts_ms > now_ms:
        row.starts_ms = period.starts_ms
        row.plan_code, row.plan_version, row.terms = plan.code, plan.version, _terms(plan)
    _end(session, row, period.ends_ms)


async def _drop(session: AsyncSession, row: BillingPeriod, now_ms: int) -> None:
    """One that was foreseen and will not be: nothing can have been metered in it before it began."""
    if row.starts_ms >= now_ms:
        await session.delete(row)
    else:
        _end(session, row, now_ms)


async def _lay_month(
    session: AsyncSession,
    tenant_id: UUID,
    row: BillingPeriod | None,
    month: Window,
    ends_ms: int | None,
    own_plan: Plan | None,
    now_ms: int,
) -> None:
    """A month ends where the last stretch of it without a subscription ends, and has the terms of the plan there."""
    goes_on = own_plan is not None and ends_ms is not None and ends_ms > now_ms
    if row is None:
        if own_plan is not None and ends_ms is not None and goes_on:
            session.add(_row(tenant_id, month.name, MONTH, month.starts_ms, ends_ms, own_plan))
        return
    if own_plan is not None and ends_ms is not None and goes_on:
        row.plan_code, row.plan_version, row.terms = own_plan.code, own_plan.version, _terms(own_plan)
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
    """The end of the month's last stretch that no subscription's period covers; None: there is none."""
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
    """Another end is due for another close, which takes what the earlier one billed into account."""
    if row.ends_ms != ends_ms:
        row.ends_ms = ends_ms
        row.state = "open"
        enqueue_after_commit(session, CLOSES)


def _row(tenant_id: UUID, name: str, kind: str, starts_ms: int, ends_ms: int, plan: Plan) -> BillingPeriod:
    return BillingPeriod(
        tenant_id=tenant_id,
        period_id=name,
        kind=kind,
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        plan_code=plan.code,
        plan_version=plan.version,
        terms=_terms(plan),
        state="open",
        foreseen=False,
        paid=False,
    )


def _terms(plan: Plan) -> dict[str, object]:
    """As JSON holds them: a list stays equal to what is read back."""
    terms: dict[str, object] = msgspec.json.decode(msgspec.json.encode(terms_of(plan)))
    return terms
