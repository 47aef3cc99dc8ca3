"""What a request came to, into the books: Postgres first, then the difference into Redis.

Runs as a task of its own that nothing in the request can cancel, and ends once the settlement is safe: committed, or on
our disk while Postgres is away. Where somebody had settled the row already (we slept, and were given up), ours becomes
a revision if it is the better one. Redis is told afterwards; if it cannot be, the hold lapses and Postgres answers for
it then.

A settlement whose own data Postgres refuses is kept aside (`metering.journal.spool`), and its request goes on being
listed as
running: so nobody books it as lost while its true counts lie there. Redis is told them, so that it holds no room.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from core.errors import NakaError, Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.resilience.outage import STORE_ERRORS
from core.spans import span
from metering.adjustments.revisions import revise
from metering.admission.admission import Grant
from metering.admission.redis_pipeline import RedisUnavailable
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.group_commit import Poisoned
from metering.journal.in_flight import InFlight
from metering.journal.journal import Journal, Settled
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Settlement
from metering.journal.spool import Spool
from metering.pricing.price_list import PriceList
from metering.settlement.token_counting import OutputCounter

_AGAIN_S = 0.25

log = get_logger(__name__)


class Settlements:
    """Settles what the recorders say. One per process."""

    def __init__(
        self,
        journal: Journal,
        quota: QuotaScripts,
        prices: PriceList,
        pool: Connections,
        *,
        running: InFlight,
        spool: Spool,
        counter: OutputCounter,
        on_settled: Callable[[Settlement, UsageRecorder], None] | None = None,
    ) -> None:
        """`on_settled` hears of each settlement, in the moment in which it is safe."""
        self._journal = journal
        self._quota = quota
        self._prices = prices
        self._pool = pool
        self._running = running
        self._spool = spool
        self._counter = counter
        self._on_settled = on_settled
        self._tasks: set[asyncio.Task[Settlement]] = set()

    def recorder(self, grant: Grant, count_prompt: Callable[[], Awaitable[int]] | None = None) -> UsageRecorder:
        """The recorder of an admitted request; heartbeats read it. `count_prompt` is the provider's free count."""
        request = grant.request
        recorder = UsageRecorder(request.held_output_tokens, request.deadline_ms)
        recorder.held_prompt_tokens, recorder.count_prompt = request.held_prompt_tokens, count_prompt
        self._running.record(grant.request.id, recorder)
        return recorder

    def begin(self, grant: Grant, recorder: UsageRecorder) -> "asyncio.Task[Settlement]":
        """Starts to settle; the task ends once the commit is done. Shield what waits for it, not the task."""
        recorder.ended_s = time.monotonic()
        task = asyncio.create_task(self._settle(grant, recorder))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self, *, within_s: float = 10) -> None:
        """Waits for what runs; what is not safe within `within_s` is left open, loudly, for others to recover."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=within_s)
            if left:
                log.critical("settlements_left_open", requests=len(left))

    async def _settle(self, grant: Grant, recorder: UsageRecorder) -> Settlement:
        settled: Settled | None = None
        try:
            with span("settle"):
                settlement = await self._measure(grant, recorder)
                settled = await self._safe(settlement)
        finally:
            kept = settled is Settled.SPOOLED or grant.request.id in self._spool.poisoned
            if not kept:  # else its replay takes it off the list; not safe at all: an orphan
                self._running.leave(grant.request.id)
        if self._on_settled is not None:
            self._on_settled(settlement, recorder)
        await self._release(settlement)
        return settlement

    async def _release(self, settlement: Settlement) -> None:
        """Puts the counts in place of the hold."""
        try:
            await self._quota.settle(settlement.tenant_id, settlement.user_id, settlement.id, counts_of(settlement))
        except RedisUnavailable:
            log.debug("hold_not_released", request_id=str(settlement.id))  # of each request of an outage
        except NakaError as error:
            log.warning("hold_not_released", request_id=str(settlement.id), error=str(error))

    async def _safe(self, settlement: Settlement) -> Settled:
        """Returns once it cannot be lost any more. Raises Poisoned, or what Postgres said, when it refuses it."""
        try:
            settled = await self._journal.settlements.submit(settlement)
            return await self._revised(settlement) if settled is Settled.BEFORE else settled
        except (Poisoned, *STORE_ERRORS):
            await self._spool.set_aside(settlement)
            await self._release(settlement)
            raise

    async def _revised(self, settlement: Settlement) -> Settled:
        """Somebody had settled the row; ours may be the better count. Waits until Postgres or the disk has it."""
        while True:
            try:
                async with self._pool.acquire() as connection:
                    await revise(connection, settlement)
            except Unavailable:
                with contextlib.suppress(OSError):
                    await self._spool.take([settlement])
                    return Settled.SPOOLED
            else:
                return Settled.BEFORE
            log.critical("revision_waits", request_id=str(settlement.id))
            await asyncio.sleep(_AGAIN_S)

    async def _measure(self, grant: Grant, recorder: UsageRecorder) -> Settlement:
        """What the recorder says, priced: the model echoed decides, by the list as it was at the grant."""
        request = grant.request
        usage, source = await self._counter.measure(recorder)
        price, known = (await self._prices.known()).settle(recorder.model, request.opened_ms, grant.price)
        if not known:
            log.error("model_not_listed", request_id=str(request.id), model=recorder.model, priced_as=price.model)
        return Settlement(
            tenant_id=request.tenant_id,
            id=request.id,
            user_id=request.user_id,
            outcome=recorder.outcome,
            source=source,
            model=recorder.model or request.model,
            model_known=known,
            usage=usage,
            cost_nano_usd=price.cost_nano_usd(usage),
            stop_reason=recorder.stop_reason,
            upstream_request_id=recorder.upstream_request_id,
            upstream_message_id=recorder.upstream_message_id,
            output_chars=recorder.output_chars,
        )


def counts_of(settlement: Settlement) -> tuple[int, ...]:
    """The seven counts that a window adds."""
    usage = settlement.usage
    return (
        settlement.requests,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        settlement.cost_nano_usd,
    )
