"""The order in which a wallet is drawn down, and given back to. Pure.

What expires first is used first, and of two with the same expiry a promotion before money. What comes back goes first
to what was drawn last, money before promotions, so that a customer's own money is restored before a gift is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

_NEVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Lot:
    """A top-up or a promotion, and what is left of it, in paise before tax. `bill_id`: the top-up's document."""

    id: UUID
    is_money: bool
    paise: int
    left_paise: int
    expires_ms: int | None = None
    bill_id: UUID | None = None

    @property
    def order(self) -> tuple[int, bool, UUID]:
        """Its place in the order of use."""
        return _NEVER_MS if self.expires_ms is None else self.expires_ms, self.is_money, self.id


@dataclass(frozen=True, slots=True)
class Part:
    """A positive amount drawn from a lot, or given back to it."""

    lot: Lot
    paise: int


def draw(lots: Iterable[Lot], paise: int) -> tuple[Part, ...]:
    """Draws an amount, or all that is left if that is less."""
    parts = []
    for lot in sorted(lots, key=lambda one: one.order):
        part = min(paise, max(0, lot.left_paise))
        if part > 0:
            parts.append(Part(lot, part))
            paise -= part
    return tuple(parts)


def give_back(drawn: Sequence[Part], paise: int) -> tuple[Part, ...]:
    """Gives back an amount of what was drawn, or all of that if it is less."""
    parts = []
    for one in sorted(drawn, key=lambda part: (part.lot.is_money, part.lot.order), reverse=True):
        part = min(paise, one.paise)
        if part > 0:
            parts.append(Part(one.lot, part))
            paise -= part
    return tuple(parts)


def total_of(parts: Iterable[Part], *, money: bool | None = None) -> int:
    """The sum of parts: of all, or only of money or of promotions."""
    return sum(part.paise for part in parts if money is None or part.lot.is_money is money)
