"""A user's rate of failing requests is limited; others are not touched, and memory is bounded."""

from uuid import UUID, uuid4

import pytest

from metering.admission import failure_rate as failures
from metering.admission.failure_rate import FailingRequests, TooManyFailures


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def refused_for(failing: FailingRequests, user: UUID) -> int | None:
    """Seconds until the user is admitted again; None when admitted now."""
    try:
        failing.check(user)
    except TooManyFailures as error:
        return error.retry_after_s
    return None


def test_so_many_failures_a_minute_and_then_a_wait_until_the_oldest_is_gone() -> None:
    clock, user, other = Clock(), uuid4(), uuid4()
    failing = FailingRequests(per_minute=3, clock=clock)
    for _ in range(3):
        assert refused_for(failing, user) is None
        failing.note(user)
        clock.now_s += 10
    assert (refused_for(failing, user), refused_for(failing, other)) == (30, None)
    clock.now_s += 29.5
    assert refused_for(failing, user) == 1
    clock.now_s += 0.5
    assert refused_for(failing, user) is None
    failing.note(user)
    assert refused_for(failing, user) == 10


def test_those_that_failed_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_MOST_USERS", 2)
    first, second, third = uuid4(), uuid4(), uuid4()
    failing = FailingRequests(per_minute=1, clock=Clock())
    for user in (first, second, first, third):
        failing.note(user)
    assert [refused_for(failing, user) is None for user in (first, second, third)] == [False, True, False]
