"""The price of a period: exact lines, the ceiling, and equal sums for any number and order of closes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.rating.overage import (
    NOTHING_BILLED,
    AlreadyBilled,
    ImpossibleTerms,
    Meter,
    MeterTerms,
    PastAllowance,
    PricingOutcome,
    Reading,
    Terms,
    price_period,
)
from metering.pricing.tokens import Usage

TOKENS = tuple(meter for meter in Meter if meter is not Meter.SPEND)
TEAM = Terms(
    (
        MeterTerms(Meter.INPUT_TOKENS, 1_000_000, 30_000),
        MeterTerms(Meter.OUTPUT_TOKENS, 200_000, 150_000),
        MeterTerms(Meter.CACHE_WRITE_TOKENS, 0, 37_500),
    ),
    PastAllowance.BILL,
    ceiling_paise=500_000,
)
counts = st.integers(0, 10**9)
readings = st.builds(Reading, st.builds(Usage, *[counts] * 7), st.integers(0, 10**13))
meter_terms = {
    meter: st.builds(MeterTerms, st.just(meter), st.integers(0, 10**8), st.integers(0, 10**6)) for meter in Meter
}
some_meters = st.one_of(
    st.tuples(meter_terms[Meter.SPEND]),
    st.tuples(*(meter_terms[meter] for meter in TOKENS)),
    st.tuples(meter_terms[Meter.OUTPUT_TOKENS]),
)
without_wallet = st.sampled_from((PastAllowance.BLOCK, PastAllowance.BILL))
all_terms = st.builds(Terms, some_meters, without_wallet, st.integers(0, 10**9)) | st.builds(
    Terms,
    some_meters.filter(lambda meters: any(meter.rate_paise for meter in meters)),
    st.just(PastAllowance.PREPAID),
    st.integers(0, 10**9),
)


def test_lines_are_exact() -> None:
    """0.5 M input at Rs 300, 1 output at Rs 1500 (0.15 paise), 40 written at Rs 375 (1.5 paise, half up)."""
    bill = price_period(Reading(Usage(1_500_000, 200_001, 7_000_000, 15, 25)), TEAM)
    assert [(line.meter, line.excess, line.unrounded_numerator, line.due_paise) for line in bill.lines] == [
        (Meter.INPUT_TOKENS, 500_000, 15_000_000_000, 15_000),
        (Meter.OUTPUT_TOKENS, 1, 150_000, 0),
        (Meter.CACHE_WRITE_TOKENS, 40, 1_500_000, 2),
    ]
    assert (bill.taxable_paise, bill.cut_due_paise, bill.kind) == (15_002, 0, PricingOutcome.BILL)


def test_searches_are_a_meter_and_thinking_is_in_the_output() -> None:
    """Rs 0.90 per search is a rate of 90,000,000 paise per million; 12 searches, of which 10 are included."""
    terms = replace(TEAM, meters=(*TEAM.meters[1:2], MeterTerms(Meter.WEB_SEARCHES, 10, 90_000_000)))
    bill = price_period(Reading(Usage(output_tokens=200_000, thinking_tokens=150_000, web_searches=12)), terms)
    assert [(line.meter, line.excess, line.due_paise) for line in bill.lines] == [
        (Meter.OUTPUT_TOKENS, 0, 0),
        (Meter.WEB_SEARCHES, 2, 180),
    ]


def test_the_ceiling_cuts_and_the_lines_still_add_up() -> None:
    """Rs 30,000 of input under a ceiling of Rs 5,000."""
    bill = price_period(Reading(Usage(input_tokens=101_000_000)), TEAM)
    assert (bill.lines[0].due_paise, bill.cut_due_paise, bill.taxable_paise) == (3_000_000, -2_500_000, 500_000)
    assert price_period(Reading(Usage(input_tokens=301_000_000)), TEAM, bill.taken).kind is PricingOutcome.NOTHING


@pytest.mark.parametrize(
    ("nano_usd", "micro_usd"), [(1_499, 1), (1_500, 2), (1_999_499, 1_999), (1_999_500, 2_000), (-1_500, -2)]
)
def test_spend_is_converted_once_half_up(nano_usd: int, micro_usd: int) -> None:
    """The period's total is rounded, not each request: two halves of a micro-USD are one."""
    assert Reading(cost_nano_usd=nano_usd).quantity(Meter.SPEND) == micro_usd
    assert Reading(cost_nano_usd=500 + 500).quantity(Meter.SPEND) == 1


def test_a_hundred_rupees_per_dollar_is_one_row() -> None:
    """12.345678 USD without an allowance, at Rs 100 a dollar."""
    terms = Terms((MeterTerms(Meter.SPEND, 0, 10_000),), PastAllowance.BILL, 10**7)
    assert price_period(Reading(cost_nano_usd=12_345_678_000), terms).taxable_paise == 123_457


def test_a_credit_and_a_change_of_terms_give_back() -> None:
    """Amounts that the new reading or terms no longer charge are credited."""
    first = price_period(Reading(Usage(input_tokens=3_000_000)), TEAM)
    credit = price_period(Reading(Usage(input_tokens=2_000_000)), TEAM, first.taken)
    assert (credit.taxable_paise, credit.kind) == (-30_000, PricingOutcome.CREDIT_NOTE)
    spend = Terms((MeterTerms(Meter.SPEND, 0, 0),), PastAllowance.BILL, 10**7)
    changed = price_period(Reading(Usage(input_tokens=3_000_000)), spend, first.taken)
    assert [(line.meter, line.due_paise) for line in changed.lines] == [(Meter.INPUT_TOKENS, -60_000), (Meter.SPEND, 0)]
    free = price_period(Reading(Usage(input_tokens=3_000_000)), replace(TEAM, past_allowance=PastAllowance.BLOCK))
    assert (free.lines[0].excess, free.taxable_paise) == (2_000_000, 0)


@pytest.mark.parametrize(
    ("meters", "past", "ceiling"),
    [
        (TEAM.meters, PastAllowance.BILL, None),
        (TEAM.meters, PastAllowance.BILL, -1),
        ((*TEAM.meters, TEAM.meters[0]), PastAllowance.BLOCK, None),
        ((*TEAM.meters, MeterTerms(Meter.SPEND, 0, 1)), PastAllowance.BLOCK, None),
    ],
)
def test_impossible_terms(meters: tuple[MeterTerms, ...], past: PastAllowance, ceiling: int | None) -> None:
    """Refused when they are published, not when they are billed."""
    with pytest.raises(ImpossibleTerms):
        Terms(meters, past, ceiling)


@pytest.mark.parametrize(("allowance", "rate"), [(-1, 0), (0, -1)])
def test_negative_terms(allowance: int, rate: int) -> None:
    """Refused too."""
    with pytest.raises(ImpossibleTerms):
        MeterTerms(Meter.SPEND, allowance, rate)


@given(all_terms, st.lists(readings, max_size=5), readings, st.booleans())
def test_closes_in_any_number_and_order_end_in_the_same_sums(
    terms: Terms,
    seen_before: list[Reading],
    final: Reading,
    drop_empty: bool,  # noqa: FBT001 - hypothesis passes it
) -> None:
    """After any readings and closes, up or down, all bills together are the price of the last reading."""
    taken, paid_paise = NOTHING_BILLED, 0
    for reading in [*seen_before, final]:
        bill = price_period(reading, terms, taken)
        assert bill.taken.total_paise == bill.taxable_paise
        if bill.kind is PricingOutcome.NOTHING and drop_empty:
            continue
        taken, paid_paise = taken + bill.taken, paid_paise + bill.taxable_paise
    at_once = price_period(final, terms)
    assert taken.total_paise == paid_paise == at_once.taxable_paise
    assert price_period(final, terms, taken).taxable_paise == 0
    if not drop_empty:
        assert taken == AlreadyBilled() + at_once.taken
        assert all(line.due_paise == 0 for line in price_period(final, terms, taken).lines)


@given(all_terms, readings)
def test_against_an_independent_pricing(terms: Terms, reading: Reading) -> None:
    """Each line is within half a paisa of its exact value (a half is rounded up), the total at most the ceiling."""
    bill = price_period(reading, terms)
    total = 0
    for line in bill.lines:
        exact = max(0, line.quantity - line.allowance) * line.rate_paise
        assert -500_000 < line.whole_paise * 1_000_000 - exact <= 500_000
        total += line.whole_paise
    if terms.past_allowance is PastAllowance.BLOCK:
        assert total == 0
    assert terms.ceiling_paise is not None
    assert bill.taxable_paise == min(total, terms.ceiling_paise)
