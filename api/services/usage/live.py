"""Readings of the current minute: one task reads for every viewer, and only while there is one.

At most one read a second for a process, and less when Postgres takes long over it, so that watching never costs more
than a twentieth of one connection. Postgres down: a reading is None, and the next one is tried.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextvars import Context
from uuid import UUID

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from metering.reports.live_usage import LiveUsage, read_live_usage

Readings = Mapping[UUID | None, LiveUsage]
Read = Callable[[Collection[UUID | None]], Awaitable[Readings]]

EVERY_S = 1
_TIMEOUT_S = 4
_SHARE = 20
"""A read that took a second is followed by a rest of this many."""

log = get_logger(__name__)


class LiveFeed:
    """One per process. `read` returns the readings of some tenants; None is all of them together."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._watched: Counter[UUID | None] = Counter()
        self._latest: Readings | None = None
        self._next = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, tenant_id: UUID | None) -> AsyncGenerator[LiveUsage | None, None]:
        """Yields each new reading of a tenant, for as long as it is iterated."""
        self._watched[tenant_id] += 1
        if self._task is None:
            # It reads for every viewer: in a context of its own, its connection counts to no tenant's share.
            self._task = asyncio.create_task(self._keep_reading(), context=Context())
        try:
            while True:
                await self._next.wait()
                if self._latest is None or tenant_id in self._latest:
                    yield None if self._latest is None else self._latest[tenant_id]
        finally:
            self._watched -= Counter([tenant_id])
            if not self._watched and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _keep_reading(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self._latest = await self._read(set(self._watched))
            except Unavailable:
                self._latest = None
            except Exception:
                self._latest = None
                log.exception("live_usage_not_read")
            self._next.set()
            self._next = asyncio.Event()
            took_s = time.monotonic() - began
            await asyncio.sleep(max(EVERY_S - took_s, took_s * _SHARE))


async def read_live(connections: Connections, watched: Collection[UUID | None], *, longest_ms: int) -> Readings:
    """Reads what some tenants use now. A request runs for `longest_ms` at most. Raises Unavailable."""
    try:
        async with asyncio.timeout(_TIMEOUT_S), connections.acquire() as connection:
            return await read_live_usage(connection, watched, longest_ms=longest_ms)
    except TimeoutError as error:
        raise Unavailable("the database does not answer") from error
