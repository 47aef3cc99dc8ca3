"""The shared pools of one API process and their sizes, each divided among its owners (`core.resilience.shares`).

Queues may be long: a waiting task costs a few hundred bytes, and owners are served in turn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from core.postgres.database import POOL_WAIT
from core.resilience.shares import FairPool
from core.settings import Settings

CONNECTIONS = 6
"""Plain connections for rare work: recovery, rebuilding counters, `/v1/limits`."""
_OWN_CONNECTIONS = 2
"""Connections reserved for the process itself: heartbeats must not wait for tenants."""
_MAX_WAITING = 4096
_COUNTS_AT_ONCE = 32  # half for one tenant: Claude Code asks for 36 counts at once, which take a few rounds
_COUNTS_WAITING = 512  # 32 at once finish twice as many in 5 s, at 150 ms each
_COUNT_WAIT_S = 5.0
_BUSY_S = 2
_FOLLOWERS = 1000
_FOLLOWED_RUNS = 256  # each has an answer in memory, of IDEMPOTENCY_ANSWER_MAX_BYTES at most


@dataclass(frozen=True, slots=True)
class Pools:
    """One per process."""

    upstream: FairPool
    """Anthropic connections that stream an answer. Taken before admission, so a full pool takes no hold."""
    counts: FairPool
    """Calls of Anthropic's count-tokens endpoint."""
    database: FairPool
    """Database connections of routes and pages."""
    reports: FairPool
    """Database connections of reports. A streamed report keeps its connection until the client has read it."""
    connections: FairPool
    live: FairPool
    """Open live views."""
    followers: FairPool
    """Requests that get the answer of another one with their Idempotency-Key."""
    followed_runs: FairPool
    """The answers that they get."""

    @classmethod
    def of(cls, settings: Settings) -> "Pools":
        """Builds the pools from the settings."""
        wait_s = POOL_WAIT * settings.store_deadline_s

        def sessions(pool: str, size: int, *, own: int = 0) -> FairPool:
            # `Database` opens up to twice its pool size at a peak.
            return FairPool(pool, 2 * size - own, max_waiting=_MAX_WAITING, wait_s=wait_s)

        return cls(
            upstream=FairPool("upstream", settings.upstream_max_connections, retry_after_s=_BUSY_S),
            counts=count_shares(),
            database=sessions("database", settings.database_pool_size, own=1),
            reports=sessions("reports", settings.report_pool_size),
            connections=FairPool(
                "connections", CONNECTIONS - _OWN_CONNECTIONS, max_waiting=_MAX_WAITING, wait_s=wait_s
            ),
            live=FairPool("live", settings.live_views, retry_after_s=_BUSY_S),
            followers=FairPool("followers", _FOLLOWERS, retry_after_s=_BUSY_S),
            followed_runs=FairPool("followed_runs", _FOLLOWED_RUNS, retry_after_s=_BUSY_S),
        )

    def __iter__(self) -> Iterator[FairPool]:
        return (getattr(self, field.name) for field in fields(self))


def count_shares() -> FairPool:
    """Returns the pool of count-tokens calls."""
    return FairPool("counts", _COUNTS_AT_ONCE, max_waiting=_COUNTS_WAITING, wait_s=_COUNT_WAIT_S)
