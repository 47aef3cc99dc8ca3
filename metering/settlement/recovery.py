"""Requests that nobody is going to settle, settled: once, by what their process's last heartbeat said of them.

- of a process whose beat stands still: it died, or only sleeps. Settled; but the hold counts until the deadline, since
  a sleeper's stream may still run. When it wakes, its better count becomes a revision.
- of a process that said goodbye, and orphans of this one (open, and not among what it runs): no stream can run any
  more, so the hold goes at once.

Any number of processes may do this at the same time: a row is settled only while it is open. Postgres away: nothing
is judged, and what was seen before is forgotten.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from metering.pricing.price import PriceBook
from metering.pricing.price_list import PriceList
from metering.pricing.tokens import NO_USAGE, Usage
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.failure_detector import FailureDetector
from metering.settlement.heartbeat import Progress
from metering.settlement.settlement import counts_of
from metering.sql import load

_SHARD = 0
_LOOKS_PER_DEATH = 8

log = get_logger(__name__)


class Recovery:
    """Watches the beats of all processes and settles what the dead left open. Any number may run."""

    def __init__(
        self,
        pool: Connections,
        quota: QuotaScripts,
        prices: PriceList,
        densities: CharsPerToken,
        *,
        process_id: UUID | None = None,
        running: InFlight | None = None,
        dead_after_s: float,
    ) -> None:
        """`process_id` and `running` of the process it runs in, if that one opens requests: its orphans are ours."""
        self._pool = pool
        self._quota = quota
        self._prices = prices
        self._densities = densities
        self._process_id = process_id
        self._running = running
        self._every_s = dead_after_s / _LOOKS_PER_DEATH
        self._vigil = FailureDetector(dead_after_s=dead_after_s, longest_gap_s=3 * self._every_s)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Looks from now on."""
        self._task = asyncio.create_task(self._work(), name="recovery")

    async def stop(self) -> None:
        """Ends; a recovery under way is undone whole, and another process does it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Unavailable as error:
                log.warning("recovery_waits", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the next look must come whatever this one met
                log.critical("recovery_failed", error=repr(error))

    async def look(self) -> int:
        """One look at everybody; how many requests it settled. Raises Unavailable."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(load("watch"))
        ours = self._process_id if self._running is not None else None
        beats = {row["id"]: row["beat"] for row in rows if not row["ended"] and row["id"] != ours}
        settled = 0
        for process_id in self._vigil.look(beats, time.monotonic()):
            settled += await self._attempt(process_id, beats[process_id])
        for row in rows:
            if row["ended"] and row["id"] != ours:
                settled += await self._attempt(row["id"], None)
        if any(row["id"] == ours for row in rows):
            settled += await self.recover_orphans()
        return settled

    async def _attempt(self, process_id: UUID, beat: int | None) -> int:
        """What keeps one process from being recovered keeps no other."""
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
        """Settles open rows of this process that it does not run: an open in doubt, a settlement that failed."""
        if self._process_id is None or self._running is None:
            return 0
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT id FROM usage_requests WHERE process_id = $1 AND state = 'open'", self._process_id
            )
        # Read after the rows: what was settled since is not among them either, and then nothing is open to settle.
        orphans = [row["id"] for row in rows if row["id"] not in self._running]
        return await self.recover(self._process_id, beat=None, only=orphans) if orphans else 0

    async def recover(self, process_id: UUID, *, beat: int | None, only: Sequence[UUID] | None = None) -> int:
        """Settles what the process left open. With `beat`: only if it still stands there; it may wake up later."""
        book = await self._prices.book()
        async with self._pool.acquire(patient=True) as connection, connection.transaction():
            process = await connection.fetchrow(
                "SELECT beat, progress FROM processes WHERE id = $1 FOR UPDATE", process_id
            )
            if beat is not None and beat != (-1 if process is None else process["beat"]):
                return 0
            rows = await connection.fetch(load("lost"), process_id, only)
            densities = await connection.fetch("SELECT model, output_chars, output_tokens FROM output_densities")
            self._densities.loaded(tuple(density.values()) for density in densities)
            known = _progress(None if process is None else process["progress"])
            lost = [self._settlement(row, known.get(row["id"]) or Progress(row["id"]), book) for row in rows]
            settled = await _settle(connection, lost) if lost else set()
            if beat is not None and settled:
                pairs = [(settlement.tenant_id, settlement.id) for settlement in lost if settlement.id in settled]
                await connection.execute(load("keep_holds"), *map(list, zip(*pairs, strict=True)), offset_ms())
        if beat is None:
            await self._release(settlement for settlement in lost if settlement.id in settled)
        if settled:
            log.warning(
                "requests_recovered", process_id=str(process_id), requests=len(settled), asleep=beat is not None
            )
        return len(settled)

    async def _release(self, lost: Iterable[Settlement]) -> None:
        for settlement in lost:
            with contextlib.suppress(Unavailable):
                await self._quota.settle(settlement.tenant_id, settlement.user_id, settlement.id, counts_of(settlement))

    def _settlement(self, row: asyncpg.Record, progress: Progress, book: PriceBook) -> Settlement:
        """What a heartbeat's word on a request comes to: final if the beat had seen its end, else estimated."""
        pinned = book.by_id(row["price_id"])
        price, known = book.settle(progress.model, to_ms(row["opened_at"]), pinned)
        usage, source = NO_USAGE, Source.ESTIMATED
        if progress.usage is not None:
            usage, source = self._measured(progress.usage, progress, row["held_output_tokens"])
        return Settlement(
            tenant_id=row["tenant_id"],
            id=row["id"],
            user_id=row["user_id"],
            outcome=progress.outcome,
            source=source,
            model=progress.model or row["model_asked"],
            model_known=known,
            usage=usage,
            cost_nano_usd=price.cost_nano_usd(usage),
            stop_reason=progress.stop_reason,
            upstream_request_id=progress.upstream_request_id,
            upstream_message_id=progress.upstream_message_id,
            output_chars=progress.output_chars,
        )

    def _measured(self, usage: Usage, progress: Progress, granted: int) -> tuple[Usage, Source]:
        """The provider was told to write at most `granted` tokens: an estimate cannot be more."""
        if progress.finished:
            return usage, Source.FINAL
        estimate = self._densities.estimate(progress.model or "", progress.output_chars)
        return replace(usage, output_tokens=max(usage.output_tokens, min(estimate, granted))), Source.ESTIMATED


async def _settle(connection: Any, lost: Sequence[Settlement]) -> set[UUID]:
    """Settles them, in the caller's transaction. One that Postgres refuses stays open, loudly, and stops no other."""
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
