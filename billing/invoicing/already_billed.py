"""What documents took of their period, as their rows keep it."""

from collections.abc import Iterable

import msgspec

from billing.models import Bill
from billing.rating.overage import NOTHING_TAKEN, AlreadyBilled


def taken_by(bills: Iterable[Bill]) -> AlreadyBilled:
    """What these documents took together; a row that takes nothing keeps `{}`."""
    return sum((msgspec.convert(bill.taken, AlreadyBilled) for bill in bills), NOTHING_TAKEN)


def negative(taken: AlreadyBilled) -> AlreadyBilled:
    """What takes all of it back."""
    return AlreadyBilled({meter: -paise for meter, paise in taken.by_meter.items()}, -taken.cut_paise)


def takes_the_same(one: AlreadyBilled, other: AlreadyBilled) -> bool:
    """Equal, where a meter that is not named took nothing."""
    difference = one + negative(other)
    return difference.cut_paise == 0 and not any(difference.by_meter.values())
