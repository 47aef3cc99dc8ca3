"""Measures the usage of a request: from the provider's final usage, a count of the relayed text, or its length.

For an answer that broke off, the input is exact from `message_start` on; the output is the relayed text, counted by the
provider or, if that fails, estimated from the model's characters per token; and hidden thinking, estimated. A request
that was sent, and neither answered nor refused, has the input of one inference, as counted by the provider or as
bounded at admission: both are estimates. If the provider's count is down or slow, the measurement is less exact, at
most `_LONGEST_S` late, and never fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from core.errors import NakaError
from core.logs import get_logger
from core.resilience.shares import apart
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Source
from metering.pricing.iterations import ModelUsage, message_output, usage_by_model, without_placeholders
from metering.pricing.tokens import ReportedUsage, Usage
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.output_rates import OutputRates

ModelUsages = tuple[ModelUsage, ...]
"""The usage of a request by model, its own first."""

_LONGEST_S = 6.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutputCounter:
    """Measures the usage of recorders. One per process.

    `count_output(model, text)`: the provider's count of a text as output; None: nobody can count it.
    """

    count_output: Callable[[str, str], Awaitable[int]] | None
    chars_per_token: CharsPerToken
    output_rates: OutputRates = field(default_factory=OutputRates)

    async def measure(self, recorder: UsageRecorder) -> tuple[ModelUsages, Source]:
        """The usage of a request that has ended, by model, and its source. Drops the recorder's text."""
        try:
            if recorder.unanswered:
                usage = Usage(input_tokens=await self._prompt_tokens(recorder))
                return (ModelUsage(recorder.model or "", usage),), Source.ESTIMATED
            final = final_usage(recorder)
            if final is not None:
                self._observe(recorder)
                return final, Source.FINAL
            tokens, source = await self._relayed(recorder)
            hidden = self.output_rates.hidden_tokens(recorder, recorder.ended_s)
            return broken_usage(recorder, tokens + hidden), Source.ESTIMATED if recorder.hid_thinking else source
        finally:
            recorder.forget_text()
            recorder.count_prompt = None

    def _observe(self, recorder: UsageRecorder) -> None:
        """Learns from a complete answer. One with hidden thinking tells nothing of the characters of a token."""
        if recorder.started is None or recorder.model is None or not recorder.finished:
            return
        tokens = message_output(recorder.started, recorder.latest, recorder.model)
        if not recorder.hidden_thinking.blocks:
            self.chars_per_token.observe(recorder.model, recorder.output_chars, tokens)
        self.output_rates.observe(recorder.model, tokens, recorder.ended_s - recorder.answered_s)

    async def _prompt_tokens(self, recorder: UsageRecorder) -> int:
        """The input of a request that was never answered: of one inference, since nobody knows of a second one."""
        if recorder.count_prompt is not None:
            counted = await _counted(recorder.count_prompt(), "prompt_not_counted", recorder.model)
            if counted is not None:
                return min(counted, recorder.most_prompt_tokens)
        return recorder.most_prompt_tokens

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
    """The provider's count; None, and a log line, if it fails or takes longer than `_LONGEST_S`.

    It has a share of places apart from the counts that the tenant asks for, which could take all of its places.
    """
    try:
        async with asyncio.timeout(_LONGEST_S):
            with apart("settle"):
                return await count
    except (NakaError, TimeoutError) as error:
        log.warning(event, error=str(error) or type(error).__name__, model=model)
    except Exception as error:  # noqa: BLE001 - a failed count must not fail the settlement
        log.error(event, error=type(error).__name__, model=model)  # noqa: TRY400 - a traceback would log the text
    return None


def final_usage(recorder: UsageRecorder) -> ModelUsages | None:
    """The provider's own counts; None for an answer that broke off before them. Pure.

    Before `message_start` there are none, and a refusal without output counts no tokens.
    """
    model, refused = recorder.model or "", recorder.outcome is Outcome.REFUSED
    if recorder.started is None:
        return (ModelUsage(model),)
    if recorder.finished or refused:
        return usage_by_model(recorder.started, recorder.latest, model, refused=refused)
    return None


def broken_usage(recorder: UsageRecorder, written_tokens: int) -> ModelUsages:
    """The counts of an answer that broke off after `written_tokens` of its message. Pure.

    The output in `message_start` is a placeholder and is ignored; that in a `message_delta` is exact. Our own count is
    at most what was granted: the provider cannot have written more.
    """
    parts, beside = begun_usage(recorder)
    return with_written(parts, beside, min(written_tokens, recorder.granted_output_tokens))


def begun_usage(recorder: UsageRecorder) -> tuple[ModelUsages, int]:
    """The usage reported for an answer that has begun, and its own model's output beside the message."""
    model, started = recorder.model or "", without_placeholders(recorder.started or ReportedUsage())
    parts = usage_by_model(started, recorder.latest, model)
    return parts, parts[0].usage.output_tokens - message_output(started, recorder.latest, model)


def with_written(parts: ModelUsages, beside_tokens: int, written_tokens: int) -> ModelUsages:
    """The usage with at least `written_tokens` of message, beside other output of its own model."""
    own = parts[0].usage
    output = max(own.output_tokens, beside_tokens + written_tokens)
    return replace(parts[0], usage=replace(own, output_tokens=output)), *parts[1:]
