"""The clock that caches and threads expire by: this process's clock, which `/_sim/clock` can move forward further."""

from core.clock import now_ms


class Clock:
    """A clock that follows the test clock's file, as the ledger's times do, and can be moved forward."""

    def __init__(self) -> None:
        """Start at the process's time."""
        self._ahead_s = 0.0

    def now_s(self) -> float:
        """Return Unix time in seconds, as moved."""
        return now_ms() / 1000 + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Move forward."""
        self._ahead_s += seconds
