"""Who is dead? Judged by an observer's own reads of beats that stand still, never by comparing clocks. Pure.

A process that looks dead may only sleep, or be cut off from Postgres; so being judged dead costs nothing that cannot be
made good. When the observer itself did not look for a while (it slept, Postgres was away), everybody else may have been
in the same trouble: what it saw before is forgotten.
"""

from collections.abc import Mapping
from uuid import UUID


class FailureDetector:
    """One observer's memory. Times in seconds of its own monotonic clock."""

    def __init__(self, *, dead_after_s: float, longest_gap_s: float) -> None:
        self._dead_after_s = dead_after_s
        self._longest_gap_s = longest_gap_s
        self._seen: dict[UUID, tuple[int, float]] = {}
        self._looked_at_s = float("-inf")

    def look(self, beats: Mapping[UUID, int], at_s: float) -> set[UUID]:
        """Takes in one read of all beats; answers whose has stood still for too long."""
        if at_s - self._looked_at_s > self._longest_gap_s:
            self._seen.clear()
        self._looked_at_s = at_s
        before = self._seen
        self._seen = {
            process: before[process] if process in before and before[process][0] == beat else (beat, at_s)
            for process, beat in beats.items()
        }
        return {process for process, (_, since_s) in self._seen.items() if at_s - since_s >= self._dead_after_s}
