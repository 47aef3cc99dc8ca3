"""The charge for a window's overage, and the output that still fits under a ceiling. Pure; admit.lua computes the same.

A charge is unrounded: units over the allowance times the rate, in millionths of a paisa. The prompt of a running
request has no known class yet, so pending tokens count as the class that costs most. (The cost is largest with all of
the prompt in one class.) Pending searches are the most that a request may run, or 50 if it sets no `max_uses`. Hence a
ceiling is never passed but by searches beyond those 50, and may be reached a little early.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from metering.quota.counters import WindowState

Prices = Sequence[tuple[int, int]]
"""(allowance, rate) of input, cache reads, cache writes of both lives, output, searches: `limits.PRICED_CLASSES`."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Pending amounts on top of a window: prompt tokens of any class, output tokens, and web searches."""

    prompt: int = 0
    output: int = 0
    web_searches: int = 0

    @classmethod
    def held_in(cls, window: WindowState) -> "Pending":
        """The holds of a window's running requests."""
        _, prompt, output, web_searches, _ = window.held
        return cls(prompt, output, web_searches)

    def __add__(self, other: "Pending") -> "Pending":
        return Pending(self.prompt + other.prompt, self.output + other.output, self.web_searches + other.web_searches)


def charge(prices: Prices, window: WindowState, pending: Pending = Pending()) -> int:
    """The charge for the used and the pending units. The window's holds count only if they are passed as pending."""
    *prompt, output, searches = zip(prices, _counts(window), strict=True)
    dearest = max(
        sum(_over(*price, used + pending.prompt * (at == lands)) for at, (price, used) in enumerate(prompt))
        for lands in range(len(prompt))
    )
    rest = (output, pending.output), (searches, pending.web_searches)
    return dearest + sum(_over(*price, used + more) for (price, used), more in rest)


def output_that_fits(prices: Prices, bound: int, window: WindowState, pending: Pending) -> int | None:
    """The most output that fits on top; -1 when not even 0 tokens fit, None when output is free."""
    *prompt, (allowance, rate), searches = prices
    rest = bound - charge((*prompt, (0, 0), searches), window, pending)
    if rest < 0:
        return -1
    if rate == 0:
        return None
    return max(-1, allowance + rest // rate - _counts(window)[-2] - pending.output)


def _counts(window: WindowState) -> tuple[int, int, int, int, int]:
    _, given, output, cache_read, cache_write_5m, cache_write_1h, _, searches, _ = window.used
    return given, cache_read, cache_write_5m + cache_write_1h, output, searches


def _over(allowance: int, rate: int, units: int) -> int:
    return max(0, units - allowance) * rate
