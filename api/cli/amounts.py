"""Amounts that commands take in rupees."""

import re
from decimal import Decimal

from core.errors import Invalid

_PAISE = 100
_RUPEES = re.compile(r"([0-9]{1,15}|[0-9]{1,3}(,[0-9]{2,3}){0,4},[0-9]{3})(\.[0-9]{1,6})?")


def in_paise(text: str) -> int:
    """Exact paise of an amount in rupees: `2999.00`, `1,00,000`. Raises Invalid."""
    if not _RUPEES.fullmatch(text):
        raise Invalid(f"{text!r} is not an amount in rupees, such as 2999.00")
    amount = Decimal(text.replace(",", "")) * _PAISE
    if amount != int(amount):
        raise Invalid(f"{text!r} has a part of a paisa")
    return int(amount)
