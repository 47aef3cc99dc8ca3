"""Alerts at 50, 80 and 100 % of an allowance, a limit or a ceiling; of renewals, arrears and low balances.

A duty checks every minute, off the request path. Usage comes from the rollup and the meters, so an alert is as exact as
a bill. An alert is stored once, with or without an endpoint. Postgres down: the next run finds the same alerts.
"""

from collections.abc import Iterable
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Select, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from billing.access.periods import period_at
from billing.alerts.balances import low_balance, with_a_bound
from billing.alerts.thresholds import Bound, MonitoredLimit
from billing.context import BillingContext
from billing.models import Alert, AlertEndpoint, BillingPeriod, Subscription
from billing.models.states import AlertState
from billing.rating.overage import PastAllowance, Reading, Terms, price_period
from billing.readings import read_period
from billing.segments import effective_terms
from billing.standing.reader import money_status, tenants_in_arrears
from billing.standing.status import MoneyState
from billing.standing.words import say
from billing.writes import for_each, for_each_key
from core.clock import now_ms
from core.ids import uuid7, uuid7_floor
from core.money import NANO_USD_PER_MICRO_USD, ceil_div
from core.resilience.rates import RateLimited
from core.settings import Settings
from core.tenancy.models import Tenant
from metering.counts import COUNT_COLUMNS
from metering.models import EntitlementRow, LimitRow, UsageDaily
from metering.quota.counters import WindowState
from metering.quota.decision import count
from metering.quota.default_limits import default_limits
from metering.quota.limits import Limit, Meter, PlanLimits
from metering.quota.schedule import Schedule, segments_of, window_of
from metering.quota.schedule import period_at as admitted_period
from metering.quota.windows import Calendar, WindowKind

REACHED = "usage.threshold_reached"
RENEWAL = "subscription.renewal_due"
LOW_BALANCE = "wallet.balance_low"
OVERDUE, HALTED = "account.overdue", "account.halted"
TEST = "alerts.test"
TESTS_PER_MINUTE = 10
_MOST_LATE = 100_000
"""Tenants in arrears that one run looks at, one after the other."""
_MINUTE_MS = 60_000


async def store_alerts(context: BillingContext) -> int:
    """The duty LEVELS: stores an alert for every newly reached level and returns how many.

    A failing tenant doesn't stop the others. Raises Unavailable.
    """
    calendar = Calendar(context.settings.timezone)
    at_ms = now_ms()
    levels = partial(_levels, calendar=calendar, at_ms=at_ms)
    found = await for_each_key(context, _busy_tenants(calendar, at_ms), levels, "usage_alert")
    found += await for_each_key(context, _last_cycles(at_ms), partial(_renewal, at_ms=at_ms), "renewal_alert")
    found += await for_each_key(context, with_a_bound(), partial(_low_balance, at_ms=at_ms), "balance_alert")
    async with context.database.session() as session:
        late = await tenants_in_arrears(session, at_ms, limit=_MOST_LATE)
    return found + await for_each(context, [(one,) for one in late], partial(_arrears, at_ms=at_ms), "arrears_alert")


async def send_test_alert(session: AsyncSession, tenant_id: UUID) -> Alert:
    """Stores a test alert for the tenant's endpoint. Raises RateLimited.

    The limit is counted in Postgres, over all processes; two simultaneous calls may exceed it by one.
    """
    at_ms, alert_id = now_ms(), uuid7()
    since_ms = at_ms - _MINUTE_MS
    recent = select(func.count(), func.min(Alert.at_ms)).where(
        Alert.tenant_id == tenant_id, Alert.id >= uuid7_floor(since_ms), Alert.at_ms > since_ms, Alert.kind == TEST
    )
    tests, first_ms = (await session.execute(recent)).one()
    if tests >= TESTS_PER_MINUTE:
        wait_s = max(1, ceil_div(first_ms - since_ms, 1000))
        raise RateLimited(
            f"at most {TESTS_PER_MINUTE} test alerts are sent in a minute: try again in {wait_s} s",
            retry_after_s=wait_s,
        )
    row = Alert(tenant_id=tenant_id, id=alert_id, key=f"test:{alert_id}", kind=TEST, data={}, at_ms=at_ms)
    row.state, row.due_ms = AlertState.PENDING, at_ms
    session.add(row)
    await session.flush()
    return row


def _busy_tenants(calendar: Calendar, at_ms: int) -> Select[UUID]:
    """Tenants with usage today; no other can have reached a level since the last run."""
    today = calendar.date_of(at_ms)
    used = select(UsageDaily.tenant_id).where(UsageDaily.tenant_id == Tenant.id, UsageDaily.day == today).exists()
    return select(Tenant.id).where(used)


async def _levels(context: BillingContext, tenant_id: UUID, *, calendar: Calendar, at_ms: int) -> int:
    async with context.database.session() as session:
        return await _store(session, tenant_id, calendar, at_ms, context.settings)


async def _store(session: AsyncSession, tenant_id: UUID, calendar: Calendar, at_ms: int, settings: Settings) -> int:
    watched = [
        *await _bills(session, tenant_id, at_ms),
        *await _limits(session, tenant_id, calendar, at_ms, default_limits(settings)),
    ]
    reached = [(one, level) for one in watched for level in one.reached()]
    if not reached:
        return 0
    known = set(
        await session.scalars(
            select(Alert.key).where(
                Alert.tenant_id == tenant_id, Alert.key.in_([one.key(level) for one, level in reached])
            )
        )
    )
    new = [(one, level) for one, level in reached if one.key(level) not in known]
    for one, level in new:
        await _store_alert(session, tenant_id, one.key(level), REACHED, _data(tenant_id, one, level, settings), at_ms)
    return len(new)


async def _store_alert(
    session: AsyncSession, tenant_id: UUID, key: str, kind: str, data: dict[str, Any], at_ms: int
) -> bool:
    """Stores an alert once, and returns whether it is new; it is delivered if the tenant has an endpoint."""
    has_endpoint = await session.get(AlertEndpoint, tenant_id) is not None
    values = {
        "tenant_id": tenant_id,
        "id": uuid7(),
        "key": key,
        "kind": kind,
        "data": data,
        "at_ms": at_ms,
        "state": AlertState.PENDING if has_endpoint else AlertState.NONE,
        "due_ms": at_ms if has_endpoint else None,
    }
    statement = insert(Alert).values(values).on_conflict_do_nothing()
    return await session.scalar(statement.returning(Alert.id)) is not None


def _last_cycles(at_ms: int) -> Select[UUID, UUID, int | None]:
    """Subscriptions in their last cycle, without a successor or an alert, and the cycle's end."""
    following, stored = aliased(Subscription), select(Alert.key).where(Alert.kind == RENEWAL)
    return select(Subscription.tenant_id, Subscription.id, Subscription.current_end_ms).where(
        Subscription.remaining_count == 0,
        Subscription.authorised_ms.is_not(None),
        Subscription.current_end_ms > at_ms,
        Subscription.cancel_at_ms.is_(None),
        func.concat("renewal:", Subscription.id).not_in(stored),
        ~exists().where(following.replaces == Subscription.id, following.authorised_ms.is_not(None)),
    )


async def _renewal(context: BillingContext, tenant_id: UUID, subscription_id: UUID, ends_ms: int, *, at_ms: int) -> int:
    data = {"tenant_id": str(tenant_id), "subscription_id": str(subscription_id), "ends_at_ms": ends_ms}
    async with context.database.session() as session:
        return await _store_alert(session, tenant_id, f"renewal:{subscription_id}", RENEWAL, data, at_ms)


async def _low_balance(context: BillingContext, tenant_id: UUID, low_paise: int, *, at_ms: int) -> int:
    async with context.database.session() as session:
        found = await low_balance(session, tenant_id, low_paise, at_ms)
        return found is not None and await _store_alert(session, tenant_id, found[0], LOW_BALANCE, found[1], at_ms)


async def _arrears(context: BillingContext, tenant_id: UUID, *, at_ms: int) -> int:
    """Alerts a tenant that became overdue or halted, in the words of its pages; once for each state and start."""
    async with context.database.session() as session:
        status = await money_status(session, tenant_id, at_ms)
        if not status.needs_payment:
            return 0
        data = {
            "tenant_id": str(tenant_id),
            "state": status.state.value,
            "text": say(status, context.zone).whole,
            "overdue_paise": status.overdue_paise,
            "since_ms": status.since_ms,
            "access": status.now.access.value,
        }
        key, kind = f"{status.state.value}:{status.since_ms}", HALTED if status.state is MoneyState.HALTED else OVERDUE
        return await _store_alert(session, tenant_id, key, kind, data, at_ms)


def _data(tenant_id: UUID, one: MonitoredLimit, level: int, settings: Settings) -> dict[str, Any]:
    """The alert's data. Amounts of a limit of spend are the provider's cost: null, unless tenants may see it."""
    is_hidden = one.bound is Bound.LIMIT and one.meter == Meter.SPEND and not settings.show_provider_cost
    return {
        "tenant_id": str(tenant_id),
        "user_id": None if one.user_id is None else str(one.user_id),
        "kind": one.bound.value,
        "meter": one.meter,
        "window": one.window,
        "window_name": one.window_name,
        "level": level,
        "limit": None if is_hidden else one.limit,
        "used": None if is_hidden else one.used,
    }


async def _bills(session: AsyncSession, tenant_id: UUID, at_ms: int) -> list[MonitoredLimit]:
    """The current period's allowances and ceiling, with what its earlier segments used of them."""
    period = await period_at(session, tenant_id, at_ms)
    if period is None:
        return []
    terms = await effective_terms(session, period)
    return watched_terms(terms, await read_period(session, tenant_id, period.period_id), period)


def watched_terms(terms: Terms, reading: Reading, period: BillingPeriod) -> list[MonitoredLimit]:
    """Allowances in their meter's unit, and the ceiling in paise before tax against the uncapped price. Pure.

    `terms`: those that the segment is priced by. A level alerts once per period and plan, however often it is cut.
    """
    version = f"{period.plan_code}@{period.plan_version}"
    window = window_of(period.period_id)
    watched = [
        MonitoredLimit(
            Bound.ALLOWANCE,
            None,
            meter.meter.value,
            WindowKind.PERIOD.value,
            window,
            whole,
            reading.quantity(meter.meter) + whole - meter.allowance,
            f"{version}:{whole}",
        )
        for meter in terms.meters
        for whole in [meter.allowance if meter.of_allowance is None else meter.of_allowance]
    ]
    if terms.past_allowance is PastAllowance.BILL and terms.ceiling_paise is not None:
        owed = sum(line.whole_paise for line in price_period(reading, terms).lines)
        most = msgspec.convert(period.terms, Terms).ceiling_paise or terms.ceiling_paise
        ceiling = (most, owed + most - terms.ceiling_paise, f"{version}:{most}")
        watched.append(MonitoredLimit(Bound.CEILING, None, "charge", WindowKind.PERIOD.value, window, *ceiling))
    return watched


async def _limits(
    session: AsyncSession, tenant_id: UUID, calendar: Calendar, at_ms: int, defaults: PlanLimits
) -> list[MonitoredLimit]:
    """Daily and period limits of the tenant and of each user with usage today."""
    row = await session.get(EntitlementRow, tenant_id)
    schedule = Schedule() if row is None else msgspec.convert(row.schedule, Schedule)
    plan = _plan_limits(row, schedule, at_ms, defaults)
    sets = await session.scalars(select(LimitRow).where(LimitRow.tenant_id == tenant_id))
    own = {one.subject_id: msgspec.convert(one.limits, tuple[Limit, ...]) for one in sets}
    names = {
        WindowKind.DAY: calendar.day(at_ms).name,
        WindowKind.PERIOD: window_of(admitted_period(schedule.periods, at_ms, calendar).name),
    }
    used = await _used(session, tenant_id, names)
    watched = list(_of_subject(None, own.get(tenant_id, plan.tenant.limits), used, names))
    for user_id in {subject for subject, _ in used if subject is not None}:
        watched += _of_subject(user_id, own.get(user_id, plan.user.limits), used, names)
    return watched


def _plan_limits(row: EntitlementRow | None, schedule: Schedule, at_ms: int, defaults: PlanLimits) -> PlanLimits:
    """The limits of each user and of the tenant, as admission applies them. None while every request is refused."""
    if row is None:
        return defaults
    own = msgspec.convert(row.limits, PlanLimits)
    segments = segments_of(schedule, plan=own, plan_version=row.plan_version, defaults=defaults)
    segment = next(one for one in reversed(segments) if one.from_ms <= at_ms)
    return segment.limits if segment.refusal is None else PlanLimits()


def _of_subject(
    user_id: UUID | None,
    limits: Iterable[Limit],
    used: dict[tuple[UUID | None, WindowKind], tuple[int, ...]],
    names: dict[WindowKind, str],
) -> Iterable[MonitoredLimit]:
    for limit in limits:
        counts = used.get((user_id, limit.window))
        if counts is None or limit.window not in names:
            continue
        counted, _ = count(limit.meter, WindowState(counts))
        in_unit = counted // NANO_USD_PER_MICRO_USD if limit.meter is Meter.SPEND else counted
        window = (limit.window.value, names[limit.window])
        yield MonitoredLimit(Bound.LIMIT, user_id, limit.meter.value, *window, limit.limit, in_unit, str(limit.limit))


async def _used(
    session: AsyncSession, tenant_id: UUID, names: dict[WindowKind, str]
) -> dict[tuple[UUID | None, WindowKind], tuple[int, ...]]:
    """The nine counts by user (None: the tenant) and window, of users with usage today."""
    sums = [func.sum(getattr(UsageDaily, name)) for name in COUNT_COLUMNS]
    of_tenant = UsageDaily.tenant_id == tenant_id
    today = select(UsageDaily.user_id).where(of_tenant, UsageDaily.day == date.fromisoformat(names[WindowKind.DAY]))
    used: dict[tuple[UUID | None, WindowKind], tuple[int, ...]] = {}
    for window, inside in (
        (WindowKind.DAY, UsageDaily.day == date.fromisoformat(names[WindowKind.DAY])),
        (WindowKind.PERIOD, func.split_part(UsageDaily.period_id, "~", 1) == names[WindowKind.PERIOD]),
    ):
        here = (of_tenant, inside)
        by_user = select(UsageDaily.user_id, *sums).where(*here, UsageDaily.user_id.in_(today))
        by_user = by_user.group_by(UsageDaily.user_id)
        for user_id, *counts in (await session.execute(by_user)).all():
            used[user_id, window] = tuple(int(value) for value in counts)
        (whole,) = (await session.execute(select(*sums).where(*here))).all()
        used[None, window] = tuple(int(value or 0) for value in whole)
    return used
