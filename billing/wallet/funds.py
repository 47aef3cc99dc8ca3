"""The amount that a wallet still pays for in each period. Pure.

Usage is priced when its period is billed, so until then the balance still contains it: what is *owed* is the price of
the meters less what bills have drawn. The sum of what admission may grant in all periods never exceeds the balance.
So the running period has all of it, and the next one nothing, until shortly before the boundary: from then on each has
half of what is left, and the duty WALLETS divides it again every minute until the ended one has no open request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

NEAR_MS = 15 * 60_000
"""Time before a period's end from which the next one has a share.

Longer than a request runs by default (REQUEST_DEADLINE_S): what was granted before has been settled at the boundary.
"""


@dataclass(frozen=True, slots=True)
class PrepaidPeriod:
    """A prepaid period (a segment of one) that isn't closed, or whose bill is held.

    `price_paise`: of its meters by its plan, without the wallet as a bound. `billed_paise`: by its documents.
    `is_settled`: it has ended and has no open request.
    """

    name: str
    ends_ms: int
    price_paise: int
    billed_paise: int
    most_paise: int | None = None
    """The plan's own ceiling."""
    is_settled: bool = False

    @property
    def owed_paise(self) -> int:
        """The price that no bill has drawn from the wallet yet."""
        return max(0, self.price_paise - self.billed_paise)


def available(balance_paise: int, periods: Sequence[PrepaidPeriod]) -> int:
    """The unused amount; never negative."""
    return max(0, balance_paise - sum(one.owed_paise for one in periods))


def funds_to_bill(balance_paise: int, periods: Sequence[PrepaidPeriod], name: str, billed_paise: int) -> int:
    """The most that one period may cost in all when it is billed now: less what the others owe."""
    others = [one for one in periods if one.name != name]
    return billed_paise + available(balance_paise, others)


def funds_to_admit(balance_paise: int, periods: Sequence[PrepaidPeriod], now_ms: int) -> dict[str, int]:
    """The most that each period may cost in all, for admission. `periods`: oldest first, also those to come."""
    left, found = max(0, balance_paise), {}
    for at, one in enumerate(periods):
        owed = min(one.owed_paise, left)
        is_last = at == len(periods) - 1
        if one.is_settled:
            share = owed
        elif is_last or now_ms < one.ends_ms - NEAR_MS:
            share = left
        else:
            share = owed + (left - owed) // 2
        whole = one.billed_paise + share
        if one.most_paise is not None:
            whole = max(one.billed_paise, min(whole, one.most_paise))
        found[one.name] = whole
        left -= whole - one.billed_paise
    return found
