"""Replays spooled settlements into Postgres: this process's own, and those of processes that died. Idempotent.

An open row is settled; one that was recovered meanwhile gets the better measurement as a revision; one that is settled
stays. Postgres down: it is retried. A settlement whose data Postgres refuses is set aside, and the others go on.
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
from metering.journal.spool import Spool, abandoned, claim

_SHARD = 0
_BATCH = 100
_NO_PROCESS = UUID(int=0)

log = get_logger(__name__)


class Replay:
    """Looks for spooled settlements every `every_s`. One per process; without `spool`, only for dead processes'."""

    def __init__(
        self,
        pool: Connections,
        quota: QuotaScripts,
        folder: Path,
        *,
        spool: Spool | None = None,
        in_flight: InFlight | None = None,
        every_s: float = 1,
    ) -> None:
        self._pool = pool
        self._quota = quota
        self._folder = folder
        self._spool = spool or Spool(folder, _NO_PROCESS)
        self._in_flight = InFlight() if in_flight is None else in_flight  # an empty one is false
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task."""
        self._task = asyncio.create_task(self._work(), name="replay")

    async def stop(self) -> None:
        """Ends the task and tries this process's own once more; what Postgres does not take stays in the folder."""
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
            except Exception as error:  # noqa: BLE001 - the task must survive any error
                log.critical("replay_failed", error=repr(error))
            await asyncio.sleep(self._every_s)

    async def replay_own(self) -> None:
        """Replays what this process has spooled. Raises Unavailable."""
        while waiting := list(self._spool.pending.values()):
            for some in _batches(waiting):
                for settlement in await self._replay(some):
                    self._in_flight.leave(settlement.id)
                await self._spool.replayed(some)

    async def replay_abandoned(self) -> int:
        """Replays what dead processes have spooled; the number of settlements. Raises Unavailable."""
        return sum([await self.replay_file(path) for path in abandoned(self._folder)])

    async def replay_file(self, path: Path) -> int:
        """Replays a file; the number of settlements, 0 while a living process owns it. Raises Unavailable."""
        with claim(path) as found:
            if found is None:
                return 0
            for some in _batches(found.settlements):
                await self._replay(some)
            found.remove()
        log.warning("spool_replayed", file=path.name, settlements=len(found.settlements))
        return len(found.settlements)

    async def _forget_retried(self) -> None:
        """Removes poisoned requests of this process that are settled by now from those in flight."""
        if not self._spool.poisoned:
            return
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id FROM usage_requests WHERE id = ANY ($1) AND state = 'open'", list(self._spool.poisoned)
            )
        for request_id in self._spool.poisoned - {row["id"] for row in rows}:
            self._in_flight.leave(request_id)
            self._spool.poisoned.discard(request_id)

    async def _replay(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Settles them, in Postgres and then in Redis; returns those that are in Postgres."""
        async with self._pool.acquire() as connection:
            done = await self._settle(connection, settlements)
        with contextlib.suppress(Unavailable):  # a hold that stays is released once it has expired
            await self._quota.settle_all((one.tenant_id, one.user_id, one.id, one.total.values) for one in done)
        return done

    async def _settle(self, connection: Any, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Settles or revises them, and sets poisoned ones aside; returns the others. Raises on an outage."""
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
