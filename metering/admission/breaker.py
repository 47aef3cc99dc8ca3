"""The circuit breaker for Redis: when to stop asking, and when to ask again. Pure; times are monotonic seconds.

One failure is no outage: in `FAILING`, requests wait and try again. After `dwell_s` of failures without a success the
breaker is `OPEN`: only a probe is sent now and then, and several successful probes in a row close it. The dwell keeps
one lost packet from moving a tenant between two stores.
"""

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """The state of the breaker."""

    CLOSED = "closed"
    FAILING = "failing"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """The thresholds of a breaker."""

    dwell_s: float = 1.0
    least_failures: int = 2
    probes_to_close: int = 3


class Breaker:
    """One per pipeline."""

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self.rules = rules or BreakerRules()
        self.state = BreakerState.CLOSED
        self._failing_since_s = 0.0
        self._failures = 0
        self._probes = 0

    @property
    def is_open(self) -> bool:
        """Whether only probes are sent."""
        return self.state is BreakerState.OPEN

    def failed(self, at_s: float) -> None:
        """Records that Redis did not answer in time, or refused to serve."""
        self._probes = 0
        if self.state is BreakerState.CLOSED:
            self.state, self._failing_since_s, self._failures = BreakerState.FAILING, at_s, 0
        self._failures += 1
        lasted = at_s - self._failing_since_s >= self.rules.dwell_s
        if lasted and self._failures >= self.rules.least_failures:
            self.state = BreakerState.OPEN

    def succeeded(self) -> None:
        """Records an answer; while the breaker is open, of a probe."""
        self._probes += 1
        if self.state is not BreakerState.OPEN or self._probes >= self.rules.probes_to_close:
            self.state, self._probes = BreakerState.CLOSED, 0
