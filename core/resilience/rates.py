"""Rate limits per owner, in this process: GCRA, a token bucket that stores one time per owner.

The stored time is when the bucket will be full again; an owner whose bucket is full is forgotten.
"""

import math
import time
from collections.abc import Hashable

from core.errors import NakaError

_MINUTE_S = 60
_BURST_S = 10
_LEAST_BURST = 10
_SWEPT_FROM = 1024
"""The number of owners above which those with a full bucket are removed."""


class RateLimited(NakaError):
    """The owner's rate is used up; a retry succeeds after `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rate:
    """At most `per_minute` on average, in bursts of 10 s' worth or 10; 0 means no limit."""

    def __init__(self, per_minute: int) -> None:
        self._each_s = _MINUTE_S / per_minute if per_minute else 0.0
        self._deep_s = max(_BURST_S, _LEAST_BURST * self._each_s)
        self._full_s: dict[Hashable, float] = {}
        self._sweep_at = _SWEPT_FROM

    def spend(self, owner: Hashable, message: str = "Too many requests with this key.") -> None:
        """Counts one call. Raises RateLimited, and then does not count it."""
        if not self._each_s or owner is None:
            return
        now_s = time.monotonic()
        full_s = max(self._full_s.get(owner, now_s), now_s) + self._each_s
        over_s = full_s - now_s - self._deep_s
        if over_s > 0:
            wait_s = max(1, math.ceil(over_s))
            raise RateLimited(f"{message} Try again in {wait_s} s.", retry_after_s=wait_s)
        self._full_s[owner] = full_s
        if len(self._full_s) >= self._sweep_at:
            self._sweep(now_s)

    def __len__(self) -> int:
        """Returns the number of owners remembered."""
        return len(self._full_s)

    def _sweep(self, now_s: float) -> None:
        self._full_s = {owner: full_s for owner, full_s in self._full_s.items() if full_s > now_s}
        self._sweep_at = max(_SWEPT_FROM, 2 * len(self._full_s))
