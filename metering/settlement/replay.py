"""Spooled settlements into Postgres: this process's own, and those of processes that died. Idempotent.

A row that is still open is settled; one that was recovered meanwhile gets the better count as a revision; one that is
settled already is left alone. So a file may be replayed by anybody, in part, twice, at any time. Postgres away: it is
tried again. A settlement whose own data Postgres refuses is set aside, loudly, and the others go on.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.resilience.outage import STORE_ERRORS, is_row_fault
from metering.adjustments.revisions import revise
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.in_flight import InFlight
from metering.journal.journal import settle_batch
from metering.journal.records import Settlement
from metering.journal.spool import Spool, abandoned, taken
from metering.settlement.settlement import counts_of

_SHARD = 0
_BATCH = 100
_NOBODY = UUID(int=0)

log = get_logger(__name__)


class Replay:
    """Looks every `every_s` for what was spooled. One per process; without a spool of its own it serves the dead."""

    def __init__(
        self,
        pool: Connections,
        quota: QuotaScripts,
        folder: Path,
        *,
        spool: Spool | None = None,
        running: InFlight | None = None,
        every_s: float = 1,
    ) -> None:
        self._pool = pool
        self._quota = quota
        self._folder = folder
        self._spool = spool or Spool(folder, _NOBODY)
        self._running = InFlight() if running is None else running  # an empty one is false
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks from now on."""
        self._task = asyncio.create_task(self._work(), name="replay")

    async def stop(self) -> None:
        """One last try for what is ours; what Postgres does not take now stays in the folder."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            await self.replay_own()
        await self._spool.close()

    async def _work(self) -> None:
        while True:
            try:
                await self.replay_own()
                await self.replay_abandoned()
                await self._forget_retried()
            except Unavailable as error:
                log.warning("replay_waits", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the next look must come whatever this one met
                log.critical("replay_failed", error=repr(error))
            await asyncio.sleep(self._every_s)

    async def replay_own(self) -> None:
        """What this process has spooled. Raises Unavailable."""
        while waiting := list(self._spool.pending.values()):
            for some in _batches(waiting):
                for settlement in await self._replay(some):
                    self._running.leave(settlement.id)
                await self._spool.replayed(some)

    async def replay_abandoned(self) -> int:
        """What dead processes have spooled; how many settlements. Raises Unavailable."""
        return sum([await self.replay_file(path) for path in abandoned(self._folder)])

    async def replay_file(self, path: Path) -> int:
        """How many settlements of a file were replayed; none while it is somebody's. Raises Unavailable."""
        with taken(path) as found:
            if found is None:
                return 0
            for some in _batches(found.settlements):
                await self._replay(some)
            found.remove()
        log.warning("spool_replayed", file=path.name, settlements=len(found.settlements))
        return len(found.settlements)

    async def _forget_retried(self) -> None:
        """Poisoned requests of this process that somebody has settled by now do not run any more."""
        if not self._spool.poisoned:
            return
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id FROM usage_requests WHERE id = ANY ($1) AND state = 'open'", list(self._spool.poisoned)
            )
        for request_id in self._spool.poisoned - {row["id"] for row in rows}:
            self._running.leave(request_id)
            self._spool.poisoned.discard(request_id)

    async def _replay(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those that are in Postgres now."""
        async with self._pool.acquire() as connection:
            done = await self._settle(connection, settlements)
        for settlement in done:
            with contextlib.suppress(Unavailable):
                await self._quota.settle(settlement.tenant_id, settlement.user_id, settlement.id, counts_of(settlement))
        return done

    async def _settle(self, connection: Any, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Those that are in Postgres now; the ones at fault themselves are set aside. Raises what an outage raises."""
        try:
            settled = await settle_batch(connection, settlements, _SHARD)
            for settlement in settlements:
                if settlement.id not in settled:
                    await revise(connection, settlement)
        except STORE_ERRORS as error:
            if not is_row_fault(error):
                raise
            if len(settlements) > 1:
                parts = [await self._settle(connection, [settlement]) for settlement in settlements]
                return [settlement for part in parts for settlement in part]
            log.critical("spooled_row_poisoned", error=type(error).__name__, item=repr(settlements[0]))
            await self._spool.set_aside(settlements[0])
            return []
        return list(settlements)


def _batches(settlements: Sequence[Settlement]) -> Iterator[Sequence[Settlement]]:
    return (settlements[start : start + _BATCH] for start in range(0, len(settlements), _BATCH))
