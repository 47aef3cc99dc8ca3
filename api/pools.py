"""The shared pools of one API process, and how many places each has: nothing else decides it.

In every pool a tenant has its share (`core.resilience.shares`). Lines are long where waiting is short: who waits costs
a few hundred bytes, and owners are served in turn, so a long line of one of them delays nobody else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from core.postgres.database import POOL_WAIT
from core.resilience.shares import FairPool
from core.settings import Settings

CONNECTIONS = 6
"""Plain connections, for what is too rare for a lane: recovery, counters to rebuild, `/v1/limits`."""
_OWN_CONNECTIONS = 2
"""Of these, left to the process itself: heartbeats must not wait for tenants."""
_LINE = 4096
_COUNTS_AT_ONCE = 16
_COUNTS_WAITING = 512  # what 16 at once can do in 5 s, at 150 ms each
_COUNT_WAIT_S = 5.0
_BUSY_S = 2


@dataclass(frozen=True, slots=True)
class Pools:
    """One per process."""

    upstream: FairPool
    """Connections to Anthropic that stream an answer. Taken before admission, so that a full pool costs no hold."""
    counts: FairPool
    """Calls of Anthropic's count-tokens."""
    database: FairPool
    """Database connections of the routes and pages."""
    lookups: FairPool
    """Database connections of authentication, limits and prices; shared by address until the tenant is known."""
    reports: FairPool
    """Database connections of reports; a streamed one keeps its connection until its reader has it all."""
    connections: FairPool
    live: FairPool
    """Live views that are being looked at."""

    @classmethod
    def of(cls, settings: Settings) -> "Pools":
        """The pools, sized by the settings."""
        wait_s = POOL_WAIT * settings.store_deadline_s

        def sessions(pool: str, size: int, *, own: int = 0) -> FairPool:
            return FairPool(pool, 2 * size - own, line=_LINE, wait_s=wait_s)  # `Database` opens as many more at a peak

        return cls(
            upstream=FairPool("upstream", settings.upstream_max_connections, retry_after_s=_BUSY_S),
            counts=count_shares(),
            database=sessions("database", settings.database_pool_size, own=1),
            lookups=sessions("lookups", settings.lookup_pool_size),
            reports=sessions("reports", settings.report_pool_size),
            connections=FairPool("connections", CONNECTIONS - _OWN_CONNECTIONS, line=_LINE, wait_s=wait_s),
            live=FairPool("live", settings.live_views, retry_after_s=_BUSY_S),
        )

    def __iter__(self) -> Iterator[FairPool]:
        """All of them."""
        return (getattr(self, field.name) for field in fields(self))


def count_shares() -> FairPool:
    """The places of count-tokens calls, for a client of Anthropic's on its own."""
    return FairPool("counts", _COUNTS_AT_ONCE, line=_COUNTS_WAITING, wait_s=_COUNT_WAIT_S)
