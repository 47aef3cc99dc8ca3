"""Ids contain their millisecond; money is integers with one rounding; the clock keeps milliseconds."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import now_ms, to_datetime, to_ms
from core.ids import random_tail, uuid7, uuid7_floor, uuid7_ms
from core.money import MAX_EXACT_DOUBLE, ceil_div, divide_half_up

moments = st.integers(0, 2**43)
amounts = st.integers(-(10**30), 10**30)


@given(moments)
def test_an_id_carries_its_millisecond(at_ms: int) -> None:
    made = uuid7(at_ms)
    assert uuid7_ms(made) == at_ms
    assert made.version == 7
    assert made.variant == RFC_4122


@given(moments, moments)
def test_ids_order_as_their_moments_do(one: int, other: int) -> None:
    earlier, later = sorted((one, other))
    if earlier != later:
        assert uuid7(earlier) < uuid7(later)
        assert uuid7(earlier).hex < uuid7(later).hex
    assert uuid7_floor(later) <= uuid7(later) < uuid7_floor(later + 1)
    assert uuid7_ms(uuid7_floor(later)) == later
    assert uuid7_floor(later).int & (2**80 - 1) == 0


@given(moments)
def test_a_tail_completes_an_id_that_was_minted_elsewhere(at_ms: int) -> None:
    minted = UUID(f"{at_ms:012x}" + random_tail())
    assert uuid7_ms(minted) == at_ms
    assert (minted.version, minted.variant) == (7, RFC_4122)


def test_ids_of_one_millisecond_differ_in_every_random_bit() -> None:
    ids = [uuid7(1) for _ in range(2_000)]
    assert len(set(ids)) == 2_000
    ever = never = ids[0].int
    for made in ids:
        ever |= made.int
        never &= made.int
    assert (ever & ~never).bit_count() == 74


def test_without_a_moment_it_is_now() -> None:
    before = now_ms()
    assert before <= uuid7_ms(uuid7()) <= now_ms()


@given(amounts, st.integers(1, 10**15))
def test_one_rounding_half_away_from_zero(numerator: int, denominator: int) -> None:
    rounded = divide_half_up(numerator, denominator)
    distance = abs(Fraction(rounded) - Fraction(numerator, denominator))
    assert distance <= Fraction(1, 2)
    if distance == Fraction(1, 2):
        assert abs(rounded) > abs(Fraction(numerator, denominator))
    assert divide_half_up(-numerator, denominator) == -rounded


def test_halves() -> None:
    assert [divide_half_up(n, 2) for n in (-3, -1, 0, 1, 3, 5)] == [-2, -1, 0, 1, 2, 3]
    assert [divide_half_up(n, 10) for n in (4, 5, 14, 15, 25)] == [0, 1, 1, 2, 3]
    assert divide_half_up(10**40 + 5, 10) == 10**39 + 1


@pytest.mark.parametrize("denominator", [0, -1])
def test_a_denominator_is_positive(denominator: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        divide_half_up(1, denominator)


@given(st.integers(0, 10**30), st.integers(1, 10**15))
def test_rounding_up(numerator: int, denominator: int) -> None:
    up = ceil_div(numerator, denominator)
    assert (up - 1) * denominator < numerator <= up * denominator


def test_the_largest_exact_double() -> None:
    assert int(float(MAX_EXACT_DOUBLE)) == MAX_EXACT_DOUBLE
    assert float(MAX_EXACT_DOUBLE + 1) == float(MAX_EXACT_DOUBLE + 2)


@given(moments)
def test_a_moment_survives_the_way_to_a_datetime_and_back(at_ms: int) -> None:
    assert to_ms(to_datetime(at_ms)) == at_ms
    assert to_datetime(at_ms) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
