"""A user's rate of failing requests: requests that ended before the provider began to answer, for whatever reason.

Each of them costs a hold, a row, and often a call of the provider, and moves no meter that has a price. So a user may
have `per_minute` of them in any minute; then nothing of theirs is admitted until the oldest is a minute old. Noted
only when a request fails, so that a request that works costs one look-up. Counted per process and in memory: with N
processes a user may have N times as many. Bounded: of the users beyond `_MOST_USERS`, those that failed longest ago
are forgotten. Requests that were refused before they were opened (a body of the wrong form, a limit) are none.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from uuid import UUID

from core.errors import NakaError

_WINDOW_S = 60.0
_MOST_USERS = 10_000


class TooManyFailures(NakaError):
    """The user's requests fail too often; `retry_after_s` is when the next one is admitted."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many of your requests failed or were hung up on: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class FailingRequests:
    """The failures of the last minute, by user. One per process."""

    def __init__(self, *, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._failures: dict[UUID, deque[float]] = {}

    def check(self, user_id: UUID) -> None:
        """Raises TooManyFailures while the user has had its share."""
        failures = self._failures.get(user_id)
        if failures is None or len(failures) < self._per_minute:
            return
        wait_s = failures[0] + _WINDOW_S - self._clock()
        if wait_s > 0:
            raise TooManyFailures(max(1, math.ceil(wait_s)))

    def note(self, user_id: UUID) -> None:
        """One more request of the user failed."""
        failures = self._failures.pop(user_id, None) or deque[float](maxlen=self._per_minute)
        failures.append(self._clock())
        self._failures[user_id] = failures  # the last one: the first is the one that failed longest ago
        if len(self._failures) > _MOST_USERS:
            del self._failures[next(iter(self._failures))]
