"""Which periods a subscription meters and bills in: Razorpay's cycles, and those that are foreseen after them. Pure.

The rule is Razorpay's (facts 2.3): the first cycle begins when it is authorised (or when it is to start) and ends at
midnight in India on the same day of the next month; those after it go from midnight to midnight. A month that lacks
that day ends on its last one (an assumption), and the day comes back afterwards. So usage right after a boundary lands
in the right cycle before any webhook came. Months without a subscription are the calendar's, and not planned here.
"""

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone

from core.clock import to_datetime, to_ms

IST = timezone(timedelta(hours=5, minutes=30))
AHEAD = 2
"""Cycles that are foreseen past the present one: so many boundaries may pass with no worker to see them."""
_MOST = 1200
"""Razorpay's own bound on the cycles of a subscription."""
CYCLE, TRIAL, MONTH = "cycle", "trial", "month"
"""The kinds of a period."""


@dataclass(frozen=True, slots=True)
class CycleFacts:
    """A cycle that Razorpay named."""

    name: str
    starts_ms: int
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Planned:
    """A period as it should be: `starts_ms <= t < ends_ms`."""

    name: str
    kind: str
    starts_ms: int
    ends_ms: int
    subscription: str
    foreseen: bool


@dataclass(frozen=True, slots=True)
class Course:
    """What is known of a subscription's cycles. `mark` is the end of its id, which makes their names its own.

    `anchor_ms`: the start of its first cycle, whose day of the month the others keep. `present`: the cycle that
    Razorpay says it is in. `left`: how many may still be foreseen. `cut_ms`: it has no period from then on.
    `trial_ms`: the trial before its first cycle, from and until.
    """

    subscription: str
    mark: str
    anchor_ms: int | None
    known: Sequence[CycleFacts]
    present: tuple[int, int] | None
    left: int
    cut_ms: int | None
    trial_ms: tuple[int, int] | None = None


def cycle_name(starts_ms: int, mark: str) -> str:
    """What usage in this cycle is booked under: `2026-11-05-kRVe7H`."""
    return f"{_india(starts_ms):%Y-%m-%d}-{mark}"


def cycle_end(starts_ms: int, anchor_day: int) -> int:
    """When the cycle that starts then ends: midnight in India, `anchor_day` of the next month, or its last day."""
    year, month = divmod(_india(starts_ms).year * 12 + _india(starts_ms).month, 12)
    day = min(anchor_day, calendar.monthrange(year, month + 1)[1])
    return to_ms(datetime(year, month + 1, day, tzinfo=IST))


def plan_periods(courses: Iterable[Course], now_ms: int) -> tuple[Planned, ...]:
    """The periods of all subscriptions, one after the other: from a newer one's first cycle on, it alone counts."""
    found: list[Planned] = []
    for course in sorted(courses, key=_first_start, reverse=True):
        until = min((period.starts_ms for period in found if period.kind == CYCLE), default=None)
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
        name = cycle_name(starts_ms, course.mark)
        spans[name] = (starts_ms, ends_ms, name not in spans)
    for starts_ms, ends_ms in _foreseen(course, max((span[1] for span in spans.values()), default=None), now_ms):
        spans.setdefault(cycle_name(starts_ms, course.mark), (starts_ms, ends_ms, True))
    periods = [Planned(name, CYCLE, *span[:2], course.subscription, foreseen=span[2]) for name, span in spans.items()]
    if course.trial_ms is not None:
        name = f"{_india(course.trial_ms[0]):%Y-%m-%d}-trial-{course.mark}"
        periods.append(Planned(name, TRIAL, *course.trial_ms, course.subscription, foreseen=False))
    return [_until(period, course.cut_ms) for period in periods]


def _foreseen(course: Course, after_ms: int | None, now_ms: int) -> list[tuple[int, int]]:
    """The cycles after the last that is known: the one that is running by now, and AHEAD more."""
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
    """The part of it before `ends_ms`, which may be nothing."""
    return period if ends_ms is None or period.ends_ms <= ends_ms else replace(period, ends_ms=ends_ms)


def _india(at_ms: int) -> date:
    return to_datetime(at_ms).astimezone(IST).date()
