"""Characters per output token of each model, measured on complete answers. Pure.

Estimates the output of an answer that broke off when its text could not be counted. Each process adds its measurements
to a shared table and loads the sums. Until enough is measured, a token is four characters.
"""

from collections.abc import Iterable

from core.money import ceil_div
from metering.pricing.tokens import estimate_output

ENOUGH_TOKENS = 500
_MAX_MODELS = 64
_MAX_TOKENS_PER_CHAR = 4  # a token is at least a byte, a character at most four bytes
_MAX_CHARS_PER_TOKEN = 32  # more than in the text of any tokenizer

Measured = tuple[str, int, int]
"""A model, its characters, and their output tokens."""


class CharsPerToken:
    """The measurements by model. One per process."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}
        self._new: dict[str, tuple[int, int]] = {}

    def observe(self, model: str, chars: int, tokens: int) -> None:
        """Adds an answer with final usage. Ignores one whose tokens cannot be those of its text (hidden thinking)."""
        if not 0 < tokens <= chars * _MAX_TOKENS_PER_CHAR or chars > tokens * _MAX_CHARS_PER_TOKEN:
            return
        _add(self._known, model, chars, tokens)
        _add(self._new, model, chars, tokens)

    def estimate(self, model: str, chars: int) -> int:
        """The output tokens of `chars` characters of relayed text, rounded up."""
        known_chars, known_tokens = self._known.get(model, (0, 0))
        if known_tokens < ENOUGH_TOKENS:
            return estimate_output(chars)
        return ceil_div(chars * known_tokens, known_chars)

    def take(self) -> list[Measured]:
        """Returns and clears what was observed since the last `take`, to be added to the table."""
        observed = [(model, *measured) for model, measured in self._new.items()]
        self._new.clear()
        return observed

    def put_back(self, observed: Iterable[Measured]) -> None:
        """Returns what could not be added to the table to the next `take`."""
        for measured in observed:
            _add(self._new, *measured)

    def loaded(self, rows: Iterable[Measured]) -> None:
        """Replaces the measurements by the table's, plus what was observed and is not in it yet."""
        self._known.clear()
        for measured in [*rows, *((model, *new) for model, new in self._new.items())]:
            _add(self._known, *measured)


def _add(measured: dict[str, tuple[int, int]], model: str, chars: int, tokens: int) -> None:
    if model in measured or len(measured) < _MAX_MODELS:
        before = measured.get(model, (0, 0))
        measured[model] = (before[0] + chars, before[1] + tokens)
