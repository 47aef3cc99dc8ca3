"""The cost of a request: bands, classes and dates; and the price list of the migrations."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import to_ms
from core.postgres.database import Database
from metering.pricing.price import Band, Price, PriceBook, UnknownModel
from metering.pricing.price_list import read_prices
from metering.pricing.tokens import NO_USAGE, Usage

CHEAPER_READS_MS = to_ms(datetime(2026, 10, 7, tzinfo=UTC))
NOW_MS = to_ms(datetime(2026, 11, 22, tzinfo=UTC))
counts = st.integers(0, 2**40)
rates = st.integers(0, 10**6)


@pytest.fixture
async def book(metering_database: str) -> PriceBook:
    """The price list of the migrations."""
    database = Database(metering_database)
    try:
        async with database.session() as session:
            return PriceBook(await read_prices(session))
    finally:
        await database.close()


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """A price with one to four bands."""
    starts = [0, *sorted(draw(st.sets(st.integers(1, 300), max_size=3)))]
    return Price(uuid4(), "m", 0, tuple(Band(start, *(draw(rates) for _ in range(5))) for start in starts))


async def test_each_class_has_its_rate(book: PriceBook) -> None:
    price = book.at("claude-sonnet-4-6", NOW_MS)
    assert price.cost_nano_usd(Usage(input_tokens=7)) == 21_000
    assert price.cost_nano_usd(Usage(output_tokens=7)) == 105_000
    assert price.cost_nano_usd(Usage(cache_read_tokens=7)) == 2_100
    assert price.cost_nano_usd(Usage(cache_write_5m_tokens=7)) == 26_250
    assert price.cost_nano_usd(Usage(cache_write_1h_tokens=7)) == 42_000
    assert price.cost_nano_usd(Usage(1, 2, 3, 4, 5)) == 3_000 + 30_000 + 900 + 15_000 + 30_000


async def test_the_whole_prompt_decides_the_band_of_every_class(book: PriceBook) -> None:
    price = book.at("claude-haiku-5-5", NOW_MS)
    assert price.cost_nano_usd(Usage(60_000, 1_000, 30_000, 6_000, 4_000)) == 8_350_000  # 100,000: still the first
    assert price.cost_nano_usd(Usage(60_000, 1_000, 30_001, 6_000, 4_000)) == 41_750_050
    assert price.cost_nano_usd(Usage(100_000, 1_000_000)) == 10_000_000 + 500_000_000
    assert price.cost_nano_usd(Usage(100_001, 1_000_000)) == 50_000_500 + 2_500_000_000
    assert price.cost_nano_usd(Usage(0, 1, 0, 0, 100_001)) == 100_001_000 + 2_500


async def test_output_does_not_count_for_the_band(book: PriceBook) -> None:
    assert book.at("claude-haiku-5-5", NOW_MS).cost_nano_usd(Usage(1, 200_000)) == 100 + 100_000_000


async def test_a_price_holds_from_its_moment_on(book: PriceBook) -> None:
    reads = Usage(cache_read_tokens=1_000_000)
    before = book.at("claude-sonnet-5-5", CHEAPER_READS_MS - 1)
    after = book.at("claude-sonnet-5-5", CHEAPER_READS_MS)
    assert before.cost_nano_usd(reads) == 200_000_000  # 0.20 USD
    assert after.cost_nano_usd(reads) == 100_000_000
    assert before.id != after.id
    assert before.cost_nano_usd(Usage(1, 1, 0, 1, 1)) == after.cost_nano_usd(Usage(1, 1, 0, 1, 1)) == 18_500


async def test_an_unlisted_model_has_no_price(book: PriceBook) -> None:
    with pytest.raises(UnknownModel):
        book.at("claude-nobody-1", NOW_MS)
    with pytest.raises(UnknownModel):
        book.at("claude-sonnet-5-5", to_ms(datetime(2024, 1, 1, tzinfo=UTC)) - 1)
    assert book.at("claude-sonnet-5-5", to_ms(datetime(2024, 1, 1, tzinfo=UTC))).model == "claude-sonnet-5-5"


async def test_the_model_echoed_decides_and_an_unlisted_one_is_flagged(book: PriceBook) -> None:
    pinned = book.at("claude-sonnet-4-6", NOW_MS)
    haiku = book.at("claude-haiku-5-5", NOW_MS)
    assert book.settle(None, NOW_MS, pinned) == (pinned, True)
    assert book.settle("claude-sonnet-4-6", NOW_MS, pinned) == (pinned, True)
    assert book.settle("claude-haiku-5-5", NOW_MS, pinned) == (haiku, True)
    assert book.settle("claude-nobody-1", NOW_MS, pinned) == (pinned, False)


async def test_a_pinned_price_outlives_a_newer_one(book: PriceBook) -> None:
    pinned = book.at("claude-sonnet-5-5", CHEAPER_READS_MS - 1)
    assert book.settle("claude-sonnet-5-5", CHEAPER_READS_MS + 1, pinned) == (pinned, True)


async def test_every_listed_price_is_whole(book: PriceBook) -> None:
    prices = book.in_force(NOW_MS)
    assert len(prices) == 21
    for price in prices:
        model, bands = price.model, price.bands
        starts = [band.over_prompt_tokens for band in bands]
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert all(0 < band.cache_read_rate < band.input_rate < band.output_rate for band in bands), model
        assert all(band.dearest_input_rate == band.cache_write_1h_rate == 2 * band.input_rate for band in bands), model


def test_the_dearest_rates_know_which_bands_can_apply() -> None:
    price = Price(uuid4(), "m", 0, (Band(0, 9, 90, 1, 2, 3), Band(100, 5, 50, 1, 2, 7)))
    assert price.dearest(0) == price.dearest(1) == price.dearest(100) == (9, 90)
    assert price.dearest(101) == (9, 90)  # the cheaper upper band does not make a small prompt cheaper
    dearer = Price(uuid4(), "m", 0, (Band(0, 5, 50, 1, 2, 7), Band(100, 9, 90, 1, 2, 3)))
    assert (dearer.dearest(100), dearer.dearest(101)) == ((7, 50), (9, 90))


@given(prices(), st.lists(st.integers(0, 120), min_size=4, max_size=4), st.integers(0, 500), st.integers(0, 100))
def test_dearest_bounds_every_real_cost(price: Price, prompt: list[int], output: int, slack: int) -> None:
    fresh, read, five_minutes, one_hour = prompt
    usage = Usage(fresh, output, read, five_minutes, one_hour)
    bound = usage.prompt_tokens + slack
    prompt_rate, output_rate = price.dearest(bound)
    assert price.cost_nano_usd(usage) <= bound * prompt_rate + output * output_rate


@given(prices(), st.integers(0, 400))
def test_dearest_is_reached(price: Price, bound: int) -> None:
    prompt_rate, output_rate = price.dearest(bound)
    possible = [price.band(size) for size in range(bound + 1)]
    assert output_rate == max(band.output_rate for band in possible)
    assert prompt_rate == max(
        rate
        for band in possible
        for rate in (band.input_rate, band.cache_read_rate, band.cache_write_5m_rate, band.cache_write_1h_rate)
    )


@given(prices(), st.builds(Usage, counts, counts, counts, counts, counts))
def test_a_cost_is_a_whole_number_however_large(price: Price, usage: Usage) -> None:
    cost = price.cost_nano_usd(usage)
    band = [band for band in price.bands if band.over_prompt_tokens < max(usage.prompt_tokens, 1)][-1]
    parts = [
        band.input_rate * usage.input_tokens,
        band.output_rate * usage.output_tokens,
        band.cache_read_rate * usage.cache_read_tokens,
        band.cache_write_5m_rate * usage.cache_write_5m_tokens,
        band.cache_write_1h_rate * usage.cache_write_1h_tokens,
    ]
    assert type(cost) is int
    assert cost == sum(parts)


@given(st.lists(st.integers(0, 50), min_size=1, unique=True), st.integers(-5, 60))
def test_the_newest_entry_in_force_is_chosen(moments: list[int], at_ms: int) -> None:
    band = (Band(0, 1, 1, 1, 1, 1),)
    book = PriceBook(Price(uuid4(), "m", moment, band) for moment in moments)
    in_force = [moment for moment in moments if moment <= at_ms]
    if in_force:
        assert book.at("m", at_ms).effective_from_ms == max(in_force)
    else:
        with pytest.raises(UnknownModel):
            book.at("m", at_ms)


def test_no_usage_costs_nothing() -> None:
    assert Price(uuid4(), "m", 0, (Band(0, 9, 9, 9, 9, 9),)).cost_nano_usd(NO_USAGE) == 0
