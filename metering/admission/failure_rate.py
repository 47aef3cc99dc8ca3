"""A limit on a user's failing requests: requests that ended before the provider began to answer, for any reason.

Each costs a hold, a row and often a call of the provider, and moves no meter that has a price. A request that was
refused before it was opened (invalid body, a limit) does not count. Kept per process and in memory: with N processes a
user may have N times as many. Beyond `_MOST_USERS`, the users whose last failure is oldest are forgotten.
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
    """The user's requests fail too often; the next one is admitted in `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many of your requests failed or were cancelled. Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class FailingRequests:
    """The failures of the last minute, by user. One per process."""

    def __init__(self, *, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._failures: dict[UUID, deque[float]] = {}

    def check(self, user_id: UUID) -> None:
        """Raises TooManyFailures while the user is over the limit."""
        failures = self._failures.get(user_id)
        if failures is None or len(failures) < self._per_minute:
            return
        wait_s = failures[0] + _WINDOW_S - self._clock()
        if wait_s > 0:
            raise TooManyFailures(max(1, math.ceil(wait_s)))

    def note(self, user_id: UUID) -> None:
        """Records a failed request of the user."""
        failures = self._failures.pop(user_id, None) or deque[float](maxlen=self._per_minute)
        failures.append(self._clock())
        self._failures[user_id] = failures  # at the end: the first is the user whose last failure is oldest
        if len(self._failures) > _MOST_USERS:
            del self._failures[next(iter(self._failures))]
