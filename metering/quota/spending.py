"""The charge for a window's overage, and the output that still fits under a ceiling. Pure; admit.lua computes the same.

A charge is unrounded: units over the allowance times the rate, in millionths of a paisa. The prompt of a running
request has no known class yet, so pending tokens count as the class that costs most. (The cost is largest with all of
the prompt in one class.) Hence a ceiling is never passed, and may be reached a little early.
"""

from collections.abc import Sequence

from metering.quota.counters import WindowState

Prices = Sequence[tuple[int, int]]
"""(allowance, rate) of input, cache reads, cache writes of both lives, and output: `limits.PRICED_CLASSES`."""


def charge(prices: Prices, window: WindowState, *, pending_prompt: int = 0, pending_output: int = 0) -> int:
    """The charge for the used and the pending tokens. The window's holds count only if they are passed as pending."""
    *prompt, output = zip(prices, _counts(window), strict=True)
    dearest = max(
        sum(_over(*price, used + pending_prompt * (at == lands)) for at, (price, used) in enumerate(prompt))
        for lands in range(len(prompt))
    )
    return dearest + _over(*output[0], output[1] + pending_output)


def output_that_fits(
    prices: Prices, bound: int, window: WindowState, *, pending_prompt: int, pending_output: int
) -> int | None:
    """The most output that fits on top; -1 when not even 0 tokens fit, None when output is free."""
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
