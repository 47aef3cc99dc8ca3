"""The provider's price of a request, in nano-USD. Exact: rates are whole, and a cost is rounded once, up. Pure.

Each token class has its own rate (a cache read is not a fixed share of an input). A model may have prompt bands: when
the whole prompt is larger than `over_prompt_tokens`, every class of the request, output too, costs that band's rate.
Modifiers (speed, place, tier) multiply the cost of the tokens. Web searches have a rate of their own.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import prod
from uuid import UUID

from core.errors import Invalid, NakaError
from core.money import ceil_div
from metering.pricing.tokens import ReportedUsage, Usage

WEB_SEARCH_RATE = 10_000_000
"""Nano-USD per search, unless a price says otherwise: 10 dollars per 1,000 searches."""
_PER_MILLE = 1000
_MAX_SHOWN_CHARS = 40
_LIST_PRICE = frozenset(
    {
        "speed:standard",
        "inference_geo:global",
        "inference_geo:not_available",
        "service_tier:standard",
        "service_tier:priority",
        "service_tier:auto",  # asked for; the usage names the tier that served
        "service_tier:standard_only",
    }
)
"""The modifiers that cost the list price at every model."""


class UnknownModel(NakaError):
    """The model is not on the price list, so it is refused: an unknown price is not zero."""

    def __init__(self, model: str) -> None:
        super().__init__(f"the model {model!r} is not on the price list")


class UnknownModifier(NakaError):
    """A request asks for a modifier that the model has no factor for, so it is refused: its price is not known."""

    def __init__(self, model: str, modifier: str) -> None:
        name, _, value = modifier.partition(":")
        super().__init__(f"{name}: the model {model!r} has no price for {value[:_MAX_SHOWN_CHARS]!r}")


@dataclass(frozen=True, slots=True)
class Modifiers:
    """The modifiers of a price: as a request asks for them, or as the provider's usage reports them."""

    speed: str = "standard"
    inference_geo: str = "global"
    service_tier: str = "standard"

    @classmethod
    def of(cls, said: ReportedUsage) -> "Modifiers":
        """The modifiers of a usage object; what it does not say costs the list price."""
        if not (said.speed or said.inference_geo or said.service_tier):
            return STANDARD
        values = (said.speed or "standard", said.inference_geo or "global", said.service_tier or "standard")
        return cls(*(value.replace(",", ";") for value in values))  # a comma separates them in the stored text

    @classmethod
    def parse(cls, text: str | None) -> "Modifiers":
        """The modifiers of a stored text."""
        pairs = (modifier.partition(":") for modifier in (text or "").split(",") if modifier)
        return cls(**{name: value for name, _, value in pairs if name in _NAMES})

    @property
    def text(self) -> str | None:
        """The modifiers as they are stored, as `speed:fast,inference_geo:us`; None for the list price."""
        return None if self == STANDARD else ",".join(self) or None

    def __iter__(self) -> Iterator[str]:
        """The modifiers that do not cost the list price, as `speed:fast`."""
        if self == STANDARD:
            return
        for name in _NAMES:
            modifier = f"{name}:{getattr(self, name)}"
            if modifier not in _LIST_PRICE:
                yield modifier


_NAMES = tuple(each.name for each in fields(Modifiers))
STANDARD = Modifiers()
"""The modifiers of the list price."""


def require_modifier(modifier: str) -> None:
    """Raises Invalid if a price cannot have a factor for `modifier`: it is none, or costs the list price anyway."""
    name, _, value = modifier.partition(":")
    if name not in _NAMES or not value:
        raise Invalid(f"a modifier is NAME:VALUE, as speed:fast; NAME is one of {', '.join(_NAMES)}")
    if modifier in _LIST_PRICE:
        raise Invalid(f"{modifier} is the list price: it has no factor")


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
    """An entry of the price list: a model's bands, ascending, from a moment on. The first band starts at 0.

    `factors`: per mille, by modifier (`speed:fast`); those that apply are multiplied. `web_search_rate`: per search.
    """

    id: UUID
    model: str
    effective_from_ms: int
    bands: tuple[Band, ...]
    factors: Mapping[str, int] = field(default_factory=dict, hash=False)
    web_search_rate: int = WEB_SEARCH_RATE

    def band(self, prompt_tokens: int) -> Band:
        """The band of a prompt of this size."""
        chosen = self.bands[0]
        for band in self.bands[1:]:
            if prompt_tokens > band.over_prompt_tokens:
                chosen = band
        return chosen

    def unknown(self, modifiers: Modifiers) -> list[str]:
        """The modifiers that this price has no factor for."""
        return [modifier for modifier in modifiers if modifier not in self.factors]

    def cost_nano_usd(self, usage: Usage, modifiers: Modifiers = STANDARD) -> int:
        """The provider's charge for `usage`. An unknown modifier changes nothing: the caller flags it (`unknown`)."""
        band = self.band(usage.prompt_tokens)
        tokens = (
            usage.input_tokens * band.input_rate
            + usage.output_tokens * band.output_rate
            + usage.cache_read_tokens * band.cache_read_rate
            + usage.cache_write_5m_tokens * band.cache_write_5m_rate
            + usage.cache_write_1h_tokens * band.cache_write_1h_rate
        )
        return self._multiplied(tokens, modifiers) + usage.web_searches * self.web_search_rate

    def dearest(self, prompt_bound: int, modifiers: Modifiers = STANDARD) -> tuple[int, int]:
        """The highest rates that can apply to a prompt of at most `prompt_bound` tokens: (prompt, output).

        Each is rounded up. Raises UnknownModifier.
        """
        for modifier in self.unknown(modifiers):
            raise UnknownModifier(self.model, modifier)
        return self.dearest_known(prompt_bound, modifiers)

    def dearest_known(self, prompt_bound: int, modifiers: Modifiers) -> tuple[int, int]:
        """The rates of `dearest` for a model that the provider chooses; ignores modifiers without a factor."""
        possible = [band for band in self.bands if band.over_prompt_tokens < max(prompt_bound, 1)]
        dearest = max(band.dearest_input_rate for band in possible), max(band.output_rate for band in possible)
        return self._multiplied(dearest[0], modifiers), self._multiplied(dearest[1], modifiers)

    def _multiplied(self, nano_usd: int, modifiers: Modifiers) -> int:
        """The product with every known factor, rounded up once."""
        if modifiers == STANDARD:
            return nano_usd
        factors = [self.factors[modifier] for modifier in modifiers if modifier in self.factors]
        return ceil_div(nano_usd * prod(factors), _PER_MILLE ** len(factors))


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

    def in_force(self, at_ms: int) -> list[Price]:
        """The entries in force, one for each model that has a price."""
        return [
            self.at(model, at_ms) for model, prices in self._by_model.items() if prices[0].effective_from_ms <= at_ms
        ]

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
