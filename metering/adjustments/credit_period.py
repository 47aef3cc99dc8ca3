"""The period and the day in which a credit counts.

A credit counts in one segment of a period (`2026-11~2`), whose terms price it. A given one is a month, or one that was
scheduled for the tenant or has its usage; a period's own name is its first segment. It must have begun: counters exist
only for periods that have. Postgres down: the driver's error.
"""

import re
from datetime import date, timedelta
from uuid import UUID

import msgspec

from core.errors import Invalid
from metering.journal.epoch import Fetch
from metering.quota.schedule import Period, Schedule, period_at
from metering.quota.windows import Calendar, day_start_ms

_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_YEARS = range(2020, 2101)


async def resolve_credit_period(
    fetch: Fetch, tenant_id: UUID, period_id: str | None, day: date | None, now_ms: int, calendar: Calendar
) -> tuple[str, date]:
    """The period and the day of a credit. Raises Invalid if they are not valid, or the day is not in the period."""
    today, periods = calendar.date_of(now_ms), await _scheduled(fetch, tenant_id)
    if period_id is None and day in (None, today):
        return period_at(periods, now_ms, calendar).name, today
    named = period_id or await _period_of(fetch, tenant_id, periods, day or today, calendar)
    first, last = await _days(fetch, tenant_id, named, periods, calendar)
    if day is not None and not first <= day <= last:
        raise Invalid("the day is not in the period")
    if (day or first) > today:
        raise Invalid("a credit cannot count in a future day or period")
    return named, day or min(max(today, first), last)


async def _scheduled(fetch: Fetch, tenant_id: UUID) -> tuple[Period, ...]:
    found = await fetch("SELECT schedule::text AS schedule FROM entitlements WHERE tenant_id = $1", tenant_id)
    return msgspec.json.decode(found[0]["schedule"], type=Schedule).periods if found else ()


async def _period_of(fetch: Fetch, tenant_id: UUID, periods: tuple[Period, ...], day: date, calendar: Calendar) -> str:
    """The segment in which a day begins; if that is no longer scheduled, one with usage of that day, or the month."""
    at_ms = day_start_ms(day, calendar.zone)
    scheduled = next((one.name for one in periods if one.starts_ms <= at_ms < one.ends_ms), None)
    if scheduled is not None:
        return scheduled
    used = await fetch(
        "SELECT min(period_id) AS name FROM usage_by_day WHERE tenant_id = $1 AND day = $2", tenant_id, day
    )
    return used[0]["name"] or f"{day:%Y-%m}"


async def _days(
    fetch: Fetch, tenant_id: UUID, period_id: str, periods: tuple[Period, ...], calendar: Calendar
) -> tuple[date, date]:
    """The first and the last day of a period. Raises Invalid if it is neither a month nor one of the tenant's."""
    if _MONTH.fullmatch(period_id) and int(period_id[:4]) in _YEARS:
        first = date.fromisoformat(f"{period_id}-01")
        return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    parts = [one for one in periods if one.name == period_id]
    if parts:
        first_ms, last_ms = min(one.starts_ms for one in parts), max(one.ends_ms for one in parts) - 1
        return calendar.date_of(first_ms), calendar.date_of(last_ms)
    (counted,) = await fetch(
        "SELECT min(day) AS first, max(day) AS last FROM usage_daily WHERE tenant_id = $1 AND period_id = $2",
        tenant_id,
        period_id,
    )
    if counted["first"] is None:
        raise Invalid("unknown period: give a month, as 2026-11, or a period of the tenant")
    return counted["first"], counted["last"]
