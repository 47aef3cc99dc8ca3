"""A tenant's entitlement over time, as billing projects it: segments of terms, and periods to count in. Pure.

Billing projects the future: the next cycle, the end of a grace period and a due debt are in the schedule before they
happen. Every change moves the tenant's epoch, and a read carries the epoch that it was made in. A *timeline* is the
schedule of one user, with its limits resolved. A moment that no period covers is in the operator's calendar month,
which may be interrupted and then continues under the same name.

A period whose terms changed has *segments* (`2026-11`, `2026-11~2`): requests, meters and bills name the segment, since
each is priced by its own terms; counters of limits name the period (`window_of`), so that they go on.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from core.money import MAX_EXACT_DOUBLE
from metering.quota.limits import Entitlement, LimitSet, PlanLimits, resolve
from metering.quota.windows import Calendar, Window, WindowKind

NO_PLAN = PlanLimits()
FOREVER_MS = MAX_EXACT_DOUBLE
"""Later than any moment, and exact as a double in Redis."""
_CUT = "~"
_NAME = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])(?:-[A-Za-z0-9-]{1,60})?(?:~[1-9][0-9]{0,5})?")


class Period(msgspec.Struct, frozen=True):
    """A segment in which a tenant's usage is metered and billed: `starts_ms <= t < ends_ms`.

    Its name begins with the month of its period's start (`2026-11-05-7HbN`). A period without changes has one segment,
    of its own name. A segment that was interrupted is listed once for each part.
    """

    name: str
    starts_ms: int
    ends_ms: int

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not _NAME.fullmatch(self.name):
            raise ValueError("a period's name begins with its month, as 2026-11")
        if self.starts_ms >= self.ends_ms:
            raise ValueError("a period ends after it starts")


class Refusal(msgspec.Struct, frozen=True):
    """Why nothing is granted: `code` for machines, `detail` for people. The client receives both."""

    code: str
    detail: str


class Segment(msgspec.Struct, frozen=True):
    """The terms from a moment on, until the next segment."""

    from_ms: int
    plan_version: str | None
    limits: PlanLimits
    refusal: Refusal | None = None


class Schedule(msgspec.Struct, frozen=True):
    """Before the first segment, the entitlement's own plan and limits apply."""

    segments: tuple[Segment, ...] = ()
    periods: tuple[Period, ...] = ()


@dataclass(frozen=True, slots=True)
class Stretch:
    """A user's entitlement in `from_ms <= t < until_ms`."""

    from_ms: int
    until_ms: int
    entitlement: Entitlement
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """The terms and windows of `from_ms <= t < until_ms`.

    `period`: the counters' window; `segment`: its part that usage is metered in. `resumes`: see the function `resumes`.
    """

    from_ms: int
    until_ms: int
    stretch: Stretch
    day: Window
    period: Window
    segment: str
    resumes: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """The schedule of one user, read when the tenant's epoch was `read_epoch` (0: it had none)."""

    stretches: tuple[Stretch, ...]
    periods: tuple[Period, ...] = ()
    read_epoch: int = 0
    _last: list[InForce] = field(default_factory=list, init=False, repr=False, compare=False)
    """The last answer of `in_force`, which nearly every request asks for again."""

    def at(self, at_ms: int) -> Stretch:
        """The stretch of a moment."""
        return self.stretches[max(0, bisect_right(self.stretches, at_ms, key=lambda one: one.from_ms) - 1)]

    def in_force(self, at_ms: int, calendar: Calendar) -> InForce:
        """The terms and windows of a moment. The calendar is always the operator's."""
        if not (self._last and self._last[0].from_ms <= at_ms < self._last[0].until_ms):
            stretch, day, part = self.at(at_ms), calendar.day(at_ms), period_at(self.periods, at_ms, calendar)
            self._last[:] = [
                InForce(
                    from_ms=max(stretch.from_ms, day.starts_ms, part.starts_ms),
                    until_ms=min(stretch.until_ms, day.ends_ms, part.ends_ms),
                    stretch=stretch,
                    day=day,
                    period=replace(part, name=window_of(part.name)),
                    segment=part.name,
                    resumes=resumes(self.periods, part, calendar),
                )
            ]
        return self._last[0]


def window_of(segment: str) -> str:
    """The name of the period that a segment belongs to; a period's first segment has that name itself."""
    return segment.partition(_CUT)[0]


def number_of(segment: str) -> int:
    """The segment's place in its period, from 1."""
    return int(segment.partition(_CUT)[2] or 1)


def segment_name(window: str, number: int) -> str:
    """The name of a period's segment: `2026-11`, `2026-11~2`, `2026-11~3`."""
    return window if number == 1 else f"{window}{_CUT}{number}"


def timeline_of(
    schedule: Schedule,
    *,
    plan: PlanLimits,
    plan_version: str | None,
    user: LimitSet | None,
    tenant: LimitSet | None,
    read_epoch: int,
    defaults: PlanLimits = NO_PLAN,
) -> Timeline:
    """Resolves a schedule with the limits set for the user and its tenant. `plan` applies before the first segment."""
    segments = segments_of(schedule, plan=plan, plan_version=plan_version, defaults=defaults)
    ends = [segment.from_ms for segment in segments[1:]] + [FOREVER_MS]
    stretches = tuple(
        Stretch(
            segment.from_ms,
            until_ms,
            resolve(segment.limits, user=user, tenant=tenant, plan_version=segment.plan_version),
            segment.refusal,
        )
        for segment, until_ms in zip(segments, ends, strict=True)
    )
    return Timeline(stretches, schedule.periods, read_epoch)


def segments_of(
    schedule: Schedule, *, plan: PlanLimits, plan_version: str | None, defaults: PlanLimits
) -> list[Segment]:
    """Every segment in order. `plan` applies before the first of the schedule.

    `defaults` are the limits of a segment that has neither a plan nor limits.
    """
    first = Segment(-FOREVER_MS, plan_version, plan)
    in_order = [first, *sorted(schedule.segments, key=lambda segment: segment.from_ms)]
    return [
        segment
        if segment.plan_version or segment.limits != NO_PLAN
        else msgspec.structs.replace(segment, limits=defaults)
        for segment in in_order
    ]


def period_at(periods: Sequence[Period], at_ms: int, calendar: Calendar) -> Window:
    """The part of a moment's segment that no other one interrupts, under the segment's name."""
    name, starts_ms, ends_ms = _named(periods, at_ms, calendar)
    edges = [edge for period in periods for edge in (period.starts_ms, period.ends_ms)]
    return Window(
        WindowKind.PERIOD,
        name,
        max([starts_ms, *(edge for edge in edges if edge <= at_ms)]),
        min([ends_ms, *(edge for edge in edges if edge > at_ms)]),
    )


def resumes(periods: Sequence[Period], part: Window, calendar: Calendar) -> bool:
    """Whether the period of a part (`period_at`) continues there after another period, so it does not start at zero."""
    window = window_of(part.name)
    if window_of(_named(periods, part.starts_ms - 1, calendar)[0]) == window:
        return False
    begins = [one.starts_ms for one in periods if window_of(one.name) == window]
    month = calendar.month(part.starts_ms)
    return min([*begins, *([month.starts_ms] if month.name == window else [])]) < part.starts_ms


def periods_between(periods: Sequence[Period], from_ms: int, until_ms: int, calendar: Calendar) -> Iterator[Window]:
    """Every part of `from_ms <= t <= until_ms`, in order; an interrupted segment appears again."""
    while from_ms <= until_ms:
        found = period_at(periods, from_ms, calendar)
        yield found
        from_ms = found.ends_ms


def _named(periods: Sequence[Period], at_ms: int, calendar: Calendar) -> tuple[str, int, int]:
    """(name, start, end) of the period that covers the moment; of several, the one that started last."""
    covering = [period for period in periods if period.starts_ms <= at_ms < period.ends_ms]
    if covering:
        period = max(covering, key=lambda one: one.starts_ms)
        return period.name, period.starts_ms, period.ends_ms
    month = calendar.month(at_ms)
    return month.name, month.starts_ms, month.ends_ms
