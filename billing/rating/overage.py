"""What a period's usage past its allowance costs: the whole reading priced, minus what earlier bills took. Pure.

A bill never prices a difference of counts. It prices the period's *whole* reading again and takes off what the earlier
bills of that period took, so that one close, ten closes, a late revision or a credit end in the same sums: a supplement
where the price grew, a credit note where it fell. One rounding a line, half up, of the whole; every difference is
between whole paise. The ceiling is a line of its own, so that the lines of a bill always add up to its taxable total.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from core.money import NANO_USD_PER_MICRO_USD, divide_half_up
from metering.pricing.tokens import NO_USAGE, Usage

UNITS_PER_RATE = 1_000_000
"""A rate is paise per this many units; an unrounded amount is a numerator over it."""


class ImpossibleTerms(ValueError):
    """A plan that cannot be priced."""


class Meter(StrEnum):
    """What a plan can price. `SPEND` is the provider's cost in micro-USD, and stands instead of the tokens."""

    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHE_READ_TOKENS = "cache_read_tokens"
    CACHE_WRITE_TOKENS = "cache_write_tokens"
    SPEND = "spend"


class PastAllowance(StrEnum):
    """What happens to usage past the allowance."""

    BLOCK = "block"
    BILL = "bill"


class BillKind(StrEnum):
    """What a pricing asks for: money, a credit note, or nothing."""

    BILL = "bill"
    CREDIT_NOTE = "credit_note"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Reading:
    """The totals of all meters of one period, taken in one statement."""

    usage: Usage = NO_USAGE
    cost_nano_usd: int = 0

    def __add__(self, other: "Reading") -> "Reading":
        return Reading(self.usage + other.usage, self.cost_nano_usd + other.cost_nano_usd)

    def quantity(self, meter: Meter) -> int:
        """The units of a meter. Cache writes of both lives are one meter.

        Nano-USD become micro-USD here and nowhere earlier: the *total* of the period, once, half up. So no request's
        fraction is lost or gained, and a bill is off by half a micro-USD at the most.
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
            case Meter.SPEND:
                return divide_half_up(self.cost_nano_usd, NANO_USD_PER_MICRO_USD)


@dataclass(frozen=True, slots=True)
class MeterTerms:
    """The units of a meter that the base price includes, and the paise for a million past them."""

    meter: Meter
    allowance: int
    rate_paise: int

    def __post_init__(self) -> None:
        if self.allowance < 0 or self.rate_paise < 0:
            raise ImpossibleTerms(f"{self.meter}: an allowance and a rate are not negative")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a version of a plan says about usage. The ceiling is per period, before tax; `bill` must have one."""

    meters: tuple[MeterTerms, ...]
    past_allowance: PastAllowance
    ceiling_paise: int | None = None

    def __post_init__(self) -> None:
        named = {terms.meter for terms in self.meters}
        if len(named) != len(self.meters):
            raise ImpossibleTerms("a meter is named twice")
        if Meter.SPEND in named and len(named) > 1:
            raise ImpossibleTerms("a plan prices tokens or spend, not both")
        if self.past_allowance is PastAllowance.BILL and self.ceiling_paise is None:
            raise ImpossibleTerms("a plan that bills needs a ceiling")
        if self.ceiling_paise is not None and self.ceiling_paise < 0:
            raise ImpossibleTerms("a ceiling is not negative")

    def after(self, earlier: Reading) -> "Terms":
        """These terms without what `earlier` used of the allowance: a month's, which several periods share."""
        return replace(
            self,
            meters=tuple(
                replace(terms, allowance=max(0, terms.allowance - max(0, earlier.quantity(terms.meter))))
                for terms in self.meters
            ),
        )


@dataclass(frozen=True, slots=True)
class AlreadyBilled:
    """What the bills of a period took so far, before tax: by meter, and what the ceiling took off (not positive)."""

    by_meter: Mapping[Meter, int] = field(default_factory=dict)
    cut_paise: int = 0

    def __add__(self, other: "AlreadyBilled") -> "AlreadyBilled":
        meters = [meter for meter in Meter if meter in self.by_meter or meter in other.by_meter]
        return AlreadyBilled(
            {meter: self.by_meter.get(meter, 0) + other.by_meter.get(meter, 0) for meter in meters},
            self.cut_paise + other.cut_paise,
        )

    @property
    def total_paise(self) -> int:
        """The taxable total of all those bills, credit notes taken off."""
        return sum(self.by_meter.values()) + self.cut_paise


NOTHING_TAKEN = AlreadyBilled()


@dataclass(frozen=True, slots=True)
class Line:
    """One meter on a bill: the whole period's price, what earlier bills took of it, and the difference now."""

    meter: Meter
    quantity: int
    allowance: int
    rate_paise: int
    earlier_paise: int

    @property
    def excess(self) -> int:
        """The units past the allowance."""
        return max(0, self.quantity - self.allowance)

    @property
    def unrounded_numerator(self) -> int:
        """The whole period's exact amount: this, over `UNITS_PER_RATE`, in paise."""
        return self.excess * self.rate_paise

    @property
    def whole_paise(self) -> int:
        """The whole period's amount: the one rounding of this line."""
        return divide_half_up(self.unrounded_numerator, UNITS_PER_RATE)

    @property
    def due_paise(self) -> int:
        """What this bill takes for the meter; negative where it gives back."""
        return self.whole_paise - self.earlier_paise


@dataclass(frozen=True, slots=True)
class OverageBill:
    """The price of a period as it reads now, against what its earlier bills took."""

    lines: tuple[Line, ...]
    ceiling_paise: int | None
    earlier_cut_paise: int

    @property
    def whole_cut_paise(self) -> int:
        """What the ceiling takes off the whole period's price: not positive."""
        if self.ceiling_paise is None:
            return 0
        return min(0, self.ceiling_paise - sum(line.whole_paise for line in self.lines))

    @property
    def cut_due_paise(self) -> int:
        """The ceiling's line on this bill; positive where an earlier bill was cut by more than is due now."""
        return self.whole_cut_paise - self.earlier_cut_paise

    @property
    def taxable_paise(self) -> int:
        """This bill before tax: its lines and its ceiling's line. Negative is a credit note."""
        return sum(line.due_paise for line in self.lines) + self.cut_due_paise

    @property
    def kind(self) -> BillKind:
        """What is to be issued. Recording a `NOTHING` or dropping it leads to the same sums."""
        if self.taxable_paise == 0:
            return BillKind.NOTHING
        return BillKind.BILL if self.taxable_paise > 0 else BillKind.CREDIT_NOTE

    @property
    def taken(self) -> AlreadyBilled:
        """What this bill takes: the next one adds it to its `earlier`."""
        return AlreadyBilled({line.meter: line.due_paise for line in self.lines}, self.cut_due_paise)


def price_period(reading: Reading, terms: Terms, earlier: AlreadyBilled = NOTHING_TAKEN) -> OverageBill:
    """The bill of a period that reads so, when its earlier bills took `earlier`.

    Under `block` usage past the allowance (what the provider counted past a bound) is shown and costs nothing. A
    meter that an earlier bill charged and these terms no longer name is given back.
    """
    priced = {meter.meter: meter for meter in terms.meters}
    billing = terms.past_allowance is PastAllowance.BILL
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
            )
        )
    return OverageBill(tuple(lines), terms.ceiling_paise if billing else None, earlier.cut_paise)
