"""Modifiers of a price: their factors multiply what tokens cost, exactly; searches cost their own rate."""

from dataclasses import replace
from fractions import Fraction
from math import ceil
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Invalid
from metering.pricing.price import STANDARD, Band, Modifiers, Price, UnknownModifier, require_modifier
from metering.pricing.tokens import ReportedUsage, Usage

FACTORS = {"speed:fast": 2000, "inference_geo:us": 1100, "service_tier:batch": 500}
OPUS = Price(uuid4(), "claude-opus-5-5", 0, (Band(0, 4_000, 20_000, 200, 5_000, 8_000),), FACTORS)
USAGE = Usage(1_000, 100, 10, 10, 10, 60, 3)
TOKENS = 4_000_000 + 2_000_000 + 2_000 + 50_000 + 80_000
SEARCHES = 30_000_000

counts = st.integers(0, 10**12)
rates = st.integers(0, 10**6)
modifiers = st.builds(
    Modifiers,
    st.sampled_from(["standard", "fast"]),
    st.sampled_from(["global", "not_available", "us"]),
    st.sampled_from(["standard", "priority", "batch"]),
)


@pytest.mark.parametrize(
    ("asked", "cost"),
    [
        (Modifiers(), TOKENS),
        (Modifiers("standard", "not_available", "priority"), TOKENS),
        (Modifiers("standard", "global", "auto"), TOKENS),
        (Modifiers("standard", "global", "standard_only"), TOKENS),
        (Modifiers(speed="fast"), TOKENS * 2),
        (Modifiers(inference_geo="us"), TOKENS * 11 // 10),
        (Modifiers(service_tier="batch"), TOKENS // 2),
        (Modifiers("fast", "us"), TOKENS * 22 // 10),
        (Modifiers("fast", "us", "batch"), TOKENS * 11 // 10),
    ],
)
def test_factors_multiply_tokens_and_not_searches(asked: Modifiers, cost: int) -> None:
    assert OPUS.cost_nano_usd(USAGE, asked) == cost + SEARCHES
    assert OPUS.unknown(asked) == []


def test_thinking_is_part_of_the_output() -> None:
    assert OPUS.cost_nano_usd(Usage(output_tokens=7, thinking_tokens=7)) == 7 * 20_000


def test_a_search_costs_its_prices_rate() -> None:
    cheaper = Price(uuid4(), "m", 0, OPUS.bands, {}, 5)
    assert cheaper.cost_nano_usd(Usage(web_searches=3)) == 15
    assert Price(uuid4(), "m", 0, OPUS.bands).cost_nano_usd(Usage(web_searches=1_000)) == 10 * 10**9  # 10 dollars


def test_an_unknown_modifier_is_refused_before_and_flagged_after() -> None:
    sonnet = Price(uuid4(), "claude-sonnet-5-5", 0, OPUS.bands, {"inference_geo:us": 1100})
    fast = Modifiers("fast", "us", "express")
    with pytest.raises(UnknownModifier, match=r"^speed: the model 'claude-sonnet-5-5' has no price for 'fast'$"):
        sonnet.dearest(10, fast)
    assert sonnet.unknown(fast) == ["speed:fast", "service_tier:express"]
    assert sonnet.cost_nano_usd(USAGE, fast) == TOKENS * 11 // 10 + SEARCHES


def test_a_refusal_repeats_a_bounded_part_of_the_value() -> None:
    with pytest.raises(UnknownModifier) as refused:
        OPUS.dearest(10, Modifiers(inference_geo="x" * 10_000))
    assert len(str(refused.value)) < 150


def test_what_a_report_does_not_say_is_the_list_price() -> None:
    assert Modifiers.of(ReportedUsage()) == STANDARD == Modifiers()
    said = ReportedUsage(speed="fast", inference_geo="us", service_tier="batch")
    assert Modifiers.of(said) == Modifiers("fast", "us", "batch")
    assert Modifiers.of(ReportedUsage(speed="", inference_geo="eu")) == Modifiers(inference_geo="eu")


def test_an_odd_name_can_be_stored_and_read_again() -> None:
    odd = Modifiers.of(ReportedUsage(inference_geo="us,eu", service_tier="a:b"))
    assert Modifiers.parse(odd.text) == odd == Modifiers(inference_geo="us;eu", service_tier="a:b")
    assert Modifiers.parse("speed:fast,of_a_later_version:x") == Modifiers(speed="fast")


@given(st.lists(rates, min_size=5, max_size=5), st.lists(counts, min_size=6, max_size=6), modifiers)
def test_a_cost_is_the_exact_product_rounded_up_once(band: list[int], numbers: list[int], asked: Modifiers) -> None:
    price = Price(uuid4(), "m", 0, (Band(0, *band),), FACTORS, 7)
    *tokens, searches = numbers
    product = Fraction(sum(rate * count for rate, count in zip(band, tokens, strict=True)))
    for modifier in asked:
        product *= Fraction(FACTORS[modifier], 1000)
    cost = price.cost_nano_usd(replace(Usage(*tokens), web_searches=searches), asked)
    assert type(cost) is int
    assert cost == ceil(product) + 7 * searches


@given(st.lists(rates, min_size=5, max_size=5), st.lists(st.integers(0, 500), min_size=5, max_size=5), modifiers)
def test_the_dearest_rates_bound_every_cost(band: list[int], tokens: list[int], asked: Modifiers) -> None:
    price = Price(uuid4(), "m", 0, (Band(0, *band),), FACTORS)
    usage = Usage(*tokens)
    prompt_rate, output_rate = price.dearest(usage.prompt_tokens, asked)
    bound = usage.prompt_tokens * prompt_rate + usage.output_tokens * output_rate
    assert price.cost_nano_usd(usage, asked) <= bound


@pytest.mark.parametrize("modifier", ["speed:fast", "inference_geo:us", "service_tier:batch"])
def test_a_price_may_have_a_factor_for_a_modifier(modifier: str) -> None:
    require_modifier(modifier)


@pytest.mark.parametrize(
    "modifier", ["", "fast", "speed", "speed:", "colour:red", "speed:standard", "service_tier:auto"]
)
def test_nothing_else_has_a_factor(modifier: str) -> None:
    with pytest.raises(Invalid):
        require_modifier(modifier)


@given(modifiers)
def test_modifiers_are_stored_as_a_text(asked: Modifiers) -> None:
    stored = Modifiers.parse(asked.text)
    assert list(stored) == list(asked)
    assert (asked.text is None) == (list(asked) == [])
    assert OPUS.cost_nano_usd(USAGE, stored) == OPUS.cost_nano_usd(USAGE, asked)


def test_the_stored_text_of_modifiers() -> None:
    assert Modifiers("fast", "us", "priority").text == "speed:fast,inference_geo:us"
    assert Modifiers.parse("speed:fast,inference_geo:us") == Modifiers("fast", "us")
    assert Modifiers.parse(None) == STANDARD
