"""When to stop asking Redis, and when to ask it again. Pure: times come in, in seconds of one steady clock.

A failure alone is no outage: while it may pass (`FAILING`), requests wait and try again. Once failures have lasted
`dwell_s` without a success between them, nobody asks any more (`OPEN`) but a probe now and then, and so many good
probes in a row close it again. The dwell keeps one lost packet from moving a tenant between two stores.
"""

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """Whether Redis is asked."""

    CLOSED = "closed"
    FAILING = "failing"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """How long, and how many."""

    dwell_s: float = 1.0
    least_failures: int = 2
    probes_to_close: int = 3


class Breaker:
    """One per lane."""

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self.rules = rules or BreakerRules()
        self.state = BreakerState.CLOSED
        self._failing_since_s = 0.0
        self._failures = 0
        self._probes = 0

    @property
    def is_open(self) -> bool:
        """Whether only probes may go out."""
        return self.state is BreakerState.OPEN

    def failed(self, at_s: float) -> None:
        """Redis did not answer, too late, or refused to serve."""
        self._probes = 0
        if self.state is BreakerState.CLOSED:
            self.state, self._failing_since_s, self._failures = BreakerState.FAILING, at_s, 0
        self._failures += 1
        lasted = at_s - self._failing_since_s >= self.rules.dwell_s
        if lasted and self._failures >= self.rules.least_failures:
            self.state = BreakerState.OPEN

    def succeeded(self) -> None:
        """Redis answered; while it is open, that was a probe."""
        self._probes += 1
        if self.state is not BreakerState.OPEN or self._probes >= self.rules.probes_to_close:
            self.state, self._probes = BreakerState.CLOSED, 0
