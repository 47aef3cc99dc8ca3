"""What a request used, and how that is known: the provider's final word, a count of the relayed text, or its length.

An answer that ended has the provider's own counts. Of one that broke off the input is exact from `message_start` on;
its output is the relayed text, counted by the provider, or, where that fails, estimated by the model's own density.
A request that was sent and never answered, nor refused, has its input as counted by the provider, or, where that
fails, as bounded when it was admitted: both are estimates, and never more than was held.
The provider's count being away, slow or full makes a measurement poorer, never late by more than `_LONGEST_S`, and
never fail.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from core.errors import NakaError
from core.logs import get_logger
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Source
from metering.pricing.tokens import NO_USAGE, ReportedUsage, Usage, overlay
from metering.settlement.chars_per_token import CharsPerToken

_LONGEST_S = 6.0

log = get_logger(__name__)


class OutputCounter:
    """Measures what recorders say. One per process.

    `count_output(model, text)` is the provider's count of a text as output; None where there is nobody to ask.
    """

    def __init__(self, count_output: Callable[[str, str], Awaitable[int]] | None, densities: CharsPerToken) -> None:
        self._count_output = count_output
        self._densities = densities

    async def measure(self, recorder: UsageRecorder) -> tuple[Usage, Source]:
        """The counts of a request that has ended and how they are known. The recorder's text is gone after it."""
        try:
            if recorder.unanswered:
                return Usage(input_tokens=await self._prompt_tokens(recorder)), Source.ESTIMATED
            usage = final_usage(recorder)
            if usage is None:
                tokens, source = await self._relayed(recorder)
                return broken_usage(recorder, tokens), source
            if recorder.finished and recorder.model is not None:
                self._densities.observe(recorder.model, recorder.output_chars, usage.output_tokens)
            return usage, Source.FINAL
        finally:
            recorder.forget_text()
            recorder.count_prompt = None

    async def _prompt_tokens(self, recorder: UsageRecorder) -> int:
        """The input of a request that was never answered. No window passes its limit for it: so much was held."""
        if recorder.count_prompt is not None:
            counted = await _asked(recorder.count_prompt(), "prompt_not_counted", recorder.model)
            if counted is not None:
                return min(counted, recorder.held_prompt_tokens)
        return recorder.held_prompt_tokens

    async def _relayed(self, recorder: UsageRecorder) -> tuple[int, Source]:
        """The tokens of the relayed text. Nothing was relayed: that is known without asking."""
        if recorder.output_chars == 0:
            return 0, Source.COUNTED
        model, text = recorder.model, recorder.text()
        if self._count_output is not None and model is not None and text is not None:
            counted = await _asked(self._count_output(model, text), "output_not_counted", model)
            if counted is not None:
                return counted, Source.COUNTED
        return self._densities.estimate(model or "", recorder.output_chars), Source.ESTIMATED


async def _asked(count: Awaitable[int], event: str, model: str | None) -> int | None:
    """The provider's count; None, and a line in the log, when it is not had within `_LONGEST_S`."""
    try:
        async with asyncio.timeout(_LONGEST_S):
            return await count
    except (NakaError, TimeoutError) as error:
        log.warning(event, error=str(error) or type(error).__name__, model=model)
    except Exception as error:  # noqa: BLE001 - a settlement does not fail because a count did
        log.error(event, error=type(error).__name__, model=model)  # noqa: TRY400 - no locals
    return None


def final_usage(recorder: UsageRecorder) -> Usage | None:
    """The counts that the provider itself has given; None for an answer that broke off before that. Pure.

    Before `message_start` there are none, and of a refusal without any output no tokens count.
    """
    if recorder.started is None or recorder.outcome is Outcome.REFUSED:
        return NO_USAGE
    return overlay(recorder.started, recorder.latest) if recorder.finished else None


def broken_usage(recorder: UsageRecorder, relayed_tokens: int) -> Usage:
    """The counts of an answer that broke off with `relayed_tokens` of text. Pure.

    The output of `message_start` is a placeholder and counts nothing; that of a `message_delta` is the provider's word.
    What we measure ourselves is never more than was granted: the provider cannot have written more.
    """
    latest = recorder.latest or ReportedUsage()
    usage = overlay(recorder.started or ReportedUsage(), latest)
    told = latest.output_tokens or 0
    return replace(usage, output_tokens=max(told, min(relayed_tokens, recorder.granted_output_tokens)))
