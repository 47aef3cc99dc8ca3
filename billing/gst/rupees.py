"""Amounts in rupees, in figures and in words of lakhs and crores, and as people type them. Pure, exact, in paise."""

import re
from decimal import Decimal

from core.errors import Invalid
from core.figures import grouped

PAISE_PER_RUPEE = 100
CRORE = 10_000_000

# fmt: off
_SMALL = (
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
)
_TENS = ("", "", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")
# fmt: on
_TYPED = re.compile(r"([0-9]{1,15}|[0-9]{1,3}(,[0-9]{2,3}){0,4},[0-9]{3})(\.[0-9]{1,6})?")
_SCALES = ((CRORE, "Crore"), (100_000, "Lakh"), (1_000, "Thousand"), (100, "Hundred"))


def rupees(amount_paise: int) -> str:
    """An amount in figures: `₹1,23,456.78`; a credit is `-₹1,23,456.78`."""
    whole, paise = divmod(abs(amount_paise), PAISE_PER_RUPEE)
    return f"{'-' if amount_paise < 0 else ''}₹{grouped(whole)}.{paise:02d}"


def plain_rupees(amount_paise: int) -> str:
    """An amount that is not negative, with two decimals and no signs, as programs read it: `2999.00`."""
    whole, paise = divmod(amount_paise, PAISE_PER_RUPEE)
    return f"{whole}.{paise:02d}"


def in_paise(text: str) -> int:
    """Exact paise of a typed amount: `2999.00`, `1,00,000`. Raises Invalid."""
    if not _TYPED.fullmatch(text):
        raise Invalid(f"{text!r} is not an amount in rupees, such as 2999.00")
    amount = Decimal(text.replace(",", "")) * PAISE_PER_RUPEE
    if amount != int(amount):
        raise Invalid(f"{text!r} has a part of a paisa")
    return int(amount)


def in_words(amount_paise: int) -> str:
    """An amount in words: `Rupees One Lakh Five and Seven Paise Only`."""
    whole, paise = divmod(abs(amount_paise), PAISE_PER_RUPEE)
    minus = "Minus " if amount_paise < 0 else ""
    fraction = f" and {_spelt(paise)} Paise" if paise else ""
    return f"{minus}Rupees {_spelt(whole)}{fraction} Only"


def _spelt(number: int) -> str:
    """A number in words; from a crore of crores on, crores are counted in crores."""
    for size, name in _SCALES:
        if number >= size:
            count, rest = divmod(number, size)
            return f"{_spelt(count)} {name}" + (f" {_spelt(rest)}" if rest else "")
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f" {_SMALL[ones]}" if ones else "")
