"""Money is integers: provider cost in nano-USD, customer amounts in paise. No float ever touches it.

The only roundings of the project live here, half up, as an accountant expects. Python's own `round` goes
half to even and its `//` goes down; neither is used on money elsewhere.
"""

NANO_USD_PER_MICRO_USD = 1_000
# Redis's Lua counts in doubles: every integer up to here is exact. As nano-USD this is 9 million dollars a window.
MAX_EXACT_DOUBLE = 2**53 - 1


def divide_half_up(numerator: int, denominator: int) -> int:
    """`numerator / denominator` to the nearest integer, halves away from zero. `denominator` is positive."""
    if denominator <= 0:
        raise ValueError("the denominator is positive")
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))


def ceil_div(numerator: int, denominator: int) -> int:
    """`numerator / denominator` rounded up; both are not negative."""
    return -(-numerator // denominator)
