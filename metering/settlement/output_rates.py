"""Output tokens per second of each model, measured by this process on complete answers. Pure.

Estimates thinking that is generated and never sent, in an answer that broke off: its time is known, its text is not.
Until enough is measured, a model writes `DEFAULT_PER_S` tokens a second.
"""

from dataclasses import dataclass, field

from core.money import ceil_div
from metering.journal.recorder import UsageRecorder

DEFAULT_PER_S = 60
"""About the usual pace of Claude's larger models."""
ENOUGH_TOKENS = 2_000
_RECENT_TOKENS = 1_000_000
"""Past this, both sums of a model are halved, so that recent answers weigh more."""
_MAX_MODELS = 64
_PLAUSIBLE_PER_S = range(5, 1_000)
"""Rates outside are those of a test, a replay or a client that reads slowly, not of a model."""


@dataclass(slots=True)
class OutputRates:
    """The measurements by model: output tokens, and the milliseconds that they took. One per process."""

    _known: dict[str, tuple[int, int]] = field(default_factory=dict)

    def observe(self, model: str, tokens: int, seconds: float) -> None:
        """Adds a complete answer. Ignores one whose rate is not a model's."""
        if seconds <= 0 or int(tokens / seconds) not in _PLAUSIBLE_PER_S:
            return
        if model in self._known or len(self._known) < _MAX_MODELS:
            known_tokens, known_ms = self._known.get(model, (0, 0))
            sums = known_tokens + tokens, known_ms + int(seconds * 1000)
            self._known[model] = (sums[0] // 2, sums[1] // 2) if sums[0] > _RECENT_TOKENS else sums

    def estimate(self, model: str, seconds: float) -> int:
        """The output tokens of `seconds` of generating, rounded up."""
        tokens, milliseconds = self._known.get(model, (0, 0))
        if tokens < ENOUGH_TOKENS:
            tokens, milliseconds = DEFAULT_PER_S, 1000
        return ceil_div(int(seconds * 1000) * tokens, milliseconds)

    def hidden_tokens(self, recorder: UsageRecorder, now_s: float) -> int:
        """The tokens of thinking that the provider generated for this request until `now_s`, and did not send.

        Where the provider estimates them itself, that counts. At most the budget that the request gave.
        """
        hidden = recorder.hidden_thinking
        tokens = hidden.estimated_tokens or self.estimate(recorder.model or "", recorder.hidden_s(now_s))
        return tokens if hidden.budget_tokens is None else min(tokens, hidden.budget_tokens)
