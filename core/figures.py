"""Numbers as people read them: grouped as DIGIT_GROUPING says, Indian (12,34,567) or international (1,234,567).

Grouped by hand: a report has thousands of numbers, and Babel takes 30 us for each.
"""

from typing import Literal

Grouping = Literal["indian", "international"]

_NANO = 1_000_000_000
_EXACT_BELOW = 10_000
_GROUP_DIGITS = {"indian": 2, "international": 3}
"""Digits of a group left of the last three."""
_left_digits = _GROUP_DIGITS["indian"]


def group_digits(grouping: Grouping) -> None:
    """Sets the grouping of this process, at its start."""
    global _left_digits  # noqa: PLW0603 - a setting of the process, like its log format
    _left_digits = _GROUP_DIGITS[grouping]


def number_locale() -> str:
    """The locale whose numbers are grouped so, for scripts of the pages."""
    return "en-IN" if _left_digits == _GROUP_DIGITS["indian"] else "en-US"


def grouped(value: int) -> str:
    """A whole number with its groups: `12,34,567`."""
    digits = str(abs(value))
    head, last = digits[:-3], digits[-3:]
    odd = len(head) % _left_digits
    groups = (head[at : at + _left_digits] for at in range(odd, len(head), _left_digits))
    return ("-" if value < 0 else "") + ",".join(part for part in (head[:odd], *groups, last) if part)


def short(value: int) -> str:
    """A large count at a glance: `1.2 M`; exact below ten thousand."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= max(size, _EXACT_BELOW):
            tenths = (2 * abs(value) * 10 + size) // (2 * size)
            return f"{'-' if value < 0 else ''}{tenths // 10}.{tenths % 10} {unit}"
    return grouped(value)


def usd(nano: int) -> str:
    """Dollars from nano-USD, to the cent; below one dollar to four places, so that a small amount is not shown as 0."""
    places = 4 if 0 < abs(nano) < _NANO else 2
    unit = _NANO // 10**places
    whole, part = divmod((2 * abs(nano) + unit) // (2 * unit), 10**places)
    return f"{'-' if nano < 0 else ''}${grouped(whole)}.{part:0{places}d}"
