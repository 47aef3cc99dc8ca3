"""Recovery: settles requests that their process will not settle, once, from its last heartbeat.

- A process whose beat stands still died, or is suspended. Its requests are settled, but their holds count until the
  deadline, since their streams may still run. If it wakes up, its better measurement becomes a revision.
- A process that ended, and orphans of this one (open, and not in flight): no stream can run, so the hold ends at once.

Any number of processes may do this concurrently: a row is settled only while it is open. Postgres down: nothing is
recovered, and the failure detector starts over.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from core.clock import offset_ms, to_ms
from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.resilience.outage import STORE_ERRORS, Collided, is_row_fault
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.in_flight import InFlight
from metering.journal.journal import settle_batch
from metering.journal.records import Settlement, Source
from metering.pricing.answer_cost import price_answer
from metering.pricing.iterations import ModelUsage
from metering.pricing.price import Modifiers, PriceBook
from metering.pricing.price_list import PriceList
from metering.pricing.tokens import NO_USAGE
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.failure_detector import FailureDetector
from metering.settlement.heartbeat import Progress
from metering.settlement.settlement import log_unknown
from metering.settlement.token_counting import ModelUsages, with_written
from metering.sql import load

_SHARD = 0
_LOOKS_PER_TIMEOUT = 8

log = get_logger(__name__)


@dataclass(slots=True)
class Recovery:
    """Watches the beats of all processes and settles what dead ones left open. Any number may run.

    `process_id` and `in_flight`: of this process, if it opens requests; it then recovers its own orphans.
    """

    pool: Connections
    quota: QuotaScripts
    prices: PriceList
    chars_per_token: CharsPerToken
    dead_after_s: float
    process_id: UUID | None = None
    in_flight: InFlight | None = None
    detector: FailureDetector = field(init=False)
    task: "asyncio.Task[None] | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Begins to watch."""
        gap_s = 3 * self.dead_after_s / _LOOKS_PER_TIMEOUT
        self.detector = FailureDetector(dead_after_s=self.dead_after_s, longest_gap_s=gap_s)

    def start(self) -> None:
        """Starts the task."""
        self.task = asyncio.create_task(self._work(), name="recovery")

    async def stop(self) -> None:
        """Ends the task; a running recovery is rolled back, and another process does it."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.dead_after_s / _LOOKS_PER_TIMEOUT)
            try:
                await self.look()
            except Unavailable as error:
                log.warning("recovery_waits", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the task must survive any error
                log.critical("recovery_failed", error=repr(error))

    async def look(self) -> int:
        """Checks all processes once; the number of requests that it settled. Raises Unavailable."""
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(load("heartbeats"))
        own_id = self.process_id if self.in_flight is not None else None
        beats = {row["id"]: row["beat"] for row in rows if not row["ended"] and row["id"] != own_id}
        settled = 0
        for process_id in self.detector.look(beats, time.monotonic()):
            settled += await self._attempt(process_id, beats[process_id])
        for row in rows:
            if row["ended"] and row["id"] != own_id:
                settled += await self._attempt(row["id"], None)
        if any(row["id"] == own_id for row in rows):
            settled += await self.recover_orphans()
        return settled

    async def _attempt(self, process_id: UUID, beat: int | None) -> int:
        """Recovers a process; a failure is logged and does not stop the recovery of others."""
        try:
            return await self.recover(process_id, beat=beat)
        except Collided as error:
            log.warning("recovery_collided", process_id=str(process_id), error=str(error))
            return 0
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - tried again at the next look
            log.critical("recovery_failed", process_id=str(process_id), error=repr(error))
            return 0

    async def recover_orphans(self) -> int:
        """Settles open rows of this process that are not in flight: an open in doubt, a settlement that failed."""
        if self.process_id is None or self.in_flight is None:
            return 0
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id FROM usage_requests WHERE process_id = $1 AND state = 'open'", self.process_id
            )
        # Checked after the read: a request that was settled meanwhile is not open any more, and stays as it is.
        orphans = [row["id"] for row in rows if row["id"] not in self.in_flight]
        return await self.recover(self.process_id, beat=None, only=orphans) if orphans else 0

    async def recover(self, process_id: UUID, *, beat: int | None, only: Sequence[UUID] | None = None) -> int:
        """Settles what the process left open. With `beat`: only if that is still its beat, and keeping the holds."""
        book = await self.prices.book()
        async with self.pool.acquire(patient=True) as connection, connection.transaction():
            process = await connection.fetchrow(
                "SELECT beat, progress FROM processes WHERE id = $1 FOR UPDATE", process_id
            )
            if beat is not None and beat != (-1 if process is None else process["beat"]):
                return 0
            rows = await connection.fetch(load("abandoned_requests"), process_id, only)
            measured = await connection.fetch("SELECT model, output_chars, output_tokens FROM output_densities")
            self.chars_per_token.loaded(tuple(row.values()) for row in measured)
            known = _progress(None if process is None else process["progress"])
            lost = [self._settlement(row, known.get(row["id"]) or Progress(row["id"]), book) for row in rows]
            settled = await _settle(connection, lost) if lost else set()
            if beat is not None and settled:
                pairs = [(settlement.tenant_id, settlement.id) for settlement in lost if settlement.id in settled]
                await connection.execute(load("extend_holds"), *map(list, zip(*pairs, strict=True)), offset_ms())
        if beat is None:
            with contextlib.suppress(Unavailable):  # a hold that stays is released once it has expired
                await self.quota.settle_all(
                    (one.tenant_id, one.user_id, one.id, one.total.values) for one in lost if one.id in settled
                )
        if settled:
            suspected = beat is not None
            log.warning("requests_recovered", process_id=str(process_id), requests=len(settled), suspected=suspected)
        return len(settled)

    def _settlement(self, row: asyncpg.Record, progress: Progress, book: PriceBook) -> Settlement:
        """The settlement of a request from its last progress: final if the stream had ended, else estimated."""
        held: int = row["held_output_tokens"]  # with the output of further models
        parts, source = self._measured(progress, min(held, progress.granted_output_tokens or held))
        modifiers = Modifiers.parse(progress.modifiers)
        cost = price_answer(book, book.by_id(row["price_id"]), to_ms(row["opened_at"]), parts, modifiers)
        log_unknown(row["id"], cost)
        return Settlement(
            tenant_id=row["tenant_id"],
            id=row["id"],
            user_id=row["user_id"],
            outcome=progress.outcome,
            source=source,
            model=progress.model or row["model_asked"],
            model_known=not cost.unknown,
            usage=cost.usage,
            cost_nano_usd=cost.cost_nano_usd,
            stop_reason=progress.stop_reason,
            upstream_request_id=progress.upstream_request_id,
            upstream_message_id=progress.upstream_message_id,
            output_chars=progress.output_chars,
            modifiers=progress.modifiers,
            others=cost.others,
        )

    def _measured(self, progress: Progress, granted: int) -> tuple[ModelUsages, Source]:
        """The usage and its source. An estimate is at most `granted`, the most that the provider could write."""
        own = ModelUsage(progress.model or "", progress.usage or NO_USAGE, progress.is_known)
        parts = (own, *progress.others)
        if progress.usage is None or progress.finished:
            return parts, Source.FINAL if progress.finished else Source.ESTIMATED
        estimate = self.chars_per_token.estimate(progress.model or "", progress.output_chars) + progress.hidden_tokens
        return with_written(parts, progress.beside_tokens, min(estimate, granted)), Source.ESTIMATED


async def _settle(connection: Any, lost: Sequence[Settlement]) -> set[UUID]:
    """Settles them in the caller's transaction. One that Postgres refuses is logged and stays open."""
    try:
        async with connection.transaction():
            return await settle_batch(connection, lost, _SHARD)
    except STORE_ERRORS as error:
        if not is_row_fault(error):
            raise
        if len(lost) > 1:
            return {settled for one in lost for settled in await _settle(connection, [one])}
        log.critical("lost_row_poisoned", error=type(error).__name__, item=repr(lost[0]))
        return set()


def _progress(encoded: Any) -> dict[UUID, Progress]:
    if encoded is None:
        return {}
    return {progress.id: progress for progress in msgspec.json.decode(encoded, type=list[Progress])}
