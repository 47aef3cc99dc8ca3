"""The spread of list prices among a plan's models: what is warned of, and what is not."""

from fractions import Fraction
from math import inf
from uuid import UUID

import pytest

from billing.rating.overage import Meter, MeterTerms, PastAllowance, Reading, Terms, price_period
from billing.rating.price_spread import LEAST_RATIO, PriceSpread, price_spread
from metering.pricing.price import Band, Price, PriceBook
from metering.pricing.tokens import NO_USAGE, Usage

NOW_MS = 1_000


def price(model: str, input_rate: int, output_rate: int, *, from_ms: int = 0) -> Price:
    """A price with one band, and one far dearer for long prompts."""
    first = Band(0, input_rate, output_rate, input_rate, input_rate, input_rate)
    return Price(UUID(int=0), model, from_ms, (first, Band(100_000, *[input_rate * 100] * 5)))


def sells(
    meter: Meter = Meter.OUTPUT_TOKENS, *, past: PastAllowance = PastAllowance.BILL, rate_paise: int = 1
) -> Terms:
    """The terms of a plan with one meter."""
    return Terms((MeterTerms(meter, 1_000, rate_paise),), past, 100 if past is PastAllowance.BILL else None)


HAIKU, SONNET, OPUS = price("haiku-1", 1_000, 5_000), price("sonnet-1", 3_000, 15_000), price("opus-1", 5_000, 30_000)
ALL = (SONNET, OPUS, HAIKU)
WIDEST = PriceSpread("output", "haiku-1", 5_000, "opus-1", 30_000)


def test_the_widest_ratio_over_both_kinds_of_tokens_is_found() -> None:
    assert price_spread(sells(), None, ALL) == WIDEST
    assert WIDEST.ratio == 6
    dear_input = price("prompts-1", 9_000, 5_000)
    assert price_spread(sells(), None, (*ALL, dear_input)) == PriceSpread("input", "haiku-1", 1_000, "prompts-1", 9_000)


@pytest.mark.parametrize(
    ("models", "pair"),
    [
        (("haiku-1", "sonnet-1"), ("haiku-1", "sonnet-1")),
        (("opus-*", "sonnet-1"), ("sonnet-1", "opus-1")),
        (("opus-*", "sonnet-1", "gone-1"), ("sonnet-1", "opus-1")),
        (("opus-1",), None),
        (("opus",), None),
        (("gone-*",), None),
    ],
    ids=lambda value: "+".join(value) if value else "none",
)
def test_only_models_that_the_plan_names_are_compared(models: tuple[str, ...], pair: tuple[str, str] | None) -> None:
    spread = price_spread(sells(), models, ALL)
    assert (None if spread is None else (spread.cheapest, spread.dearest)) == pair


@pytest.mark.parametrize("prices", [(), (OPUS,)], ids=["none", "one"])
def test_without_two_models_there_is_no_spread(prices: tuple[Price, ...]) -> None:
    assert price_spread(sells(), None, prices) is None


@pytest.mark.parametrize(("dearer", "is_warned"), [(2_999, False), (3_000, True)])
def test_the_least_ratio_is_warned_of(dearer: int, *, is_warned: bool) -> None:
    spread = price_spread(sells(), None, (price("a", 2_000, 1), price("b", dearer, 1)))
    assert (spread is not None) is is_warned
    if spread is not None:
        assert spread.ratio == LEAST_RATIO == Fraction(3, 2)


@pytest.mark.parametrize(
    ("terms", "is_warned"),
    [
        (sells(), True),
        (sells(Meter.CACHE_READ_TOKENS), True),
        (sells(past=PastAllowance.PREPAID), True),
        (sells(past=PastAllowance.BLOCK, rate_paise=0), True),
        (sells(rate_paise=0), False),
        (sells(Meter.WEB_SEARCHES), False),
        (sells(Meter.SPEND), False),
        (sells(Meter.SPEND, past=PastAllowance.BLOCK), False),
        (Terms((), PastAllowance.BLOCK), False),
    ],
    ids=[
        "bills",
        "bills cache reads",
        "prepaid",
        "blocks",
        "bills nothing",
        "searches",
        "spend",
        "blocks at spend",
        "no meters",
    ],
)
def test_only_a_plan_that_sells_tokens_is_warned_of(terms: Terms, *, is_warned: bool) -> None:
    assert price_spread(terms, None, ALL) == (WIDEST if is_warned else None)


def test_a_price_counts_while_it_is_in_force() -> None:
    cheaper = price("opus-1", 1_000, 5_000, from_ms=NOW_MS)
    book = PriceBook([HAIKU, OPUS, cheaper, price("next-1", 90_000, 90_000, from_ms=NOW_MS + 1)])
    assert price_spread(sells(), None, book.in_force(NOW_MS - 1)) == WIDEST
    assert price_spread(sells(), None, book.in_force(NOW_MS)) is None
    assert price_spread(sells(), None, book.in_force(NOW_MS + 1)) is not None


def test_a_free_model_is_the_cheapest() -> None:
    free = price("free-1", 0, 0)
    spread = price_spread(sells(), None, (free, HAIKU))
    assert spread == PriceSpread("input", "free-1", 0, "haiku-1", 1_000)
    assert spread.ratio == inf
    assert price_spread(sells(), None, (free, price("free-2", 0, 0))) is None


def test_of_equal_models_the_first_by_name_is_named() -> None:
    twins = (price("haiku-2", 1_000, 5_000), price("opus-2", 5_000, 30_000))
    assert price_spread(sells(), None, (*twins, *ALL)) == WIDEST


def test_a_month_in_credits() -> None:
    """The example of docs/howto/price-a-plan.md: a credit is 1,000 micro-USD."""
    haiku, sonnet, opus = ((rate, 5 * rate) for rate in (1_000, 3_000, 5_000))
    tokens_of_opus = Usage(400_000, 100_000)
    month = (
        (haiku, Usage(8_000_000, 1_000_000), 13_000),
        (sonnet, Usage(1_000_000, 200_000), 6_000),
        (opus, Usage(400_000, 100_000, web_searches=50), 5_000),
    )
    costs = [one_band(*rates).cost_nano_usd(usage) for rates, usage, _ in month]
    assert costs == [credits_used * 1_000_000 for _, _, credits_used in month]
    credit_plan = Terms((MeterTerms(Meter.SPEND, 20_000_000, 12_000),), PastAllowance.BILL, 500_000)
    (line,) = price_period(Reading(NO_USAGE, sum(costs)), credit_plan).lines
    assert (line.quantity, line.excess, line.due_paise) == (24_000_000, 4_000_000, 48_000)
    assert sum(costs) * 88 == 2_112 * 10**9, "rupees paid, at Rs 88 a dollar"
    like_haiku = MeterTerms(Meter.INPUT_TOKENS, 0, 12_000), MeterTerms(Meter.OUTPUT_TOKENS, 0, 60_000)
    sold = price_period(Reading(tokens_of_opus), Terms(like_haiku, PastAllowance.BILL, 500_000))
    assert sold.taxable_paise == 10_800
    assert one_band(*opus).cost_nano_usd(tokens_of_opus) * 88 == 396 * 10**9


def one_band(input_rate: int, output_rate: int) -> Price:
    """A price for prompts of any size."""
    return Price(UUID(int=0), "m", 0, (Band(0, input_rate, output_rate, 0, 0, 0),))
