"""Amounts in figures and words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.gst.rupees import in_words, rupees
from core.figures import group_digits, grouped, usd


@pytest.mark.parametrize(
    ("amount_paise", "figures", "words"),
    [
        (0, "₹0.00", "Rupees Zero Only"),
        (5, "₹0.05", "Rupees Zero and Five Paise Only"),
        (99_999, "₹999.99", "Rupees Nine Hundred Ninety Nine and Ninety Nine Paise Only"),
        (100_000, "₹1,000.00", "Rupees One Thousand Only"),
        (10_000_507, "₹1,00,005.07", "Rupees One Lakh Five and Seven Paise Only"),
        (
            1_234_567_811,
            "₹1,23,45,678.11",
            "Rupees One Crore Twenty Three Lakh Forty Five Thousand Six Hundred Seventy Eight and Eleven Paise Only",
        ),
        (-123_400, "-₹1,234.00", "Minus Rupees One Thousand Two Hundred Thirty Four Only"),
        (10**14, "₹10,00,00,00,00,000.00", "Rupees One Lakh Crore Only"),
    ],
)
def test_as_india_writes_them(amount_paise: int, figures: str, words: str) -> None:
    """Lakhs and crores."""
    assert rupees(amount_paise) == figures
    assert in_words(amount_paise) == words


def test_grouping_is_a_setting_for_every_number() -> None:
    """International groups are of three digits, for counts, dollars and rupees alike."""
    assert (grouped(-1_234_567), usd(12 * 10**14 + 340_000_000)) == ("-12,34,567", "$12,00,000.34")
    group_digits("international")
    try:
        assert (grouped(-1_234_567), usd(12 * 10**14 + 340_000_000)) == ("-1,234,567", "$1,200,000.34")
        assert (rupees(12_345_678), grouped(123), grouped(0)) == ("₹123,456.78", "123", "0")
    finally:
        group_digits("indian")


@given(st.integers(-(10**16), 10**16))
def test_groups_of_three_then_two(number: int) -> None:
    """All digits kept, with Indian grouping."""
    groups = grouped(number).lstrip("-").split(",")
    assert int(grouped(number).replace(",", "")) == number
    assert [len(group) for group in groups[1:]] == [2] * (len(groups) - 2) + [3] * (len(groups) > 1)
    assert 1 <= len(groups[0]) <= (3 if len(groups) == 1 else 2)
