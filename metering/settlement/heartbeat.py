"""The heartbeat: one write per process and beat, with how far each of its open streams is.

Whoever finds the beat standing still settles the streams by what the last one carried (metering.settlement.recovery).
Postgres away: the beat is missed and the next one tells everything again.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import asyncpg
import msgspec

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from metering.journal.in_flight import InFlight
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from metering.pricing.tokens import NO_USAGE, Usage, overlay
from metering.settlement.chars_per_token import CharsPerToken
from metering.sql import load

Rider = Callable[[Connections], Awaitable[None]]
"""Writes something small after a beat; its failure is logged, and the next beat comes all the same."""
_WRITE_S = 5
"""A beat on a connection that hangs is given up, so that the next one takes another before we are taken for dead."""

log = get_logger(__name__)


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """How far one stream is. `usage` is None before `message_start`; its output is what the provider has said of it."""

    id: UUID
    outcome: Outcome = Outcome.LOST
    usage: Usage | None = None
    finished: bool = False
    output_chars: int = 0
    model: str | None = None
    stop_reason: str | None = None
    upstream_request_id: str | None = None
    upstream_message_id: str | None = None


def progress_of(request_id: UUID, recorder: UsageRecorder | None) -> Progress:
    """What a heartbeat says of a request. Pure."""
    if recorder is None or recorder.started is None:
        return Progress(request_id, upstream_request_id=None if recorder is None else recorder.upstream_request_id)
    usage = NO_USAGE if recorder.outcome is Outcome.REFUSED else overlay(recorder.started, recorder.latest)
    if recorder.latest is None or recorder.latest.output_tokens is None:
        usage = replace(usage, output_tokens=0)  # what `message_start` says of the output is a placeholder
    return Progress(
        request_id,
        recorder.outcome if recorder.finished else Outcome.LOST,
        usage,
        recorder.finished,
        recorder.output_chars,
        recorder.model,
        recorder.stop_reason,
        recorder.upstream_request_id,
        recorder.upstream_message_id,
    )


class Heartbeat:
    """Beats every `every_s`. One per process; it must beat once before the first request is opened."""

    def __init__(
        self,
        pool: Connections,
        running: InFlight,
        densities: CharsPerToken,
        process_id: UUID,
        *,
        every_s: float,
        rider: Rider | None = None,
    ) -> None:
        self._pool = pool
        self._running = running
        self._densities = densities
        self._process_id = process_id
        self._every_s = every_s
        self._rider = rider
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """The first beat. Raises Unavailable."""
        await self.beat()
        self._task = asyncio.create_task(self._work(), name="heartbeat")

    async def stop(self) -> None:
        """Says goodbye if nothing is left behind: else a beat that stands still tells the others to look."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._carry()
        if len(self._running):
            log.critical("stopped_with_requests", requests=len(self._running))
            return
        try:
            async with self._pool.acquire() as connection:
                await connection.execute(
                    "UPDATE processes SET ended_at = clock_timestamp() WHERE id = $1", self._process_id
                )
        except Unavailable as error:
            log.warning("no_goodbye", error=str(error))

    async def beat(self) -> None:
        """One beat. Raises Unavailable."""
        async with self._pool.acquire() as connection:
            progress = msgspec.json.encode([progress_of(*entry) for entry in self._running]).decode()
            us = (self._process_id, socket.gethostname(), os.getpid())
            await connection.execute(load("beat"), *us, progress, timeout=_WRITE_S)
            await self._share_densities(connection)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.beat()
            except Unavailable as error:
                log.warning("beat_missed", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the next beat must come, or a living process is taken for dead
                log.critical("beat_failed", error=repr(error))
            await self._carry()

    async def _carry(self) -> None:
        """Lets the rider write, after the beat: what it has is worth less than a beat in time."""
        if self._rider is None:
            return
        try:
            await self._rider(self._pool)
        except (Unavailable, asyncpg.PostgresError, TimeoutError) as error:
            log.warning("rider_failed", error=type(error).__name__)

    async def _share_densities(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        """Adds what this process measured to what all have, and takes over the sum."""
        taken = self._densities.take()
        try:
            rows = await connection.fetch(
                load("densities"), *map(list, zip(*taken, strict=True) if taken else ((), (), ()))
            )
        except BaseException:
            self._densities.put_back(taken)
            raise
        self._densities.loaded([(row["model"], row["output_chars"], row["output_tokens"]) for row in rows])
