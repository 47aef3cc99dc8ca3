"""Amounts as India writes them: lakhs and crores, in figures and in words. Pure, exact, from paise.

The figures are Babel's, from exact decimals: a float never comes near. The words are ours: it has none.
"""

from decimal import Decimal

from babel.numbers import format_currency, format_decimal

LOCALE = "en_IN"

PAISE_PER_RUPEE = 100
CRORE = 10_000_000

# fmt: off
_SMALL = (
    "Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
    "Thirteen", "Fourteen", "Fifteen", "Sixteen", "Seventeen", "Eighteen", "Nineteen",
)
_TENS = ("", "", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety")
# fmt: on
_SCALES = ((CRORE, "Crore"), (100_000, "Lakh"), (1_000, "Thousand"), (100, "Hundred"))


def grouped(number: int) -> str:
    """A whole number with India's commas: the last three digits, then pairs. 12345678 is `1,23,45,678`."""
    return format_decimal(number, locale=LOCALE)


def rupees(amount_paise: int) -> str:
    """An amount in figures: `₹1,23,456.78`; a credit is `-₹1,23,456.78`."""
    return format_currency(Decimal(amount_paise) / PAISE_PER_RUPEE, "INR", locale=LOCALE)


def in_words(amount_paise: int) -> str:
    """An amount as an invoice spells it: `Rupees One Lakh Five and Seven Paise Only`."""
    whole, paise = divmod(abs(amount_paise), PAISE_PER_RUPEE)
    minus = "Minus " if amount_paise < 0 else ""
    fraction = f" and {_spelt(paise)} Paise" if paise else ""
    return f"{minus}Rupees {_spelt(whole)}{fraction} Only"


def _spelt(number: int) -> str:
    """A number from zero on; past a crore of crores the crores are counted in crores, as spoken."""
    for size, name in _SCALES:
        if number >= size:
            count, rest = divmod(number, size)
            return f"{_spelt(count)} {name}" + (f" {_spelt(rest)}" if rest else "")
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f" {_SMALL[ones]}" if ones else "")
