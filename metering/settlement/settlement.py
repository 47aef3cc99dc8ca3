"""Settles a request: its measured usage goes to Postgres first, then to the counters in Redis.

Runs as a task that the request cannot cancel, and ends once the settlement is durable: committed, or on this host's
disk while Postgres is down. Redis down: the hold expires, and its counters are read from Postgres then. A settlement
whose data Postgres refuses is set aside (`metering.journal.spool`): its request stays in flight, so that recovery does
not settle it as lost, and Redis gets its counts, so that its hold ends.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from core.errors import NakaError, Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.resilience.outage import STORE_ERRORS
from core.spans import span
from metering.adjustments.revisions import revise
from metering.admission.redis_pipeline import RedisUnavailable
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.group_commit import Poisoned
from metering.journal.in_flight import InFlight
from metering.journal.journal import Journal, Settled
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Settlement
from metering.journal.spool import Spool
from metering.pricing.answer_cost import AnswerCost, price_answer
from metering.pricing.price_list import PriceList
from metering.quota.query import Grant
from metering.settlement.token_counting import OutputCounter

_RETRY_S = 0.25

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settlements:
    """Settles requests from their recorders. One per process."""

    journal: Journal
    quota: QuotaScripts
    prices: PriceList
    pool: Connections
    in_flight: InFlight
    spool: Spool
    counter: OutputCounter
    on_settled: Callable[[Settlement, UsageRecorder], None] | None = None
    """Called with each settlement once it is durable."""
    tasks: "set[asyncio.Task[Settlement]]" = field(default_factory=set, init=False)

    def recorder(
        self,
        grant: Grant,
        count_prompt: Callable[[], Awaitable[int]] | None = None,
        *,
        prompt_once: int | None = None,
        thinking_budget: int | None = None,
    ) -> UsageRecorder:
        """The recorder of an admitted request, which heartbeats read.

        `count_prompt`: the provider's free count of one inference. `prompt_once`: the most of one; None: what is held.
        `thinking_budget`: the most tokens of thinking, where the request says so.
        """
        request = grant.request
        held = request.held_prompt_tokens
        recorder = UsageRecorder(grant.output_tokens, request.deadline_ms)
        recorder.most_prompt_tokens = held if prompt_once is None else min(prompt_once, held)
        recorder.count_prompt = count_prompt
        recorder.hidden_thinking.budget_tokens = thinking_budget
        recorder.asked = grant.modifiers
        self.in_flight.record(request.id, recorder)
        return recorder

    def begin(self, grant: Grant, recorder: UsageRecorder) -> "asyncio.Task[Settlement]":
        """Starts to settle; the task ends once the settlement is durable. A waiter shields its wait."""
        recorder.ended_s = time.monotonic()
        task = asyncio.create_task(self._settle(grant, recorder))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def stop(self, *, within_s: float = 10) -> None:
        """Waits `within_s` for running settlements; what is left stays open, is logged, and is recovered by others."""
        if self.tasks:
            _, left = await asyncio.wait(self.tasks, timeout=within_s)
            if left:
                log.critical("settlements_left_open", requests=len(left))

    async def _settle(self, grant: Grant, recorder: UsageRecorder) -> Settlement:
        settled: Settled | None = None
        try:
            with span("settle"):
                settlement = await self._measure(grant, recorder)
                settled = await self._store(settlement)
        finally:
            kept = settled is Settled.SPOOLED or grant.request.id in self.spool.poisoned
            if not kept:  # a replay removes a kept one; one that failed becomes an orphan, which recovery settles
                self.in_flight.leave(grant.request.id)
        if self.on_settled is not None:
            self.on_settled(settlement, recorder)
        await self._release(settlement)
        return settlement

    async def _release(self, settlement: Settlement) -> None:
        """Replaces the hold by the counts, in Redis."""
        try:
            await self.quota.settle(settlement.tenant_id, settlement.user_id, settlement.id, settlement.total.values)
        except RedisUnavailable:
            log.debug("hold_not_released", request_id=str(settlement.id))  # one per request of an outage
        except NakaError as error:
            log.warning("hold_not_released", request_id=str(settlement.id), error=str(error))

    async def _store(self, settlement: Settlement) -> Settled:
        """Returns once the settlement is durable. Raises Poisoned, or Postgres's error, if Postgres refuses it."""
        try:
            settled = await self.journal.settlements.submit(settlement)
            return await self._revise(settlement) if settled is Settled.BEFORE else settled
        except (Poisoned, *STORE_ERRORS):
            await self.spool.set_aside(settlement)
            await self._release(settlement)
            raise

    async def _revise(self, settlement: Settlement) -> Settled:
        """Revises a row that another process had settled. Retries until Postgres or the disk has it."""
        while True:
            try:
                async with self.pool.acquire() as connection:
                    await revise(connection, settlement)
            except Unavailable:
                with contextlib.suppress(OSError):
                    await self.spool.spill([settlement])
                    return Settled.SPOOLED
            else:
                return Settled.BEFORE
            log.critical("revision_waits", request_id=str(settlement.id))
            await asyncio.sleep(_RETRY_S)

    async def _measure(self, grant: Grant, recorder: UsageRecorder) -> Settlement:
        """The settlement of the recorder, at the prices of the models that answered at the moment of the grant."""
        request, modifiers = grant.request, recorder.modifiers
        parts, source = await self.counter.measure(recorder)
        cost = price_answer(await self.prices.known(), grant.price, request.opened_ms, parts, modifiers)
        log_unknown(request.id, cost)
        return Settlement(
            tenant_id=request.tenant_id,
            id=request.id,
            user_id=request.user_id,
            outcome=recorder.outcome,
            source=source,
            model=recorder.model or request.model,
            model_known=not cost.unknown,
            usage=cost.usage,
            cost_nano_usd=cost.cost_nano_usd,
            stop_reason=recorder.stop_reason,
            upstream_request_id=recorder.upstream_request_id,
            upstream_message_id=recorder.upstream_message_id,
            output_chars=recorder.output_chars,
            modifiers=modifiers.text,
            others=cost.others,
        )


def log_unknown(request_id: UUID, cost: AnswerCost) -> None:
    """Logs what the price list does not know of a request: its price may be wrong until the list is completed."""
    for what in cost.unknown:
        log.error("price_not_listed", request_id=str(request_id), what=what)
