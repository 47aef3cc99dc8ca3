"""How many characters a model's output token makes, measured on answers that ended well. Pure.

It estimates the output of an answer that broke off where nobody could count its text. Each process adds what it
measured to the table that all share (`sql/densities.sql`) and takes over the sum; without Postgres it goes on with
what it knows. Until enough was measured, a token is four characters.
"""

from collections.abc import Iterable

from core.money import ceil_div
from metering.pricing.tokens import estimate_output

ENOUGH_TOKENS = 500
_MAX_MODELS = 64
_MAX_TOKENS_PER_CHAR = 4  # a token is at least a byte, a character at most four
_MAX_CHARS_PER_TOKEN = 32  # beyond any tokenizer's prose

Measured = tuple[str, int, int]
"""A model, characters, and the output tokens that they were."""


class CharsPerToken:
    """What is known of each model. One per process."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}
        self._new: dict[str, tuple[int, int]] = {}

    def observe(self, model: str, chars: int, tokens: int) -> None:
        """An answer with final usage. One whose tokens cannot be its text's (hidden thinking) tells nothing."""
        if not 0 < tokens <= chars * _MAX_TOKENS_PER_CHAR or chars > tokens * _MAX_CHARS_PER_TOKEN:
            return
        _add(self._known, model, chars, tokens)
        _add(self._new, model, chars, tokens)

    def estimate(self, model: str, chars: int) -> int:
        """Output tokens of `chars` characters of relayed text, rounded up."""
        known_chars, known_tokens = self._known.get(model, (0, 0))
        if known_tokens < ENOUGH_TOKENS:
            return estimate_output(chars)
        return ceil_div(chars * known_tokens, known_chars)

    def take(self) -> list[Measured]:
        """What was observed since the last `take`, to be added to the table."""
        taken = [(model, *measured) for model, measured in self._new.items()]
        self._new.clear()
        return taken

    def put_back(self, taken: Iterable[Measured]) -> None:
        """It did not get into the table; the next `take` has it again."""
        for measured in taken:
            _add(self._new, *measured)

    def loaded(self, rows: Iterable[Measured]) -> None:
        """Takes over the table; what was observed and is not in it yet comes on top."""
        self._known.clear()
        for measured in [*rows, *((model, *new) for model, new in self._new.items())]:
            _add(self._known, *measured)


def _add(measured: dict[str, tuple[int, int]], model: str, chars: int, tokens: int) -> None:
    if model in measured or len(measured) < _MAX_MODELS:
        before = measured.get(model, (0, 0))
        measured[model] = (before[0] + chars, before[1] + tokens)
