"""GST on a bill: place of supply, tax components and their amounts. Pure.

Software as a service under sections 7, 8, 12, 13 and 16 of the IGST Act: in the supplier's state CGST and SGST (UTGST
in a union territory without legislature), elsewhere in India IGST, abroad zero-rated under the operator's letter of
undertaking (LUT) or refused. Each component is rounded once on the bill's taxable total, halves away from zero, so that
a credit note of the same amount has the same tax. Supplies to SEZ units are taxed by the customer's state.
"""

from dataclasses import dataclass
from enum import StrEnum

from billing.gst.gstin import STATES, WITHOUT_LEGISLATURE, checked_gstin, state_of
from core.money import ceil_div, divide_half_up

BASIS_POINTS = 10_000
INDIA = "IN"
FOREIGN_COUNTRY = "96"
"""The code for the place of supply of an export in GST returns."""
EXPORT_ENDORSEMENT = "Supply meant for export under letter of undertaking without payment of integrated tax"
"""Required by rule 46 on the invoice of such an export."""


class SupplyRefused(ValueError):
    """The customer can't be billed; the message says why."""


class Treatment(StrEnum):
    """The taxation of a supply. A plan has one Razorpay price per treatment."""

    INTRA_STATE = "intra_state"
    INTER_STATE = "inter_state"
    EXPORT = "export"


class Component(StrEnum):
    """A tax component, as named on the invoice."""

    CGST = "CGST"
    SGST = "SGST"
    UTGST = "UTGST"
    IGST = "IGST"


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates in basis points: 18 % is 1800."""

    cgst_bp: int = 900
    sgst_bp: int = 900
    igst_bp: int = 1_800

    def __post_init__(self) -> None:
        if min(self.cgst_bp, self.sgst_bp, self.igst_bp) < 0:
            raise ValueError("a rate must not be negative")


SAAS_RATES = Rates()


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer's location. `gstin` is None if unregistered, `state` None abroad."""

    country: str
    state: str | None = None
    gstin: str | None = None


@dataclass(frozen=True, slots=True)
class Supply:
    """The place and taxation of a supply, copied onto the bill."""

    treatment: Treatment
    place: str
    components: tuple[tuple[Component, int], ...]

    @property
    def place_name(self) -> str:
        """The place of supply as printed on the invoice."""
        return STATES.get(self.place, "Outside India")


@dataclass(frozen=True, slots=True)
class TaxLine:
    """One tax component of a bill."""

    component: Component
    rate_bp: int
    tax_paise: int


def supply_to(customer: Customer, *, supplier_state: str, has_lut: bool, rates: Rates = SAAS_RATES) -> Supply:
    """The supply to a customer. Raises SupplyRefused; WrongGstin for an invalid number.

    The place is the customer's state, by its GSTIN if registered, else by its address. The two must agree, since both
    are on the invoice. Exports need the operator's LUT; export with payment of tax is not supported.
    """
    if supplier_state not in STATES:
        raise SupplyRefused(f"the supplier's state code {supplier_state!r} is not one of GST's")
    if customer.country != INDIA:
        return _export(customer, has_lut=has_lut)
    if customer.state not in STATES:
        raise SupplyRefused("a customer in India needs its state")
    if customer.gstin is not None and state_of(checked_gstin(customer.gstin)) != customer.state:
        raise SupplyRefused("the GSTIN is of another state than the address")
    if customer.state != supplier_state:
        return Supply(Treatment.INTER_STATE, customer.state, ((Component.IGST, rates.igst_bp),))
    own = Component.UTGST if supplier_state in WITHOUT_LEGISLATURE else Component.SGST
    halves = ((Component.CGST, rates.cgst_bp), (own, rates.sgst_bp))
    return Supply(Treatment.INTRA_STATE, customer.state, halves)


def tax_on(taxable_paise: int, supply: Supply) -> tuple[TaxLine, ...]:
    """The tax components on a bill's taxable total; negative for a credit note."""
    return tuple(
        TaxLine(component, rate_bp, divide_half_up(taxable_paise * rate_bp, BASIS_POINTS))
        for component, rate_bp in supply.components
    )


def gross_of(net_paise: int, supply: Supply) -> int:
    """A net amount plus its tax."""
    return net_paise + sum(line.tax_paise for line in tax_on(net_paise, supply))


def largest_net_of(gross_paise: int, supply: Supply) -> int:
    """The largest net whose gross is at most `gross_paise`. Not every gross is the gross of a net amount."""
    if gross_paise < 0:
        raise ValueError("a gross amount must not be negative")
    whole_bp = BASIS_POINTS + sum(rate_bp for _, rate_bp in supply.components)
    # Each of two components is off by at most half a paisa, so this starts at most two steps above the answer.
    net_paise = ceil_div(gross_paise * BASIS_POINTS, whole_bp)
    while gross_of(net_paise, supply) > gross_paise:
        net_paise -= 1
    return net_paise


def _export(customer: Customer, *, has_lut: bool) -> Supply:
    if customer.gstin is not None or customer.state is not None:
        raise SupplyRefused("a customer abroad has neither a GSTIN nor an Indian state")
    if not has_lut:
        raise SupplyRefused("customers outside India are not served: no letter of undertaking is configured")
    return Supply(Treatment.EXPORT, FOREIGN_COUNTRY, ())
