"""The terms of a period's later segments: the allowance is given once per period. Pure.

A period is cut into segments where its terms change (docs/decisions/0015). Each is priced by its own reading. What the
segments before it used inside their allowances is taken from its own allowance, and what they cost from its ceiling. So
nobody gains by switching back and forth, and usage that was inside the allowance when it was granted costs nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from billing.rating.overage import Meter, Reading, Terms, price_period
from metering.quota.limits import MAX_LIMIT


@dataclass(frozen=True, slots=True)
class Spent:
    """The usage of a period's earlier segments: all units, those inside their allowances, and the price before tax."""

    units: Mapping[Meter, int] = field(default_factory=dict)
    included: Mapping[Meter, int] = field(default_factory=dict)
    price_paise: int = 0


NOTHING_SPENT = Spent()


def spend(spent: Spent, reading: Reading, terms: Terms | None) -> Spent:
    """Adds a segment. `terms`: those it is priced by, after `spent`; None: it has no plan and takes no allowance."""
    units = {meter: spent.units.get(meter, 0) + reading.quantity(meter) for meter in Meter}
    if terms is None:
        return replace(spent, units=units)
    included = dict(spent.included)
    for own in terms.meters:
        inside = min(reading.quantity(own.meter), own.allowance)
        included[own.meter] = included.get(own.meter, 0) + inside
    return Spent(units, included, spent.price_paise + price_period(reading, terms).taxable_paise)


def after(terms: Terms, spent: Spent) -> Terms:
    """The terms of a segment that follows others: the rest of its plan's allowances, and of its ceiling."""
    meters = tuple(
        own
        if not (taken := spent.included.get(own.meter, 0))
        else msgspec.structs.replace(own, allowance=max(0, own.allowance - taken), of_allowance=own.allowance)
        for own in terms.meters
    )
    left = None if terms.ceiling_paise is None else max(0, terms.ceiling_paise - spent.price_paise)
    return replace(terms, meters=meters, ceiling_paise=left)


def counted_in_window(terms: Terms, spent: Spent) -> Terms:
    """A segment's terms for counters of the whole period, which contain the units of the segments before it."""
    meters = tuple(
        msgspec.structs.replace(own, allowance=min(MAX_LIMIT, max(0, own.allowance + spent.units.get(own.meter, 0))))
        for own in terms.meters
    )
    return replace(terms, meters=meters)
