"""Schedules and timelines: the terms and the period of a moment, and invalid schedules."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits
from metering.quota.schedule import (
    FOREVER_MS,
    Period,
    Refusal,
    Schedule,
    Segment,
    Timeline,
    period_at,
    periods_between,
    resumes,
    timeline_of,
)
from metering.quota.windows import WindowKind
from tests.metering.process import KOLKATA
from tests.metering.quota.test_windows import ms

NOVEMBER, DECEMBER, JANUARY = ms(2026, 10, 31, 18, 30), ms(2026, 11, 30, 18, 30), ms(2026, 12, 31, 18, 30)
FIFTH, TENTH, TWENTIETH = (ms(2026, 11, day, 18, 30) for day in (4, 9, 19))
SMALL = PlanLimits(tenant=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1),)))
LARGE = PlanLimits(tenant=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 2),)))


def timeline(*segments: Segment, periods: tuple[Period, ...] = (), tenant: LimitSet | None = None) -> Timeline:
    schedule = Schedule(segments, periods)
    return timeline_of(schedule, plan=SMALL, plan_version="free@1", user=None, tenant=tenant, read_epoch=3)


def test_before_the_first_segment_the_row_holds_and_then_the_last_that_has_begun() -> None:
    refusal = Refusal("halted", "pay first")
    made = timeline(Segment(20, "team@2", LARGE, refusal), Segment(10, "team@1", LARGE))
    held = [(made.at(at).entitlement.plan_version, made.at(at).refusal) for at in (-5, 9, 10, 19, 20, 10**15)]
    assert held == [("free@1", None)] * 2 + [("team@1", None)] * 2 + [("team@2", refusal)] * 2
    assert [limit.limit for limit in made.at(9).entitlement.limits] == [1]
    assert [limit.limit for limit in made.at(10).entitlement.limits] == [2]
    assert [(one.from_ms, one.until_ms) for one in made.stretches] == [(-FOREVER_MS, 10), (10, 20), (20, FOREVER_MS)]
    assert made.read_epoch == 3


def test_what_was_set_for_the_tenant_holds_in_every_segment() -> None:
    own = LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 7),))
    made = timeline(Segment(10, "team@1", LARGE), tenant=own)
    assert [[limit.limit for limit in made.at(at).entitlement.limits] for at in (9, 10)] == [[7], [7]]


def test_a_period_stands_over_the_month_which_goes_on_after_it() -> None:
    periods = (Period("2026-11-05-7HbN", FIFTH, TENTH), Period("2026-11-20-7HbN", TWENTIETH, DECEMBER + 5))
    parts = list(periods_between(periods, NOVEMBER, DECEMBER + 5, KOLKATA))
    assert [(one.name, one.starts_ms, one.ends_ms) for one in parts] == [
        ("2026-11", NOVEMBER, FIFTH),
        ("2026-11-05-7HbN", FIFTH, TENTH),
        ("2026-11", TENTH, TWENTIETH),
        ("2026-11-20-7HbN", TWENTIETH, DECEMBER + 5),
        ("2026-12", DECEMBER + 5, JANUARY),
    ]
    assert [resumes(periods, part, KOLKATA) for part in parts] == [False, False, True, False, True]


MOMENTS = st.integers(ms(2026, 10, 20), JANUARY)


@given(st.lists(st.tuples(MOMENTS, st.integers(1, 40 * 86_400_000)), max_size=4), MOMENTS)
def test_a_period_covers_its_moment_and_nothing_changes_within_it(drawn: list[tuple[int, int]], at: int) -> None:
    periods = tuple(Period(f"2026-11-{n}", starts, starts + length) for n, (starts, length) in enumerate(drawn))
    found = period_at(periods, at, KOLKATA)
    assert found.covers(at)
    for moment in (found.starts_ms, (found.starts_ms + found.ends_ms) // 2, found.ends_ms - 1):
        assert period_at(periods, moment, KOLKATA) == found
    covering = [one for one in periods if one.starts_ms <= at < one.ends_ms]
    assert found.name in {one.name for one in covering} or (not covering and found.name == KOLKATA.month(at).name)


@given(
    st.lists(st.tuples(MOMENTS, st.integers(1, 40 * 86_400_000)), max_size=4),
    st.lists(MOMENTS, max_size=3, unique=True),
    st.lists(MOMENTS, min_size=1, max_size=6),
)
def test_what_is_in_force_is_the_same_whatever_was_asked_before(
    drawn: list[tuple[int, int]], changes: list[int], asked: list[int]
) -> None:
    periods = tuple(Period(f"2026-11-{n}", starts, starts + length) for n, (starts, length) in enumerate(drawn))
    segments = tuple(Segment(at, f"team@{at}", LARGE) for at in changes)
    kept = timeline(*segments, periods=periods)
    for at in asked:
        found = kept.in_force(at, KOLKATA)
        for moment in (at, found.from_ms, found.until_ms - 1, found.until_ms):
            fresh = timeline(*segments, periods=periods).in_force(moment, KOLKATA)
            assert kept.in_force(moment, KOLKATA) == fresh
            assert (fresh == found) == (found.from_ms <= moment < found.until_ms)
        assert found.stretch == kept.at(at)
        part = period_at(periods, at, KOLKATA)
        assert (found.segment, found.resumes) == (part.name, resumes(periods, part, KOLKATA))


@pytest.mark.parametrize("name", ["2026", "2026-13", "26-11", "2026-11 x", "2026-11|x", "2026-11-", "x2026-11"])
def test_a_name_that_redis_or_the_books_could_not_take_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="begins with its month"):
        Period(name, 0, 1)


def test_a_period_has_a_length() -> None:
    with pytest.raises(ValueError, match="ends after"):
        Period("2026-11", 1, 1)


def test_it_is_stored_and_read_as_it_was() -> None:
    schedule = Schedule(
        (Segment(5, None, LARGE, Refusal("halted", "pay first")),), (Period("2026-11-05-7HbN", FIFTH, TENTH),)
    )
    assert msgspec.convert(msgspec.to_builtins(schedule), Schedule) == schedule
    assert msgspec.convert({}, Schedule) == Schedule()
