"""The failure detector: suspects processes whose heartbeat the observer itself saw standing still. Pure.

It never compares clocks. After a gap in its own reads (it was suspended, Postgres was down) the observer starts over,
since all others may have had the same problem.
"""

from collections.abc import Mapping
from uuid import UUID


class FailureDetector:
    """The reads of one observer. Times are seconds of its own monotonic clock."""

    def __init__(self, *, dead_after_s: float, longest_gap_s: float) -> None:
        self._dead_after_s = dead_after_s
        self._longest_gap_s = longest_gap_s
        self._seen: dict[UUID, tuple[int, float]] = {}
        self._looked_at_s = float("-inf")

    def look(self, beats: Mapping[UUID, int], at_s: float) -> set[UUID]:
        """Takes one read of all beats; returns the processes whose beat has stood still for too long."""
        if at_s - self._looked_at_s > self._longest_gap_s:
            self._seen.clear()
        self._looked_at_s = at_s
        before = self._seen
        self._seen = {
            process: before[process] if process in before and before[process][0] == beat else (beat, at_s)
            for process, beat in beats.items()
        }
        return {process for process, (_, since_s) in self._seen.items() if at_s - since_s >= self._dead_after_s}
