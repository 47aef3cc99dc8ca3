"""The allowance is given once per period, however often its terms change. Pure."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from billing.rating.overage import Meter, MeterTerms, PastAllowance, Reading, Terms, price_period
from billing.rating.segments import NOTHING_SPENT, Spent, after, counted_in_window, spend
from billing.rating.terms import early_overage
from metering.pricing.tokens import Usage
from metering.quota.limits import MAX_LIMIT

RUPEE = 100_000_000
OUTPUT = Meter.OUTPUT_TOKENS


def terms(allowance: int, rate: int = RUPEE, ceiling: int | None = 10**9) -> Terms:
    return Terms((MeterTerms(OUTPUT, allowance, rate),), PastAllowance.BILL, ceiling)


def used(tokens: int) -> Reading:
    return Reading(Usage(output_tokens=tokens))


def prices(*segments: tuple[Terms, int]) -> list[int]:
    """The price of each segment, in order."""
    spent, found = NOTHING_SPENT, []
    for own, tokens in segments:
        effective = after(own, spent)
        found.append(price_period(used(tokens), effective).taxable_paise)
        spent = spend(spent, used(tokens), effective)
    return found


def test_what_was_over_is_billed_by_the_plan_that_it_was_used_under() -> None:
    blocking = replace(terms(5_000), past_allowance=PastAllowance.BLOCK)
    assert prices((terms(1_000), 1_200), (blocking, 0)) == [20_000, 0]
    assert prices((terms(1_000), 900), (terms(100, 10 * RUPEE), 1)) == [0, 1_000], "and nothing for what was included"


def test_the_rest_of_an_allowance_goes_on_and_a_larger_plan_adds_to_it() -> None:
    assert prices((terms(1_000), 400), (terms(1_000), 700)) == [0, 10_000]
    assert prices((terms(1_000), 1_400), (terms(3_000), 2_001)) == [40_000, 100]


def test_a_ceiling_is_of_the_whole_period() -> None:
    low = terms(0, ceiling=5_000)
    assert prices((low, 40), (low, 40), (low, 40)) == [4_000, 1_000, 0]
    assert prices((terms(0, ceiling=8_000), 70), (low, 40)) == [7_000, 0]


def test_usage_without_a_plan_takes_nothing_of_the_allowance_and_counts_in_the_window() -> None:
    spent = spend(NOTHING_SPENT, used(300), None)
    assert after(terms(1_000), spent) == terms(1_000)
    assert counted_in_window(terms(1_000), spent) == terms(1_300)
    assert counted_in_window(terms(MAX_LIMIT), spent) == terms(MAX_LIMIT)


def test_a_line_says_what_the_plan_includes() -> None:
    (meter,) = after(terms(1_000), Spent(included={OUTPUT: 400})).meters
    assert (meter.allowance, meter.of_allowance) == (600, 1_000)


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=6), st.integers(0, 5_000))
def test_cuts_without_a_change_of_terms_change_no_sum(parts: list[int], allowance: int) -> None:
    own = terms(allowance, ceiling=200_000)
    assert sum(prices(*((own, part) for part in parts))) == sum(prices((own, sum(parts))))


@given(
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 3), st.integers(0, 3_000)), min_size=1, max_size=6),
    st.integers(0, 6),
)
def test_what_was_included_is_never_billed_and_nobody_gains_by_switching(
    drawn: list[tuple[int, int, int]], steps_back: int
) -> None:
    segments = [(terms(allowance, rate * RUPEE), tokens) for allowance, rate, tokens in drawn]
    segments += [(own, tokens) for own, tokens in reversed(segments[:steps_back])]
    total, most = sum(tokens for _, tokens in segments), max(own.meters[0].allowance for own, _ in segments)
    cheapest = min(own.meters[0].rate_paise for own, _ in segments)
    dearest = max(own.meters[0].rate_paise for own, _ in segments)
    paid = sum(prices(*segments))
    assert paid * 1_000_000 >= max(0, total - most) * cheapest
    assert paid * 1_000_000 <= max(0, total - min(own.meters[0].allowance for own, _ in segments)) * dearest


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 3_000)), min_size=1, max_size=5))
def test_a_bound_in_the_window_is_the_rest_of_the_segment(drawn: list[tuple[int, int]]) -> None:
    spent = NOTHING_SPENT
    for allowance, tokens in drawn:
        effective = after(terms(allowance), spent)
        (bound,) = counted_in_window(effective, spent).meters
        assert bound.allowance - spent.units.get(OUTPUT, 0) == effective.meters[0].allowance
        spent = spend(spent, used(tokens), effective)


def test_early_overage_has_the_allowances_that_were_paid_for() -> None:
    paid = replace(terms(1_000, 1), past_allowance=PastAllowance.BLOCK, ceiling_paise=None)
    coming = terms(9_000, RUPEE, 500)
    assert early_overage(paid, coming) == terms(1_000, RUPEE, 500)
    assert early_overage(coming, paid) is None
    assert early_overage(paid, Terms((MeterTerms(Meter.INPUT_TOKENS, 1, 1),), PastAllowance.BILL, 500)) is None
