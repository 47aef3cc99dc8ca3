"""The spread of list prices among the models of a plan that sells tokens. Pure.

A token meter counts the tokens of every model alike, at one rate or out of one allowance. If the plan's models differ
in price, the dearest is sold at the rate of the cheapest (docs/decisions/0021). `spend` weighs each model by its price.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf

from billing.rating.overage import Meter, Terms
from metering.pricing.price import Price
from metering.quota.limits import names_model

LEAST_RATIO = Fraction(3, 2)
"""The smallest spread to warn of: a rate that leaves a third on the cheapest model only covers the cost of one that is
1.5 times as dear."""
_TOKENS = frozenset({Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS, Meter.CACHE_READ_TOKENS, Meter.CACHE_WRITE_TOKENS})


@dataclass(frozen=True, slots=True)
class PriceSpread:
    """The cheapest and the dearest model of a plan, by the rate of one kind of token: `input` or `output`.

    Rates are nano-USD per token.
    """

    kind: str
    cheapest: str
    cheapest_rate: int
    dearest: str
    dearest_rate: int

    @property
    def ratio(self) -> Fraction | float:
        """The dearest rate over the cheapest; infinite if only the cheapest model is free."""
        if self.cheapest_rate == 0:
            return inf if self.dearest_rate else 1
        return Fraction(self.dearest_rate, self.cheapest_rate)


def price_spread(terms: Terms, models: Sequence[str] | None, prices: Iterable[Price]) -> PriceSpread | None:
    """The widest spread among the models of a plan that sells tokens; None if it is below LEAST_RATIO.

    `models`: the names and prefixes that the plan allows; None: all. `prices`: those in force, one for each model.
    Rates are compared in the first band, without modifiers.
    """
    if not _sells_tokens(terms):
        return None
    bands = {price.model: price.bands[0] for price in prices if names_model(models, price.model)}
    if not bands:
        return None
    spreads = (
        _spread("input", {model: band.input_rate for model, band in bands.items()}),
        _spread("output", {model: band.output_rate for model, band in bands.items()}),
    )
    widest = max(spreads, key=lambda spread: spread.ratio)
    return widest if widest.ratio >= LEAST_RATIO else None


def _sells_tokens(terms: Terms) -> bool:
    """Whether a token meter has a rate or, of a plan that blocks, an allowance, which buys more of a dear model."""
    is_priced = terms.past_allowance.is_priced
    return any(own.meter in _TOKENS and (own.rate_paise > 0 or not is_priced) for own in terms.meters)


def _spread(kind: str, rates: dict[str, int]) -> PriceSpread:
    """The spread of these rates by model; of models with equal rates it names the first by name."""
    names = sorted(rates)
    cheapest, dearest = min(names, key=rates.__getitem__), max(names, key=rates.__getitem__)
    return PriceSpread(kind, cheapest, rates[cheapest], dearest, rates[dearest])
