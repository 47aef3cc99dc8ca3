"""The provider's price of a request: whole nano-USD per token, so exact and never rounded. Pure.

Each token class has its own rate (a cache read is not a fixed share of an input). A model may have prompt bands: when
the whole prompt is larger than `over_prompt_tokens`, every class of the request, output too, costs that band's rate.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from core.errors import NakaError
from metering.pricing.tokens import Usage


class UnknownModel(NakaError):
    """The model is not on the price list, so it is refused: an unknown price is not zero."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model!r} is not on the price list")


@dataclass(frozen=True, slots=True)
class Band:
    """Rates in nano-USD per token for prompts of more than `over_prompt_tokens`."""

    over_prompt_tokens: int
    input_rate: int
    output_rate: int
    cache_read_rate: int
    cache_write_5m_rate: int
    cache_write_1h_rate: int

    @property
    def dearest_input_rate(self) -> int:
        """The highest rate that a token of the prompt can cost."""
        return max(self.input_rate, self.cache_read_rate, self.cache_write_5m_rate, self.cache_write_1h_rate)


@dataclass(frozen=True, slots=True)
class Price:
    """An entry of the price list: a model's bands, ascending, from a moment on. The first band starts at 0."""

    id: UUID
    model: str
    effective_from_ms: int
    bands: tuple[Band, ...]

    def band(self, prompt_tokens: int) -> Band:
        """The band of a prompt of this size."""
        chosen = self.bands[0]
        for band in self.bands[1:]:
            if prompt_tokens > band.over_prompt_tokens:
                chosen = band
        return chosen

    def cost_nano_usd(self, usage: Usage) -> int:
        """The provider's charge for `usage`."""
        band = self.band(usage.prompt_tokens)
        return (
            usage.input_tokens * band.input_rate
            + usage.output_tokens * band.output_rate
            + usage.cache_read_tokens * band.cache_read_rate
            + usage.cache_write_5m_tokens * band.cache_write_5m_rate
            + usage.cache_write_1h_tokens * band.cache_write_1h_rate
        )

    def dearest(self, prompt_bound: int) -> tuple[int, int]:
        """The highest rates that can apply to a prompt of at most `prompt_bound` tokens: (prompt, output)."""
        possible = [band for band in self.bands if band.over_prompt_tokens < max(prompt_bound, 1)]
        return max(band.dearest_input_rate for band in possible), max(band.output_rate for band in possible)


class PriceBook:
    """The whole price list, from one read of the table."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._by_id: dict[UUID, Price] = {}
        self._by_model: dict[str, list[Price]] = {}
        for price in sorted(prices, key=lambda entry: entry.effective_from_ms):
            self._by_id[price.id] = price
            self._by_model.setdefault(price.model, []).append(price)

    def at(self, model: str, at_ms: int) -> Price:
        """The entry in force for `model`. Raises UnknownModel."""
        entries = self._by_model.get(model, [])
        index = bisect_right(entries, at_ms, key=lambda entry: entry.effective_from_ms)
        if index == 0:
            raise UnknownModel(model)
        return entries[index - 1]

    def by_id(self, price_id: UUID) -> Price:
        """The entry that a request was granted under; entries are never edited, or withdrawn once in force."""
        return self._by_id[price_id]

    def settle(self, model: str | None, at_ms: int, pinned: Price) -> tuple[Price, bool]:
        """The entry that prices a request granted at `at_ms`, and whether `model` is listed.

        The model that the provider echoes decides, by the list as of the grant. An unlisted model is priced by the
        pinned entry, and flagged.
        """
        if model is None or model == pinned.model:
            return pinned, True
        try:
            return self.at(model, at_ms), True
        except UnknownModel:
            return pinned, False

    @property
    def models(self) -> list[str]:
        """Every model that ever had a price."""
        return sorted(self._by_model)
