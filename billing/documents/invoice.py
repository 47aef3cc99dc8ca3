"""The content of a tax invoice, credit note or voucher, with all required particulars and checked sums. Pure.

Rule 46 (53 for credit notes) of the CGST Rules requires number and date, both parties with their GSTINs, the place of
supply, the service's code (SAC), taxable value, rate and amount of each tax, and whether tax is payable on reverse
charge. E-invoicing (IRN) is not supported, and each document says so.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Any

import msgspec

from billing.documents.logo import Logo
from billing.gst.gstin import STATES
from billing.gst.invoice_numbers import Document as Kind
from billing.gst.invoice_numbers import Mode
from billing.gst.rupees import in_words, rupees
from billing.gst.tax import INDIA, TaxLine
from billing.rating.overage import UNITS_PER_RATE
from core.figures import grouped

NO_IRN = "No e-invoice (IRN) has been generated for this document by Naka."
NOT_A_DOCUMENT = {Mode.SANDBOX: "SANDBOX - NOT A TAX DOCUMENT", Mode.TEST: "TEST - NOT A TAX DOCUMENT"}
TITLES = {
    Kind.TAX_INVOICE: "Tax invoice",
    Kind.CREDIT_NOTE: "Credit note",
    Kind.RECEIPT_VOUCHER: "Receipt voucher",
    Kind.REFUND_VOUCHER: "Refund voucher",
}
VOUCHERS = frozenset({Kind.RECEIPT_VOUCHER, Kind.REFUND_VOUCHER})
"""Documents of an advance (rules 50 and 51), which belong to no period."""
_CAPTIONS = {
    Kind.CREDIT_NOTE: "Credited items",
    Kind.RECEIPT_VOUCHER: "Advance",
    Kind.REFUND_VOUCHER: "Refunded advance",
}
_PAISE = 100
_METERS = {
    "input_tokens": "Input tokens",
    "output_tokens": "Output tokens",
    "cache_read_tokens": "Cache reads, tokens",
    "cache_write_tokens": "Cache writes, tokens",
    "spend": "Model cost, micro-USD",
    "web_searches": "Web searches",
}


class DoesNotAddUp(ValueError):
    """The lines, tax and total of a document contradict each other, so it isn't shown."""


class LineKind(StrEnum):
    """The kind of a line."""

    PLAN = "plan"
    METER = "meter"
    CEILING = "ceiling"
    CARRIED = "carried"
    ROUNDING = "rounding"
    PROMOTION = "promotion"
    ADVANCE = "advance"


@dataclass(frozen=True, slots=True)
class Party:
    """A party, converted from the profile that a bill stores. `state` is GST's code, None abroad."""

    legal_name: str
    lines: tuple[str, ...]
    city: str
    postal_code: str
    country: str = INDIA
    state: str | None = None
    gstin: str | None = None

    @property
    def address(self) -> tuple[str, ...]:
        """The address lines, with the state and its code."""
        where = (f"{STATES[self.state]} ({self.state})",) if self.state in STATES else ()
        country = "India" if self.country == INDIA else self.country
        return (*self.lines, f"{self.city} {self.postal_code}", *where, country)


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """One line. Of a meter: the whole period's units, the allowance, and what earlier bills charged."""

    kind: LineKind
    text: str
    amount_paise: int
    quantity: int | None = None
    allowance: int | None = None
    excess: int | None = None
    rate_paise: int | None = None
    unrounded_numerator: int | None = None
    earlier_paise: int | None = None

    @classmethod
    def of(cls, line: dict[str, Any]) -> "DocumentLine":
        """From a stored line (`billing.documents.bill_lines`)."""
        text, of_allowance = _METERS.get(line.get("meter", "")), line.get("of_allowance")
        if of_allowance is not None and of_allowance > line["allowance"]:
            used = grouped(of_allowance - line["allowance"])
            text = f"{text} ({used} of the {grouped(of_allowance)} included were used earlier in the period)"
        return msgspec.convert({"text": text} | line, cls)

    @property
    def unrounded(self) -> str:
        """The whole period's exact amount in rupees, without trailing zeros."""
        if self.unrounded_numerator is None:
            return ""
        whole, rest = divmod(self.unrounded_numerator, UNITS_PER_RATE * _PAISE)
        digits = f"{rest:08d}".rstrip("0").ljust(2, "0")
        return f"₹{grouped(whole)}.{digits}"


@dataclass(frozen=True, slots=True)
class PaidNote:
    """The day and Razorpay's id of the payment."""

    on: date
    payment_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document. Amounts are paise, and positive on a credit note too. Raises DoesNotAddUp."""

    kind: Kind
    mode: Mode
    number: str
    issued_on: date
    due_on: date | None
    supplier: Party
    customer: Party
    sac: str
    place_of_supply: str
    plan: str
    period: tuple[date, date]
    """First and last day, in India."""
    lines: tuple[DocumentLine, ...]
    taxable_paise: int
    tax: tuple[TaxLine, ...]
    total_paise: int
    refers_to: tuple[str, ...] = ()
    reason: str = ""
    paid: PaidNote | None = None
    pay_url: str | None = None
    due_paise: int | None = None
    """The amount that `pay_url` collects; None: the total."""
    carried_paise: int = 0
    """Rests of earlier bills, less than a rupee each, that are paid with this one."""
    logo: Logo | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the sums and the payment link."""
        if self.kind in {Kind.CREDIT_NOTE, Kind.REFUND_VOUCHER} and not self.refers_to:
            raise DoesNotAddUp(f"{self.number}: a {TITLES[self.kind].lower()} must name the document that it reduces")
        safe = ("https://",) if self.mode is Mode.LIVE else ("https://", "http://")  # the simulator has no certificate
        if self.pay_url is not None and not self.pay_url.startswith(safe):
            raise DoesNotAddUp(f"{self.number}: the payment link must use https")
        taxable = sum(line.amount_paise for line in self.lines) - self.rounding_paise
        if taxable != self.taxable_paise:
            raise DoesNotAddUp(f"{self.number}: lines of {taxable}, a taxable value of {self.taxable_paise}")
        total = taxable + sum(line.tax_paise for line in self.tax) + self.rounding_paise
        if total != self.total_paise:
            raise DoesNotAddUp(f"{self.number}: {total} with tax and rounding, a total of {self.total_paise}")

    @property
    def caption(self) -> str:
        """The caption of the lines' table."""
        return _CAPTIONS.get(self.kind, "Line items")

    @property
    def title(self) -> str:
        """The heading."""
        return TITLES[self.kind]

    @property
    def banner(self) -> str:
        """The warning on sandbox and test documents; empty for live ones."""
        return NOT_A_DOCUMENT.get(self.mode, "")

    @property
    def rounding_paise(self) -> int:
        """The amount added after tax."""
        return sum(line.amount_paise for line in self.lines if line.kind is LineKind.ROUNDING)

    @property
    def words(self) -> str:
        """The total in words."""
        return in_words(self.total_paise)

    def facts(self) -> list[tuple[str, str]]:
        """Labels and values beside the parties."""
        found = [
            (f"{self.title} number", self.number),
            ("Date", written(self.issued_on)),
            *(() if self.kind in VOUCHERS else (("Period", " to ".join(map(written, self.period))),)),
            ("Plan", self.plan),
            ("SAC", self.sac),
            ("Place of supply", self.place_of_supply),
            ("Tax payable on reverse charge", "No"),
        ]
        if self.refers_to:
            what = "receipt voucher" if self.kind is Kind.REFUND_VOUCHER else "tax invoice"
            found.append((f"Against {what}", ", ".join(self.refers_to)))
        if self.reason:
            found.append(("Reason", self.reason))
        if self.paid is not None:
            payment = f", payment {self.paid.payment_id}" if self.paid.payment_id else ""
            found.append(("Paid", f"{written(self.paid.on)}{payment}"))
        elif self.due_on is not None:
            found.append(("Due", written(self.due_on)))
        return found

    def sums(self) -> list[tuple[str, str]]:
        """Labels and amounts below the lines, without the total."""
        found = [("Taxable value", rupees(self.taxable_paise))]
        found += [(f"{line.component} at {percent(line.rate_bp)}", rupees(line.tax_paise)) for line in self.tax]
        return found + ([("Rounding", rupees(self.rounding_paise))] if self.rounding_paise else [])

    def payable(self) -> list[tuple[str, str]]:
        """Labels and amounts below the total, if other bills' rests are paid with it."""
        if not self.carried_paise:
            return []
        return [
            ("Rests of earlier bills", rupees(self.carried_paise)),
            ("To pay", rupees(self.total_paise + self.carried_paise)),
        ]

    @property
    def due(self) -> str:
        """The amount that the payment link collects."""
        return rupees(self.total_paise if self.due_paise is None else self.due_paise)

    def columns(self) -> tuple[str, ...]:
        """The column headings of the lines' table."""
        heads = ("Description", "Quantity", "Included", "Overage", "Rate per million", "Unrounded", "Billed before")
        has_meters = any(line.kind is LineKind.METER for line in self.lines)
        return (*(heads if has_meters else heads[:1]), "Amount")

    def rows(self) -> list[tuple[str, ...]]:
        """The cells under `columns`."""
        wide = len(self.columns()) > 2  # noqa: PLR2004 - description and amount
        shown = (line for line in self.lines if line.kind is not LineKind.ROUNDING)
        return [(line.text, *(_units(line) if wide else ()), rupees(line.amount_paise)) for line in shown]


def written(day: date) -> str:
    """A date with an unambiguous month: `05 Nov 2026`."""
    return f"{day:%d %b %Y}"


def percent(rate_bp: int) -> str:
    """Basis points as `9%` or `2.5%`."""
    whole, rest = divmod(rate_bp, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".") + "%"


def _units(line: DocumentLine) -> tuple[str, ...]:
    if line.kind is not LineKind.METER:
        return ("", "", "", "", "", "")
    rate = "" if line.rate_paise is None else rupees(line.rate_paise)
    earlier = "" if not line.earlier_paise else rupees(line.earlier_paise)
    return (_count(line.quantity), _count(line.allowance), _count(line.excess), rate, line.unrounded, earlier)


def _count(number: int | None) -> str:
    return "" if number is None else grouped(number)
