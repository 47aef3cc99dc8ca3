"""Document numbers: financial year, form and order."""

import re
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.gst.invoice_numbers import (
    LAST,
    Document,
    DocumentNumber,
    FinancialYear,
    Mode,
    Series,
    SeriesFull,
    WrongNumber,
    financial_year_of,
    next_number,
    parse_number,
    series_of,
)
from core.clock import to_ms

YEAR_ENDS_MS = to_ms(datetime(2027, 3, 31, 18, 30, tzinfo=UTC))  # midnight in India
numbers = st.builds(
    DocumentNumber, st.sampled_from(Series), st.builds(FinancialYear, st.integers(2000, 2098)), st.integers(1, LAST)
)


def test_the_year_turns_at_indian_midnight() -> None:
    """The last millisecond of March and the first of April in India, which UTC both calls March."""
    last = parse_number("INV/2627/0000041")
    assert str(next_number(Series.LIVE_INVOICES, YEAR_ENDS_MS - 1, last)) == "INV/2627/0000042"
    assert str(next_number(Series.LIVE_INVOICES, YEAR_ENDS_MS, last)) == "INV/2728/0000001"
    assert str(next_number(Series.LIVE_INVOICES, YEAR_ENDS_MS, None)) == "INV/2728/0000001"
    assert str(financial_year_of(date(2027, 3, 31))) == "2627"


def test_no_number_before_one_that_is_out() -> None:
    """Refused after a clock that went back over a year's end, and for another series."""
    with pytest.raises(WrongNumber, match="later year"):
        next_number(Series.LIVE_INVOICES, YEAR_ENDS_MS - 1, parse_number("INV/2728/0000001"))
    with pytest.raises(WrongNumber, match="series"):
        next_number(Series.LIVE_INVOICES, YEAR_ENDS_MS, parse_number("CRN/2728/0000001"))


def test_each_document_and_mode_has_its_series() -> None:
    """Six different series."""
    assert {series_of(document, mode) for document in Document for mode in Mode} == set(Series)


def test_the_end_of_a_series() -> None:
    """Refused instead of 17 characters."""
    with pytest.raises(SeriesFull):
        DocumentNumber(Series.LIVE_INVOICES, FinancialYear(2026), LAST).following()


@pytest.mark.parametrize("year", [1999, 2099])
def test_a_year_two_digits_cannot_name(year: int) -> None:
    """Refused: it would repeat another century's numbers."""
    with pytest.raises(WrongNumber):
        FinancialYear(year)


@given(numbers)
def test_a_number_is_read_as_written(number: DocumentNumber) -> None:
    """Within rule 46's form, and parsed back."""
    assert re.fullmatch(r"[A-Z][A-Z0-9/-]{0,15}", str(number))
    assert parse_number(str(number)) == number


@pytest.mark.parametrize(
    "written",
    [
        "INV/2627/0000000",
        "INV/2628/0000001",
        "XXX/2627/0000001",
        "INV/2627/1",
        "INV/2627/0000001\n",
        "INV/9900/0000001",
    ],
)
def test_not_a_number(written: str) -> None:
    """Forms that `str` never gives."""
    with pytest.raises(WrongNumber):
        parse_number(written)
