"""Integer money: provider cost in nano-USD, customer amounts in paise. No floats.

All rounding of money is done here, half up. Python's `round` rounds half to even and `//` rounds down.
"""

NANO_USD_PER_MICRO_USD = 1_000
# Lua in Redis uses doubles, exact for integers up to here: 9 million dollars per window in nano-USD.
MAX_EXACT_DOUBLE = 2**53 - 1


def divide_half_up(numerator: int, denominator: int) -> int:
    """Returns `numerator / denominator` to the nearest integer, halves away from zero. `denominator` is positive."""
    if denominator <= 0:
        raise ValueError("the denominator must be positive")
    sign = -1 if numerator < 0 else 1
    return sign * ((2 * abs(numerator) + denominator) // (2 * denominator))


def ceil_div(numerator: int, denominator: int) -> int:
    """Returns `numerator / denominator` rounded up."""
    return -(-numerator // denominator)
