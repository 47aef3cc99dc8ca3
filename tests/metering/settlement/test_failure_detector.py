"""The failure detector judges only by what its observer read, and for how long."""

from itertools import accumulate
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from metering.settlement.failure_detector import FailureDetector

DEAD_AFTER, GAP = 80, 30  # whole numbers as times, so that nothing is lost in sums
A, B = UUID(int=1), UUID(int=2)

looks = st.lists(st.integers(0, GAP), min_size=1, max_size=40).map(lambda steps: list(accumulate(steps)))
"""Times of reads that are never too far apart."""


def new_detector() -> FailureDetector:
    return FailureDetector(dead_after_s=DEAD_AFTER, longest_gap_s=GAP)


@given(looks, st.data())
def test_a_beat_that_moves_in_time_is_never_dead(times: list[int], data: st.DataObject) -> None:
    """Any change of the beat within `dead_after` counts, also a restart at 1 after pruning."""
    detector, beat, moved_at = new_detector(), 0, times[0]
    for at, after in zip(times, [*times[1:], times[-1]], strict=True):
        if data.draw(st.booleans()) or after - moved_at >= DEAD_AFTER or at - moved_at >= DEAD_AFTER:
            beat, moved_at = data.draw(st.sampled_from([other for other in range(-1, 6) if other != beat])), at
        assert detector.look({A: beat, B: 7}, at) <= {B}


@given(looks, st.integers(-1, 2**40))
def test_one_that_stands_still_is_dead_after_its_time_and_not_before(times: list[int], beat: int) -> None:
    detector = new_detector()
    for at in times:
        assert detector.look({A: beat}, at) == ({A} if at - times[0] >= DEAD_AFTER else set())


@given(looks, st.integers(GAP + 1, 10_000), looks)
def test_a_gap_of_the_observer_forgets_everything(before: list[int], gap: int, after: list[int]) -> None:
    detector = new_detector()
    for at in before:
        detector.look({A: 1, B: 2}, at)
    woke = before[-1] + gap
    for at in after:
        dead = detector.look({A: 1, B: 2}, woke + at)
        assert dead == ({A, B} if at - after[0] >= DEAD_AFTER else set())


@given(looks, st.integers(0, 39))
def test_who_was_away_is_seen_anew(times: list[int], away_at: int) -> None:
    """A process without open requests is not listed; when it is again, its time begins again."""
    detector, since = new_detector(), times[0]
    for number, at in enumerate(times):
        if number == away_at:
            assert detector.look({}, at) == set()
            since = times[min(number + 1, len(times) - 1)]
        else:
            assert detector.look({A: 1}, at) == ({A} if at - since >= DEAD_AFTER else set())


@given(st.lists(st.tuples(st.integers(0, 2 * GAP), st.integers(0, 1)), max_size=40), st.integers(-(10**9), 10**9))
def test_what_the_clock_says_plays_no_role(steps: list[tuple[int, int]], offset: int) -> None:
    """Two observers of the same beats agree, whatever the start of their clocks."""
    one, other, at = new_detector(), new_detector(), 0
    for step, beat in steps:
        at += step
        assert one.look({A: beat}, at) == other.look({A: beat}, at + offset)
