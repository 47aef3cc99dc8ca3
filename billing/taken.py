"""What documents took of their period, as their rows keep it."""

from collections.abc import Iterable

import msgspec

from billing.models import Bill
from billing.overage import NOTHING_TAKEN, Taken


def taken_by(bills: Iterable[Bill]) -> Taken:
    """What these documents took together; a row that takes nothing keeps `{}`."""
    return sum((msgspec.convert(bill.taken, Taken) for bill in bills), NOTHING_TAKEN)


def negative(taken: Taken) -> Taken:
    """What takes all of it back."""
    return Taken({meter: -paise for meter, paise in taken.by_meter.items()}, -taken.cut_paise)


def takes_the_same(one: Taken, other: Taken) -> bool:
    """Equal, where a meter that is not named took nothing."""
    difference = one + negative(other)
    return difference.cut_paise == 0 and not any(difference.by_meter.values())
