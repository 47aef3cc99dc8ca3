"""What a request came to, into the books: Postgres first, then the difference into Redis.

Runs as a task of its own that nothing in the request can cancel. The answer of `settle` means: committed. Redis is
told afterwards; if it cannot be, the hold lapses and Postgres answers for it then.
"""

import asyncio

from core.errors import NakaError
from core.logs import get_logger
from metering.admission import Grant
from metering.journal import Journal
from metering.prices import PriceList
from metering.quota import Quota
from metering.recorder import UsageRecorder
from metering.records import Outcome, Settlement, Source
from metering.tokens import NO_USAGE, Usage, estimate_output, overlay

log = get_logger(__name__)


class Settlements:
    """Settles what the recorders say. One per process."""

    def __init__(self, journal: Journal, quota: Quota, prices: PriceList) -> None:
        self._journal = journal
        self._quota = quota
        self._prices = prices
        self._running: set[asyncio.Task[Settlement]] = set()

    def begin(self, grant: Grant, recorder: UsageRecorder) -> "asyncio.Task[Settlement]":
        """Starts to settle; the task ends once the commit is done. Shield what waits for it, not the task."""
        task = asyncio.create_task(self._settle(grant, recorder))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def stop(self, *, within_s: float = 10) -> None:
        """Waits for what runs; what Postgres does not take within `within_s` is left open there, loudly."""
        if self._running:
            _, left = await asyncio.wait(self._running, timeout=within_s)
            if left:
                log.critical("settlements_left_open", requests=len(left))

    async def _settle(self, grant: Grant, recorder: UsageRecorder) -> Settlement:
        settlement = await self._measure(grant, recorder)
        await self._journal.settlements.submit(settlement)
        try:
            await self._quota.settle(settlement.tenant_id, settlement.user_id, settlement.id, counts_of(settlement))
        except NakaError as error:
            log.warning("hold_not_released", request_id=str(settlement.id), error=str(error))
        return settlement

    async def _measure(self, grant: Grant, recorder: UsageRecorder) -> Settlement:
        """What the recorder says, priced: the model echoed decides, by the list as it was at the grant."""
        request = grant.request
        usage, source = measure(recorder)
        price, known = (await self._prices.book()).settle(recorder.model, request.opened_ms, grant.price)
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
            requests=0 if recorder.started is None else 1,
            usage=usage,
            cost_nano_usd=price.cost_nano_usd(usage),
            stop_reason=recorder.stop_reason,
            upstream_request_id=recorder.upstream_request_id,
            upstream_message_id=recorder.upstream_message_id,
            output_chars=recorder.output_chars,
        )


def measure(recorder: UsageRecorder) -> tuple[Usage, Source]:
    """The counts of a request and how they are known. Pure.

    With `message_stop`, or a final `message_delta` before it broke: the provider's own. Before `message_start`:
    nothing. In between: the input is exact, the output is what was relayed, estimated. A refusal without any
    output is billed nothing.
    """
    if recorder.started is None:
        return NO_USAGE, Source.FINAL
    if recorder.outcome is Outcome.REFUSED:
        return NO_USAGE, Source.FINAL
    usage = overlay(recorder.started, recorder.latest)
    if recorder.finished:
        return usage, Source.FINAL
    output = max(usage.output_tokens if recorder.latest else 0, estimate_output(recorder.output_chars))
    return (
        Usage(
            usage.input_tokens,
            output,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.cache_write_1h_tokens,
        ),
        Source.ESTIMATED,
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
