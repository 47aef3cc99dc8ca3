"""A tenant's billing periods as rows: those that Razorpay confirmed, and foreseen ones.

A row is a *segment* of a period: where the wanted terms differ from those of a row that has begun, the row ends now and
the next segment (`2026-11~2`) goes on with the new ones. So no operation edits the terms under which something was
granted, and every change of a plan is this one mechanism: switches, moves, versions, authorisations, cancels.

A segment that began is never deleted, though it may end earlier than planned. A cycle that Razorpay confirmed has
Razorpay's boundaries. Segments that have not begun are rewritten by every projection. So a boundary recorded late
leaves the same rows as one recorded in time. A calendar month ends where a subscription begins, and continues if the
tenant returns to its own plan within it. Everything runs under the tenant's lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import Planned, cycle_name
from billing.context import CLOSES, enqueue_after_commit
from billing.models import BillingPeriod, Plan, Subscription
from billing.models.states import TERMINAL, PeriodKind, PeriodState, SubscriptionStatus
from billing.rating.overage import PastAllowance, Terms
from billing.rating.terms import early_overage, stored_terms, terms_of, to_stored
from billing.segments import segments_of
from metering.quota.schedule import Period, number_of, segment_name, window_of
from metering.quota.windows import Calendar, Window

SUFFIX_LENGTH = 6
"""Characters of a subscription's id at the end of its cycles' names."""


@dataclass(frozen=True, slots=True)
class Sold:
    """A subscription and its plan."""

    subscription: Subscription
    plan: Plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """The plan and the terms that a period should have from now on."""

    plan: Plan
    terms: dict[str, Any]

    def is_of(self, row: BillingPeriod) -> bool:
        """Whether the row has them already."""
        of_plan = (row.plan_code, row.plan_version) == (self.plan.code, self.plan.version)
        return of_plan and msgspec.convert(row.terms, Terms) == msgspec.convert(self.terms, Terms)

    def write(self, row: BillingPeriod) -> None:
        """Gives them to a row that has not begun."""
        row.plan_code, row.plan_version, row.terms = self.plan.code, self.plan.version, self.terms


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
    rows = await segments_of(session, subscription.tenant_id, name)
    if not rows:
        plan = await session.get_one(Plan, (subscription.plan_code, subscription.plan_version))
        rows = [new_period(subscription.tenant_id, name, PeriodKind.CYCLE, starts_ms, ends_ms, plan)]
        rows[0].subscription_id = subscription.id
        session.add(rows[0])
    elif rows[0].foreseen or (paid and not rows[0].paid):
        rows[0].starts_ms = starts_ms if len(rows) == 1 else min(starts_ms, rows[0].ends_ms)
        _end(session, rows[-1], ends_ms if len(rows) == 1 else max(ends_ms, rows[-1].starts_ms))
    for row in rows:
        row.foreseen = False
        row.paid = row.paid or paid
    rows[0].razorpay_invoice_id = razorpay_invoice_id or rows[0].razorpay_invoice_id
    await session.flush()
    return rows[0]


def cycle_suffix(subscription: Subscription) -> str:
    """The end of its cycles' names, which makes them unique."""
    return (subscription.razorpay_id or subscription.id.hex)[-SUFFIX_LENGTH:]


async def periods_of(session: AsyncSession, tenant_id: UUID) -> Sequence[BillingPeriod]:
    """All segments of a tenant's periods, oldest first."""
    query = select(BillingPeriod).where(BillingPeriod.tenant_id == tenant_id)
    return (await session.scalars(query.order_by(BillingPeriod.starts_ms, BillingPeriod.period_id))).all()


async def period_at(session: AsyncSession, tenant_id: UUID, at_ms: int) -> BillingPeriod | None:
    """The segment that covers a time."""
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

    `known`: all of the tenant's rows (`periods_of`).
    """
    windows = segments_by_period(known)
    for period in planned:
        _write(session, tenant_id, windows.get(period.name, []), period, _wanted(period, sold), now_ms)
    expected = {period.name for period in planned}
    months = _months(zone, now_ms)
    for name, rows in windows.items():
        if rows[0].kind != PeriodKind.MONTH and name not in expected:
            await _stop(session, rows, now_ms, now_ms)
    for month in months:
        await _write_month(session, tenant_id, windows.get(month.name, []), month, planned, own_plan, now_ms)
    await session.flush()


def segments_by_period(rows: Sequence[BillingPeriod]) -> dict[str, list[BillingPeriod]]:
    """The rows of each period in order, by its name."""
    ordered = sorted(rows, key=lambda row: (window_of(row.period_id), number_of(row.period_id)))
    return {name: list(found) for name, found in groupby(ordered, key=lambda row: window_of(row.period_id))}


def scheduled(rows: Sequence[BillingPeriod], since_ms: int) -> tuple[Period, ...]:
    """The segments that admission meters in: those of periods that end after `since_ms`, however old. Pure.

    A month of one segment is not listed, since a moment that nothing covers is in the month of that name. A part of a
    month that a subscription interrupts is left out. A segment may be empty, if it was cut when it began.
    """
    found: list[Period] = []
    windows = segments_by_period(rows)
    sold = [row for row in rows if row.kind != PeriodKind.MONTH]
    for window, segments in windows.items():
        is_month = segments[0].kind == PeriodKind.MONTH
        if max(row.ends_ms for row in segments) <= since_ms or (is_month and segments[-1].period_id == window):
            continue
        for row in segments:
            spans = _without(row, sold) if is_month else [(row.starts_ms, row.ends_ms)]
            found += [Period(row.period_id, *span) for span in spans if span[0] < span[1]]
    return tuple(sorted(found, key=lambda one: (one.starts_ms, one.name)))


def _without(row: BillingPeriod, others: Sequence[BillingPeriod]) -> list[tuple[int, int]]:
    """The parts of a row's time that no other one covers."""
    parts, from_ms = [], row.starts_ms
    for other in sorted(others, key=lambda one: one.starts_ms):
        if other.ends_ms > from_ms and other.starts_ms < row.ends_ms:
            parts.append((from_ms, other.starts_ms))
            from_ms = other.ends_ms
    return [*parts, (from_ms, row.ends_ms)]


def _wanted(period: Planned, sold: Mapping[str, Sold]) -> Wanted:
    """The subscription's plan. A trial blocks, and a paid cycle may bill early for the plan that follows it."""
    own = sold[period.subscription]
    terms = stored_terms(own.plan)
    if period.kind == PeriodKind.TRIAL:
        return Wanted(own.plan, terms | {"past_allowance": PastAllowance.BLOCK.value})
    for coming in sold.values():
        if coming.subscription.replaces == own.subscription.id and _is_coming(coming.subscription):
            early = early_overage(terms_of(own.plan), terms_of(coming.plan))
            terms = terms if early is None else to_stored(early)
    return Wanted(own.plan, terms)


def _is_coming(subscription: Subscription) -> bool:
    """Whether a change was authorised and still stands. Until then it has no effect."""
    return (
        subscription.authorised_ms is not None
        and subscription.status not in {SubscriptionStatus.CREATED, *TERMINAL}
        and subscription.cancel_at_ms is None
    )


def _write(
    session: AsyncSession,
    tenant_id: UUID,
    rows: Sequence[BillingPeriod],
    period: Planned,
    wanted: Wanted,
    now_ms: int,
) -> None:
    """Makes a period's rows match: ended ones stay, the running one is cut if its terms change, others are rewritten.

    Confirmed cycles keep their start.
    """
    if not rows:
        session.add(_new(tenant_id, period, wanted))
        return
    for earlier, later in pairwise(rows):
        if earlier.ends_ms > later.starts_ms:  # moved by a process of an older version, which knows no segments
            _end(session, earlier, max(earlier.starts_ms, later.starts_ms))
    last = rows[-1]
    number = number_of(last.period_id)
    if last.ends_ms <= now_ms and period.ends_ms <= now_ms:
        return
    if last.starts_ms > now_ms:
        if number > 1:
            last.starts_ms = max(now_ms, period.starts_ms)
        elif last.foreseen:
            last.starts_ms = period.starts_ms
        wanted.write(last)
        _end(session, last, max(period.ends_ms, last.starts_ms))
    elif wanted.is_of(last) or period.ends_ms <= now_ms:
        _end(session, last, max(period.ends_ms, last.starts_ms))
    else:
        _end(session, last, min(last.ends_ms, now_ms))
        name = segment_name(window_of(last.period_id), number + 1)
        following = replace(period, name=name, starts_ms=max(now_ms, period.starts_ms))
        session.add(_new(tenant_id, following, wanted, foreseen=last.foreseen, paid=last.paid))


def _new(tenant_id: UUID, period: Planned, wanted: Wanted, **fields: bool) -> BillingPeriod:
    row = new_period(tenant_id, period.name, period.kind, period.starts_ms, period.ends_ms, wanted.plan)
    row.subscription_id = UUID(period.subscription) if period.subscription else None
    row.terms, row.foreseen = wanted.terms, period.foreseen
    for name, value in fields.items():
        setattr(row, name, value)
    return row


async def _stop(session: AsyncSession, rows: Sequence[BillingPeriod], ends_ms: int, now_ms: int) -> None:
    """Ends a period that does not go on. What has not begun is deleted; what began stays, for its usage."""
    for row in rows:
        if row.starts_ms > now_ms:
            await session.delete(row)
        elif row.ends_ms > now_ms:
            _end(session, row, max(ends_ms, row.starts_ms))


async def _write_month(
    session: AsyncSession,
    tenant_id: UUID,
    rows: Sequence[BillingPeriod],
    month: Window,
    planned: Sequence[Planned],
    own_plan: Plan | None,
    now_ms: int,
) -> None:
    """A month ends with its last time span without a subscription, and has the terms of the tenant's own plan."""
    gaps = _gaps(month, planned)
    to_come = [starts_ms for starts_ms, ends_ms in gaps if ends_ms > now_ms]
    if own_plan is None or not to_come:
        ends_ms = now_ms if own_plan is None or not gaps else gaps[-1][1]
        await _stop(session, rows, ends_ms, now_ms)
        return
    starts_ms = to_come[0] if rows else month.starts_ms
    period = Planned(month.name, PeriodKind.MONTH, starts_ms, gaps[-1][1], "", foreseen=False)
    _write(session, tenant_id, rows, period, Wanted(own_plan, stored_terms(own_plan)), now_ms)


def _months(zone: ZoneInfo, now_ms: int) -> tuple[Window, Window]:
    calendar = Calendar(zone.key)
    present = calendar.month(now_ms)
    return present, calendar.month(present.ends_ms)


def _gaps(month: Window, planned: Sequence[Planned]) -> list[tuple[int, int]]:
    """The month's time spans without a subscription's period."""
    gaps, open_from_ms = [], month.starts_ms
    for period in planned:
        if period.ends_ms > month.starts_ms and period.starts_ms < month.ends_ms:
            gaps.append((open_from_ms, period.starts_ms))
            open_from_ms = max(open_from_ms, period.ends_ms)
    return [span for span in [*gaps, (open_from_ms, month.ends_ms)] if span[0] < span[1]]


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
