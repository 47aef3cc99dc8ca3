"""Which levels of a limit were passed: pure.

A level is told once for a window and a version of its limit: usage that falls (a credit, a correction) and rises again
tells nothing twice; a limit that is changed is another limit. Numbers are integers; a level is reached from its exact
part on (80 % of 5 is 4).
"""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

LEVELS = (50, 80, 100)
_WHOLE = 100


class Bound(StrEnum):
    """What kind of limit it is."""

    ALLOWANCE = "allowance"
    CEILING = "ceiling"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Watched:
    """A limit and what was used of it, in the limit's own unit. `user_id` None: the tenant's own."""

    bound: Bound
    user_id: UUID | None
    meter: str
    window: str
    window_name: str
    limit: int
    used: int
    version: str

    def reached(self) -> tuple[int, ...]:
        """The levels that were passed. A limit of 0 is a block, not something to come near to."""
        if self.limit <= 0:
            return ()
        return tuple(level for level in LEVELS if self.used * _WHOLE >= self.limit * level)

    def key(self, level: int) -> str:
        """What makes an alert the same alert."""
        whose = "tenant" if self.user_id is None else str(self.user_id)
        return f"{self.bound}:{whose}:{self.meter}:{self.window}:{self.window_name}:{level}:{self.version}"
