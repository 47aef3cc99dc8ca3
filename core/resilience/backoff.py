"""Exponential back-off between retries. Pure but for the jitter."""

import random
from dataclasses import dataclass

_MAX_DOUBLINGS = 30  # keeps the power within a float


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_s` up to `longest_s`, each shortened by a random share of at most `jitter`."""

    first_s: float
    longest_s: float
    jitter: float = 0

    def wait_s(self, failures: int) -> float:
        """Returns the wait after one more failure than `failures`."""
        wait_s = min(self.first_s * (1 << min(failures, _MAX_DOUBLINGS)), self.longest_s)
        return wait_s * random.uniform(1 - self.jitter, 1)  # noqa: S311 - jitter
