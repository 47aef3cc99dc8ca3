"""The overage of a period: its whole reading priced, minus what earlier bills charged. Pure.

A bill never prices a difference of counts. It prices the period's whole reading again and deducts what the period's
earlier bills charged, so any number of closes, late revisions or credits end in the same sums: a supplement if the
price rose, a credit note if it fell. Each line is rounded once, half up, as a whole; differences are between whole
paise. The ceiling is a line of its own, so the lines of a bill always add up to its taxable total.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from core.money import NANO_USD_PER_MICRO_USD, divide_half_up
from metering.pricing.tokens import NO_USAGE, Usage

UNITS_PER_RATE = 1_000_000
"""Rates are paise per this many units; an unrounded amount is a numerator over it."""


class ImpossibleTerms(ValueError):
    """Terms that can't be priced."""


class Meter(StrEnum):
    """The meters that a plan can price: tokens and searches, or else `SPEND`, the provider's cost in micro-USD.

    The rate of every meter is paise per million units: a rupee per search is a rate of 100,000,000.
    """

    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHE_READ_TOKENS = "cache_read_tokens"
    CACHE_WRITE_TOKENS = "cache_write_tokens"
    SPEND = "spend"
    WEB_SEARCHES = "web_searches"


class PastAllowance(StrEnum):
    """The treatment of usage past the allowance. `prepaid`: priced like `bill`, up to what the wallet holds."""

    BLOCK = "block"
    BILL = "bill"
    PREPAID = "prepaid"

    @property
    def is_priced(self) -> bool:
        """Whether usage past the allowance costs something."""
        return self is not PastAllowance.BLOCK


class PricingOutcome(StrEnum):
    """The document that a pricing requires."""

    BILL = "bill"
    CREDIT_NOTE = "credit_note"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Reading:
    """The totals of all meters of one period, read in one statement."""

    usage: Usage = NO_USAGE
    cost_nano_usd: int = 0

    def quantity(self, meter: Meter) -> int:
        """The units of a meter. Cache writes of both lifetimes are one meter.

        Nano-USD are rounded to micro-USD only here, for the period's total, once, half up. So no request's fraction is
        lost, and a bill is off by at most half a micro-USD.
        """
        usage = self.usage
        match meter:
            case Meter.INPUT_TOKENS:
                return usage.input_tokens
            case Meter.OUTPUT_TOKENS:
                return usage.output_tokens
            case Meter.CACHE_READ_TOKENS:
                return usage.cache_read_tokens
            case Meter.CACHE_WRITE_TOKENS:
                return usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
            case Meter.WEB_SEARCHES:
                return usage.web_searches
            case Meter.SPEND:
                return divide_half_up(self.cost_nano_usd, NANO_USD_PER_MICRO_USD)


class MeterTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """The units of a meter that the base price includes, and the paise per million past them.

    `of_allowance`: the plan's allowance for the whole period, when earlier segments used a part of it
    (`billing.rating.segments`); `allowance` is what they left.
    """

    meter: Meter
    allowance: int
    rate_paise: int
    of_allowance: int | None = None

    def __post_init__(self) -> None:
        """Raises ImpossibleTerms."""
        if self.allowance < 0 or self.rate_paise < 0:
            raise ImpossibleTerms(f"{self.meter}: an allowance and a rate must not be negative")


@dataclass(frozen=True, slots=True)
class Terms:
    """A plan's terms for usage. The ceiling is per period, before tax, and required by `bill`.

    Under `prepaid`, the wallet bounds the charge, too (`billing.wallet.funds`).
    """

    meters: tuple[MeterTerms, ...]
    past_allowance: PastAllowance
    ceiling_paise: int | None = None

    def __post_init__(self) -> None:
        named = {terms.meter for terms in self.meters}
        if len(named) != len(self.meters):
            raise ImpossibleTerms("a meter is named twice")
        if Meter.SPEND in named and len(named) > 1:
            raise ImpossibleTerms("a plan prices spend, or tokens and searches, not both")
        if self.past_allowance is PastAllowance.BILL and self.ceiling_paise is None:
            raise ImpossibleTerms("a plan that bills needs a ceiling")
        if self.past_allowance is PastAllowance.PREPAID and not any(terms.rate_paise for terms in self.meters):
            raise ImpossibleTerms("a prepaid plan needs a meter with a rate")
        if self.ceiling_paise is not None and self.ceiling_paise < 0:
            raise ImpossibleTerms("a ceiling must not be negative")


@dataclass(frozen=True, slots=True)
class AlreadyBilled:
    """The amounts that a period's bills have charged, before tax: by meter, and the ceiling's cut (not positive)."""

    by_meter: Mapping[Meter, int] = field(default_factory=dict)
    cut_paise: int = 0

    def __add__(self, other: "AlreadyBilled") -> "AlreadyBilled":
        meters = [meter for meter in Meter if meter in self.by_meter or meter in other.by_meter]
        return AlreadyBilled(
            {meter: self.by_meter.get(meter, 0) + other.by_meter.get(meter, 0) for meter in meters},
            self.cut_paise + other.cut_paise,
        )

    def __neg__(self) -> "AlreadyBilled":
        return AlreadyBilled({meter: -paise for meter, paise in self.by_meter.items()}, -self.cut_paise)

    def equals(self, other: "AlreadyBilled") -> bool:
        """Whether both are equal; a missing meter counts as zero."""
        difference = self + -other
        return difference.cut_paise == 0 and not any(difference.by_meter.values())

    @property
    def total_paise(self) -> int:
        """The taxable total of those bills, minus credit notes."""
        return sum(self.by_meter.values()) + self.cut_paise


NOTHING_BILLED = AlreadyBilled()


@dataclass(frozen=True, slots=True)
class Line:
    """One meter of a bill: the whole period's price, what earlier bills charged of it, and the difference.

    `of_allowance`: as in `MeterTerms`.
    """

    meter: Meter
    quantity: int
    allowance: int
    rate_paise: int
    earlier_paise: int
    of_allowance: int | None = None

    @property
    def excess(self) -> int:
        """The units past the allowance."""
        return max(0, self.quantity - self.allowance)

    @property
    def unrounded_numerator(self) -> int:
        """The whole period's exact amount in paise, times `UNITS_PER_RATE`."""
        return self.excess * self.rate_paise

    @property
    def whole_paise(self) -> int:
        """The whole period's amount, the only rounding of this line."""
        return divide_half_up(self.unrounded_numerator, UNITS_PER_RATE)

    @property
    def due_paise(self) -> int:
        """The amount of this bill for the meter; negative if it credits."""
        return self.whole_paise - self.earlier_paise


@dataclass(frozen=True, slots=True)
class OverageBill:
    """The price of a period by its current reading, against what its earlier bills charged."""

    lines: tuple[Line, ...]
    ceiling_paise: int | None
    earlier_cut_paise: int

    @property
    def whole_cut_paise(self) -> int:
        """The ceiling's cut of the whole period's price (not positive)."""
        if self.ceiling_paise is None:
            return 0
        return min(0, self.ceiling_paise - sum(line.whole_paise for line in self.lines))

    @property
    def cut_due_paise(self) -> int:
        """The ceiling's line on this bill; positive if an earlier bill was cut by more than now."""
        return self.whole_cut_paise - self.earlier_cut_paise

    @property
    def taxable_paise(self) -> int:
        """The sum of all lines before tax; negative for a credit note."""
        return sum(line.due_paise for line in self.lines) + self.cut_due_paise

    @property
    def kind(self) -> PricingOutcome:
        """The document to issue."""
        if self.taxable_paise == 0:
            return PricingOutcome.NOTHING
        return PricingOutcome.BILL if self.taxable_paise > 0 else PricingOutcome.CREDIT_NOTE

    @property
    def taken(self) -> AlreadyBilled:
        """The amounts of this bill, to be added to the next one's `earlier`."""
        return AlreadyBilled({line.meter: line.due_paise for line in self.lines}, self.cut_due_paise)


def price_period(reading: Reading, terms: Terms, earlier: AlreadyBilled = NOTHING_BILLED) -> OverageBill:
    """Prices a period's reading against what its earlier bills charged.

    Under `block`, usage past the allowance (which the provider counted past a bound) is shown and costs nothing. A
    meter that an earlier bill charged and these terms no longer name is credited.
    """
    priced = {meter.meter: meter for meter in terms.meters}
    billing = terms.past_allowance.is_priced
    lines = []
    for meter in Meter:
        if meter not in priced and not earlier.by_meter.get(meter):
            continue
        own = priced.get(meter, MeterTerms(meter, 0, 0))
        lines.append(
            Line(
                meter=meter,
                quantity=reading.quantity(meter),
                allowance=own.allowance,
                rate_paise=own.rate_paise if billing else 0,
                earlier_paise=earlier.by_meter.get(meter, 0),
                of_allowance=own.of_allowance,
            )
        )
    return OverageBill(tuple(lines), terms.ceiling_paise if billing else None, earlier.cut_paise)
