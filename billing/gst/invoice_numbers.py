"""Numbers of invoices, credit notes and vouchers, consecutive within a series and a financial year. Pure.

Rule 46 of the CGST Rules: consecutive, unique within a financial year, at most 16 characters. `INV/2627/0000042` is the
42nd live tax invoice of April 2026 to March 2027, in Indian time whatever the operator's time zone.
"""

import re
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from zoneinfo import ZoneInfo

from core.clock import to_datetime
from core.settings import SANDBOX_RAZORPAY_KEY_ID

INDIAN_TIME = ZoneInfo("Asia/Kolkata")
APRIL = 4
LAST = 9_999_999
FIRST_YEAR, LAST_YEAR = 2000, 2098

_FORM = re.compile(r"([A-Z]{3})/([0-9]{2})([0-9]{2})/([0-9]{7})")


class WrongNumber(ValueError):
    """Not a number of ours."""


class SeriesFull(ValueError):
    """The series has no further number this financial year."""


class Document(StrEnum):
    """The kind of a numbered document."""

    TAX_INVOICE = "tax_invoice"
    CREDIT_NOTE = "credit_note"
    RECEIPT_VOUCHER = "receipt_voucher"
    REFUND_VOUCHER = "refund_voucher"


class Mode(StrEnum):
    """Razorpay live, Razorpay test, or our simulator. They never share a series."""

    LIVE = "live"
    TEST = "test"
    SANDBOX = "sandbox"


def mode_of(key_id: str) -> Mode:
    """The mode of a key. No key counts as the sandbox."""
    if key_id in {"", SANDBOX_RAZORPAY_KEY_ID}:
        return Mode.SANDBOX
    return Mode.LIVE if key_id.startswith("rzp_live_") else Mode.TEST


class Series(StrEnum):
    """The prefix of each series. Each starts at 1 every financial year."""

    LIVE_INVOICES = "INV"
    LIVE_CREDIT_NOTES = "CRN"
    LIVE_RECEIPT_VOUCHERS = "RCV"
    LIVE_REFUND_VOUCHERS = "RFV"
    TEST_INVOICES = "TIN"
    TEST_CREDIT_NOTES = "TCN"
    TEST_RECEIPT_VOUCHERS = "TRC"
    TEST_REFUND_VOUCHERS = "TRF"
    SANDBOX_INVOICES = "SIN"
    SANDBOX_CREDIT_NOTES = "SCN"
    SANDBOX_RECEIPT_VOUCHERS = "SRC"
    SANDBOX_REFUND_VOUCHERS = "SRF"


_SERIES = {
    (Document.TAX_INVOICE, Mode.LIVE): Series.LIVE_INVOICES,
    (Document.CREDIT_NOTE, Mode.LIVE): Series.LIVE_CREDIT_NOTES,
    (Document.RECEIPT_VOUCHER, Mode.LIVE): Series.LIVE_RECEIPT_VOUCHERS,
    (Document.REFUND_VOUCHER, Mode.LIVE): Series.LIVE_REFUND_VOUCHERS,
    (Document.TAX_INVOICE, Mode.TEST): Series.TEST_INVOICES,
    (Document.CREDIT_NOTE, Mode.TEST): Series.TEST_CREDIT_NOTES,
    (Document.RECEIPT_VOUCHER, Mode.TEST): Series.TEST_RECEIPT_VOUCHERS,
    (Document.REFUND_VOUCHER, Mode.TEST): Series.TEST_REFUND_VOUCHERS,
    (Document.TAX_INVOICE, Mode.SANDBOX): Series.SANDBOX_INVOICES,
    (Document.CREDIT_NOTE, Mode.SANDBOX): Series.SANDBOX_CREDIT_NOTES,
    (Document.RECEIPT_VOUCHER, Mode.SANDBOX): Series.SANDBOX_RECEIPT_VOUCHERS,
    (Document.REFUND_VOUCHER, Mode.SANDBOX): Series.SANDBOX_REFUND_VOUCHERS,
}


@dataclass(frozen=True, slots=True)
class FinancialYear:
    """April of `starts` to March of the next year."""

    starts: int

    def __post_init__(self) -> None:
        if not FIRST_YEAR <= self.starts <= LAST_YEAR:
            raise WrongNumber("two digits can only name years of this century")

    def __str__(self) -> str:
        return f"{self.starts % 100:02d}{(self.starts + 1) % 100:02d}"


@dataclass(frozen=True, slots=True)
class DocumentNumber:
    """A number within a series and a financial year; `str` gives its printed form."""

    series: Series
    year: FinancialYear
    running: int

    def __post_init__(self) -> None:
        if not 1 <= self.running <= LAST:
            raise SeriesFull(f"{self.series} of {self.year} runs from 1 to {LAST}")

    def __str__(self) -> str:
        return f"{self.series}/{self.year}/{self.running:07d}"

    def following(self) -> "DocumentNumber":
        """The next number of the same series and year. Raises SeriesFull."""
        return replace(self, running=self.running + 1)


def series_of(document: Document, mode: Mode) -> Series:
    """The series of a kind of document."""
    return _SERIES[document, mode]


def day_in_india(at_ms: int) -> date:
    """The Indian date of a time, as printed on documents."""
    return to_datetime(at_ms).astimezone(INDIAN_TIME).date()


def financial_year_of(day: date) -> FinancialYear:
    """The financial year of an Indian date."""
    return FinancialYear(day.year if day.month >= APRIL else day.year - 1)


def next_number(series: Series, at_ms: int, last: DocumentNumber | None) -> DocumentNumber:
    """The number after `last`, the newest of its series; 1 in a new financial year.

    Raises WrongNumber if `last` is of another series, or of a later year: the clock went back, and the number would
    precede one already issued.
    """
    year = financial_year_of(day_in_india(at_ms))
    if last is None:
        return DocumentNumber(series, year, 1)
    if last.series is not series:
        raise WrongNumber(f"{last} is not of the series {series}")
    if last.year.starts > year.starts:
        raise WrongNumber(f"{last} is of a later year than {year}")
    return last.following() if last.year == year else DocumentNumber(series, year, 1)


def parse_number(written: str) -> DocumentNumber:
    """Parses a number's printed form. Raises WrongNumber."""
    parts = _FORM.fullmatch(written)
    if parts is None:
        raise WrongNumber(f"{written!r} is not a document number")
    prefix, starts, ends, running = parts.groups()
    if prefix not in set(Series) or int(ends) != (int(starts) + 1) % 100 or int(running) == 0:
        raise WrongNumber(f"{written!r} is not a document number")
    return DocumentNumber(Series(prefix), FinancialYear(2000 + int(starts)), int(running))
