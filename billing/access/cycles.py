"""The billing periods of a subscription: Razorpay's cycles, and the foreseen ones after them. Pure.

Razorpay's rule (its samples): the first cycle begins at the authorisation (or the agreed start) and ends at midnight in
India on the same day of the next month; later ones run from midnight to midnight. In a month without that day it ends
on the last one (an assumption), and later months return to the day. So usage right after a boundary is metered in the
right cycle before any webhook arrives. Calendar months, for tenants without a subscription, are not planned here.
"""

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone

from billing.models.states import PeriodKind
from core.clock import to_datetime, to_ms

IST = timezone(timedelta(hours=5, minutes=30))
AHEAD = 2
"""Foreseen cycles past the current one: this many boundaries may pass while no worker runs."""
_MOST = 1200
"""Razorpay's limit on the cycles of a subscription."""


@dataclass(frozen=True, slots=True)
class CycleFacts:
    """A cycle that Razorpay confirmed."""

    name: str
    starts_ms: int
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A period as planned: `starts_ms <= t < ends_ms`."""

    name: str
    kind: str
    starts_ms: int
    ends_ms: int
    subscription: str
    foreseen: bool


@dataclass(frozen=True, slots=True)
class Course:
    """The known facts of a subscription's cycles. `suffix`, the end of its id, makes the names of its cycles unique.

    `anchor_ms`: the start of its first cycle, whose day of the month the others keep. `present`: Razorpay's current
    cycle, start and end. `left`: how many may still be foreseen. `cut_ms`: it has no period from then on. `trial_ms`:
    start and end of the trial before its first cycle.
    """

    subscription: str
    suffix: str
    anchor_ms: int | None
    known: Sequence[CycleFacts]
    present: tuple[int, int] | None
    left: int
    cut_ms: int | None
    trial_ms: tuple[int, int] | None = None


def cycle_name(starts_ms: int, suffix: str) -> str:
    """The period id of usage in this cycle: `2026-11-05-kRVe7H`."""
    return f"{_india(starts_ms):%Y-%m-%d}-{suffix}"


def cycle_end(starts_ms: int, anchor_day: int) -> int:
    """End of a cycle: midnight in India on `anchor_day` of the next month, or on its last day."""
    year, month = divmod(_india(starts_ms).year * 12 + _india(starts_ms).month, 12)
    day = min(anchor_day, calendar.monthrange(year, month + 1)[1])
    return to_ms(datetime(year, month + 1, day, tzinfo=IST))


def plan_periods(courses: Iterable[Course], now_ms: int) -> tuple[Planned, ...]:
    """The periods of all subscriptions in order; from a newer one's first cycle on, only the newer one counts."""
    found: list[Planned] = []
    for course in sorted(courses, key=_first_start, reverse=True):
        until = min((period.starts_ms for period in found if period.kind == PeriodKind.CYCLE), default=None)
        found += (_until(period, until) for period in _of_one(course, now_ms))
    found.sort(key=lambda period: (period.starts_ms, period.ends_ms, period.name))
    planned: list[Planned] = []
    for period in found:
        starts_ms = max(period.starts_ms, planned[-1].ends_ms) if planned else period.starts_ms
        if starts_ms < period.ends_ms:
            planned.append(replace(period, starts_ms=starts_ms))
    return tuple(planned)


def _of_one(course: Course, now_ms: int) -> list[Planned]:
    spans = {cycle.name: (cycle.starts_ms, cycle.ends_ms, False) for cycle in course.known}
    if course.present is not None:
        starts_ms, ends_ms = course.present
        name = cycle_name(starts_ms, course.suffix)
        spans[name] = (starts_ms, ends_ms, name not in spans)
    for starts_ms, ends_ms in _foreseen(course, max((span[1] for span in spans.values()), default=None), now_ms):
        spans.setdefault(cycle_name(starts_ms, course.suffix), (starts_ms, ends_ms, True))
    periods = [
        Planned(name, PeriodKind.CYCLE, *span[:2], course.subscription, foreseen=span[2])
        for name, span in spans.items()
    ]
    if course.trial_ms is not None:
        name = f"{_india(course.trial_ms[0]):%Y-%m-%d}-trial-{course.suffix}"
        periods.append(Planned(name, PeriodKind.TRIAL, *course.trial_ms, course.subscription, foreseen=False))
    return [_until(period, course.cut_ms) for period in periods]


def _foreseen(course: Course, after_ms: int | None, now_ms: int) -> list[tuple[int, int]]:
    """The cycles after the last known one: up to the current one, and AHEAD more."""
    starts_ms = course.anchor_ms if after_ms is None else after_ms
    if starts_ms is None:
        return []
    anchor_day = _india(starts_ms if course.anchor_ms is None else course.anchor_ms).day
    spans: list[tuple[int, int]] = []
    ahead = 0
    while len(spans) < min(course.left, _MOST) and ahead < AHEAD:
        spans.append((starts_ms, cycle_end(starts_ms, anchor_day)))
        ahead += starts_ms > now_ms
        starts_ms = spans[-1][1]
    return spans


def _first_start(course: Course) -> tuple[int, str]:
    starts = [cycle.starts_ms for cycle in course.known]
    starts += [moment for moment in (course.anchor_ms, course.present and course.present[0]) if moment is not None]
    return min(starts, default=0), course.subscription


def _until(period: Planned, ends_ms: int | None) -> Planned:
    """The part of a period before `ends_ms`, which may be empty."""
    return period if ends_ms is None or period.ends_ms <= ends_ms else replace(period, ends_ms=ends_ms)


def _india(at_ms: int) -> date:
    return to_datetime(at_ms).astimezone(IST).date()
