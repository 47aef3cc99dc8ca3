"""A pricing of the story's own, from the list of its grants and the plan that was in force at each. Pure.

It knows nothing of rows, segments or readings: a window is a month or a cycle by the calendar, and a *deal* is what the
tenant had agreed to when a request was granted.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta


@dataclass(frozen=True)
class Deal:
    """The terms of a plan: units included, whole rupees for each past them, or nothing past them; at most a sum."""

    plan: str
    included: int
    rupees: int = 0
    bills: bool = False
    most_paise: int = 0


UNPRICED = Deal("", 0)
"""Before a tenant has any plan: nothing is included, and nothing is charged."""


@dataclass
class Grants:
    """The deals of each window in order, and the units that were used under each."""

    windows: dict[str, list[tuple[Deal, list[int]]]] = field(default_factory=dict)

    def place(self, window: str, deal: Deal) -> int:
        """The place of a grant under the deal in force."""
        deals = self.windows.setdefault(window, [])
        if not deals or deals[-1][0] != deal:
            deals.append((deal, []))
        return len(deals) - 1

    def use(self, window: str, place: int, units: int) -> None:
        """Counts units where they were granted, whenever that becomes known."""
        self.windows[window][place][1].append(units)

    def paise(self, window: str) -> int:
        """The price of a window: what is included is given once, and a ceiling is of the whole window."""
        inside = cost = 0
        for deal, parts in self.windows[window]:
            units = sum(parts)
            if deal == UNPRICED:
                continue
            left = max(0, deal.included - inside)
            if deal.bills:
                cost += min(max(0, deal.most_paise - cost), max(0, units - left) * deal.rupees * 100)
            inside += min(units, left)
        return cost


def month_later(day: date, anchor: int) -> date:
    """The anchor's day of the next month, or that month's last day."""
    first = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    last = ((first + timedelta(days=32)).replace(day=1) - timedelta(days=1)).day
    return first.replace(day=min(anchor, last))
