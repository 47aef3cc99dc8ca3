"""The heartbeat: one write per process and beat, with the progress of each of its open streams.

If the beat stands still, another process settles the streams from the last one (`metering.settlement.recovery`).
Postgres down: the beat is missed, and the next one carries everything again.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import msgspec

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from metering.journal.in_flight import InFlight
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from metering.pricing.iterations import ModelUsage
from metering.pricing.tokens import Usage
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.output_rates import OutputRates
from metering.settlement.token_counting import begun_usage, final_usage
from metering.sql import load

AfterBeat = Callable[[Connections], Awaitable[None]]
"""A small write after each beat. Its failure is logged, and does not stop the next beat."""
_WRITE_S = 5
"""The time-out of a beat. The next beat uses another connection, before this process is suspected to be dead."""

log = get_logger(__name__)


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """The progress of a stream. `usage` is None before `message_start`; its output is what the provider reported.

    `usage` is that of the request's own model, `beside_tokens` the part of its output that is not the message;
    `others` is that of other models. `hidden_tokens`: estimated, of thinking that is not sent.
    """

    id: UUID
    outcome: Outcome = Outcome.LOST
    usage: Usage | None = None
    finished: bool = False
    output_chars: int = 0
    model: str | None = None
    stop_reason: str | None = None
    upstream_request_id: str | None = None
    upstream_message_id: str | None = None
    modifiers: str | None = None
    others: tuple[ModelUsage, ...] = ()
    is_known: bool = True
    beside_tokens: int = 0
    hidden_tokens: int = 0
    granted_output_tokens: int = 0
    """0: the process is of a version that did not say."""


def progress_of(request_id: UUID, recorder: UsageRecorder | None, hidden_tokens: int = 0) -> Progress:
    """The progress of a request. Pure."""
    if recorder is None or recorder.started is None:
        return Progress(request_id, upstream_request_id=None if recorder is None else recorder.upstream_request_id)
    parts, beside_tokens = final_usage(recorder), 0
    if parts is None:
        parts, beside_tokens = begun_usage(recorder)
    return Progress(
        request_id,
        recorder.outcome if recorder.finished else Outcome.LOST,
        parts[0].usage,
        recorder.finished,
        recorder.output_chars,
        recorder.model,
        recorder.stop_reason,
        recorder.upstream_request_id,
        recorder.upstream_message_id,
        recorder.modifiers.text,
        parts[1:],
        parts[0].is_known,
        beside_tokens,
        hidden_tokens,
        recorder.granted_output_tokens,
    )


@dataclass(slots=True)
class Heartbeat:
    """Beats every `every_s`. One per process; the first beat comes before the first request is opened."""

    pool: Connections
    in_flight: InFlight
    chars_per_token: CharsPerToken
    process_id: UUID
    every_s: float
    after_beat: AfterBeat | None = None
    output_rates: OutputRates = field(default_factory=OutputRates)
    task: "asyncio.Task[None] | None" = field(default=None, init=False)

    async def start(self) -> None:
        """Beats once, then starts the task. Raises Unavailable."""
        await self.beat()
        self.task = asyncio.create_task(self._work(), name="heartbeat")

    async def stop(self) -> None:
        """Marks the process as ended, unless requests are left: then its standing beat makes others recover them."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self._run_after_beat()
        if len(self.in_flight):
            log.critical("stopped_with_requests", requests=len(self.in_flight))
            return
        try:
            async with self.pool.acquire() as connection:
                await connection.execute(
                    "UPDATE processes SET ended_at = clock_timestamp() WHERE id = $1", self.process_id
                )
        except Unavailable as error:
            log.warning("process_end_not_recorded", error=str(error))

    async def beat(self) -> None:
        """Writes one beat. Raises Unavailable."""
        async with self.pool.acquire() as connection:
            progress = msgspec.json.encode(self._progress()).decode()
            process = (self.process_id, socket.gethostname(), os.getpid())
            await connection.execute(load("heartbeat"), *process, progress, timeout=_WRITE_S)
            await self._share_measurements(connection)

    def _progress(self) -> list[Progress]:
        now_s = time.monotonic()
        return [
            progress_of(
                request_id, recorder, 0 if recorder is None else self.output_rates.hidden_tokens(recorder, now_s)
            )
            for request_id, recorder in self.in_flight
        ]

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.every_s)
            try:
                await self.beat()
            except Unavailable as error:
                log.warning("beat_missed", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - without the next beat a living process is suspected to be dead
                log.critical("beat_failed", error=repr(error))
            await self._run_after_beat()

    async def _run_after_beat(self) -> None:
        if self.after_beat is None:
            return
        try:
            await self.after_beat(self.pool)
        except (Unavailable, asyncpg.PostgresError, TimeoutError) as error:
            log.warning("after_beat_failed", error=type(error).__name__)

    async def _share_measurements(self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        """Adds the characters per token that this process measured to the shared table, and loads the sums."""
        observed = self.chars_per_token.take()
        columns = zip(*observed, strict=True) if observed else ((), (), ())
        try:
            rows = await connection.fetch(load("chars_per_token"), *map(list, columns))
        except BaseException:
            self.chars_per_token.put_back(observed)
            raise
        self.chars_per_token.loaded([(row["model"], row["output_chars"], row["output_tokens"]) for row in rows])
