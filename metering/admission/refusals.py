"""The counter of refused requests, by tenant, day and code: in memory, and added to `usage_refusals` every few seconds.

A granted request does not touch it; a refused one adds to a dictionary. `flush` is one statement, run after each
heartbeat and at shutdown. Postgres down: the counts wait in memory, at most `_MOST` of them. A killed process loses the
counts since its last heartbeat, and a statement whose answer is lost is not repeated: nothing is billed by them.
"""

from datetime import date
from uuid import UUID

from core.clock import now_ms
from core.postgres.database import Connections
from metering.quota.windows import Calendar
from metering.sql import load

_MOST = 100_000
"""Bound of the counts in memory: a thousand tenants with a hundred codes and days each."""
_WRITE_S = 5


class RefusalCounter:
    """One per process."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._counts: dict[tuple[UUID, str, str], int] = {}

    def note(self, tenant_id: UUID, code: str) -> None:
        """Counts a refused request of the tenant. `code`: the error's, as the caller sees it."""
        counted = (tenant_id, self._calendar.day(now_ms()).name, code)
        if counted in self._counts or len(self._counts) < _MOST:
            self._counts[counted] = self._counts.get(counted, 0) + 1

    async def flush(self, pool: Connections) -> None:
        """Adds the counts to the table, if there are any. Raises Unavailable, and what asyncpg raises."""
        if not self._counts:
            return
        async with pool.acquire() as connection:
            counts, self._counts = self._counts, {}
            rows = [(tenant, date.fromisoformat(day), code, number) for (tenant, day, code), number in counts.items()]
            await connection.execute(load("add_refusals"), *map(list, zip(*rows, strict=True)), timeout=_WRITE_S)
