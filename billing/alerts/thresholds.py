"""Levels of a limit that usage has reached. Pure.

A level alerts once per window and version of its limit: usage that falls (a credit, a correction) and rises again does
not alert twice, and a changed limit counts as another one. Integers only; 80 % of 5 is reached at 4.
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

LEVELS = (50, 80, 100)
_WHOLE = 100


class Bound(StrEnum):
    """The kind of a limit."""

    ALLOWANCE = "allowance"
    CEILING = "ceiling"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class MonitoredLimit:
    """A limit and its usage, in the limit's unit. `user_id` None: the tenant's limit."""

    bound: Bound
    user_id: UUID | None
    meter: str
    window: str
    window_name: str
    limit: int
    used: int
    version: str

    def reached(self) -> tuple[int, ...]:
        """The levels reached. A limit of 0 blocks and has none."""
        if self.limit <= 0:
            return ()
        return tuple(level for level in LEVELS if self.used * _WHOLE >= self.limit * level)

    def key(self, level: int) -> str:
        """The unique key of the alert."""
        subject = "tenant" if self.user_id is None else str(self.user_id)
        return f"{self.bound}:{subject}:{self.meter}:{self.window}:{self.window_name}:{level}:{self.version}"
