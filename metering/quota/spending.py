"""What a window's usage past its allowances comes to, and how much of an answer still fits under a ceiling. Pure.

A charge is unrounded: units over the allowance times the rate, in millionths of a paisa. A request that runs holds a
prompt whose class nobody knows yet, so what is pending counts as the dearest that it can turn out to be: a sum of
functions that only ever get steeper is largest where all of it falls into one class. A ceiling is never passed because
of that, and may be met a little early. admit.lua says the same.
"""

from collections.abc import Sequence

from metering.quota.counters import WindowState

Prices = Sequence[tuple[int, int]]
"""(allowance, rate) of input, cache reads, cache writes of both lives, and output: `limits.PRICED_CLASSES`."""


def charge(prices: Prices, window: WindowState, *, pending_prompt: int = 0, pending_output: int = 0) -> int:
    """Of what was used, and of what is pending at its dearest; what the window holds counts only if it is passed in."""
    *prompt, output = zip(prices, _counts(window), strict=True)
    dearest = max(
        sum(_over(*price, used + pending_prompt * (at == lands)) for at, (price, used) in enumerate(prompt))
        for lands in range(len(prompt))
    )
    return dearest + _over(*output[0], output[1] + pending_output)


def output_that_fits(
    prices: Prices, bound: int, window: WindowState, *, pending_prompt: int, pending_output: int
) -> int | None:
    """The most output on top of all that; -1 when not even none fits, None when output costs nothing."""
    allowance, rate = prices[-1]
    rest = bound - charge((*prices[:-1], (0, 0)), window, pending_prompt=pending_prompt)
    if rest < 0:
        return -1
    if rate == 0:
        return None
    return max(-1, allowance + rest // rate - _counts(window)[-1] - pending_output)


def _counts(window: WindowState) -> tuple[int, int, int, int]:
    _, given, output, cache_read, cache_write_5m, cache_write_1h, _ = window.used
    return given, cache_read, cache_write_5m + cache_write_1h, output


def _over(allowance: int, rate: int, units: int) -> int:
    return max(0, units - allowance) * rate
