"""Measures the usage of a request: from the provider's final usage, a count of the relayed text, or its length.

For an answer that broke off, the input is exact from `message_start` on; the output is the relayed text, counted by the
provider or, if that fails, estimated from the model's characters per token. A request that was sent, and neither
answered nor refused, has its input as counted by the provider or as bounded at admission: both are estimates. If the
provider's count is down or slow, the measurement is less exact, at most `_LONGEST_S` late, and never fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from core.errors import NakaError
from core.logs import get_logger
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Source
from metering.pricing.tokens import NO_USAGE, ReportedUsage, Usage, overlay
from metering.settlement.chars_per_token import CharsPerToken

_LONGEST_S = 6.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutputCounter:
    """Measures the usage of recorders. One per process.

    `count_output(model, text)`: the provider's count of a text as output; None: nobody can count it.
    """

    count_output: Callable[[str, str], Awaitable[int]] | None
    chars_per_token: CharsPerToken

    async def measure(self, recorder: UsageRecorder) -> tuple[Usage, Source]:
        """The usage of a request that has ended, and its source. Drops the recorder's text."""
        try:
            if recorder.unanswered:
                return Usage(input_tokens=await self._prompt_tokens(recorder)), Source.ESTIMATED
            usage = final_usage(recorder)
            if usage is None:
                tokens, source = await self._relayed(recorder)
                return broken_usage(recorder, tokens), source
            if recorder.finished and recorder.model is not None:
                self.chars_per_token.observe(recorder.model, recorder.output_chars, usage.output_tokens)
            return usage, Source.FINAL
        finally:
            recorder.forget_text()
            recorder.count_prompt = None

    async def _prompt_tokens(self, recorder: UsageRecorder) -> int:
        """The input of a request that was never answered: at most what was held, so no window exceeds its limit."""
        if recorder.count_prompt is not None:
            counted = await _counted(recorder.count_prompt(), "prompt_not_counted", recorder.model)
            if counted is not None:
                return min(counted, recorder.held_prompt_tokens)
        return recorder.held_prompt_tokens

    async def _relayed(self, recorder: UsageRecorder) -> tuple[int, Source]:
        """The tokens of the relayed text. No text needs no count."""
        if recorder.output_chars == 0:
            return 0, Source.COUNTED
        model, text = recorder.model, recorder.text()
        if self.count_output is not None and model is not None and text is not None:
            counted = await _counted(self.count_output(model, text), "output_not_counted", model)
            if counted is not None:
                return counted, Source.COUNTED
        return self.chars_per_token.estimate(model or "", recorder.output_chars), Source.ESTIMATED


async def _counted(count: Awaitable[int], event: str, model: str | None) -> int | None:
    """The provider's count; None, and a log line, if it fails or takes longer than `_LONGEST_S`."""
    try:
        async with asyncio.timeout(_LONGEST_S):
            return await count
    except (NakaError, TimeoutError) as error:
        log.warning(event, error=str(error) or type(error).__name__, model=model)
    except Exception as error:  # noqa: BLE001 - a failed count must not fail the settlement
        log.error(event, error=type(error).__name__, model=model)  # noqa: TRY400 - a traceback would log the text
    return None


def final_usage(recorder: UsageRecorder) -> Usage | None:
    """The provider's own counts; None for an answer that broke off before them. Pure.

    Before `message_start` there are none, and a refusal without output counts no tokens.
    """
    if recorder.started is None or recorder.outcome is Outcome.REFUSED:
        return NO_USAGE
    return overlay(recorder.started, recorder.latest) if recorder.finished else None


def broken_usage(recorder: UsageRecorder, relayed_tokens: int) -> Usage:
    """The counts of an answer that broke off after `relayed_tokens` of text. Pure.

    The output in `message_start` is a placeholder and is ignored; that in a `message_delta` is exact. Our own count is
    at most what was granted: the provider cannot have written more.
    """
    latest = recorder.latest or ReportedUsage()
    usage = overlay(recorder.started or ReportedUsage(), latest)
    reported = latest.output_tokens or 0
    return replace(usage, output_tokens=max(reported, min(relayed_tokens, recorder.granted_output_tokens)))
