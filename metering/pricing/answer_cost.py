"""The provider's price of an answer: of each model that took part, by the price list as of the grant. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from metering.counts import UsageCounts
from metering.pricing.iterations import ModelUsage
from metering.pricing.price import STANDARD, Modifiers, Price, PriceBook
from metering.pricing.tokens import NO_USAGE, Usage


@dataclass(frozen=True, slots=True)
class IterationUsage:
    """The usage of another model than the request's own, as an entry of the kind `iteration`: it is no request."""

    model: str
    usage: Usage = NO_USAGE
    cost_nano_usd: int = 0

    @property
    def counts(self) -> UsageCounts:
        """The counts that it adds to the rollups, the meters and the windows."""
        return UsageCounts(*(0, *self.usage.values, self.cost_nano_usd))


@dataclass(frozen=True, slots=True)
class AnswerCost:
    """The usage and cost of the request's own model, and of each other one.

    `unknown`: what the price list does not know, and is priced as far as it is known: an unlisted model by the price of
    the grant, a modifier as the list price, an iteration of an unknown type by its counts.
    """

    usage: Usage
    cost_nano_usd: int
    others: tuple[IterationUsage, ...]
    unknown: tuple[str, ...]


def price_answer(
    book: PriceBook, pinned: Price, at_ms: int, parts: Sequence[ModelUsage], modifiers: Modifiers = STANDARD
) -> AnswerCost:
    """Prices the usage by model, the request's own first. `pinned`: the price of its grant at `at_ms`.

    The modifiers of the request apply to every model. Another model may be without one (an advisor that has no fast
    mode): it costs its list price then, and only the request's own model tells whether a modifier is known.
    """
    unknown: list[str] = []
    costs: list[int] = []
    for place, part in enumerate(parts):
        price, is_listed = book.settle(part.model or None, at_ms, pinned)
        if not is_listed:
            unknown.append(f"model {part.model}")
        if not part.is_known:
            unknown.append(f"iteration of {part.model}")
        if place == 0:
            unknown += [f"modifier {modifier}" for modifier in price.unknown(modifiers)]
        costs.append(price.cost_nano_usd(part.usage, modifiers))
    own, *others = parts
    priced = (IterationUsage(part.model, part.usage, cost) for part, cost in zip(others, costs[1:], strict=True))
    return AnswerCost(own.usage, costs[0], tuple(priced), tuple(unknown))
