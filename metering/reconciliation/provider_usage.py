"""Compares the provider's usage report with measured usage, by UTC day and model.

A report, not a check: the provider may count what we never saw. The numbers of `estimated` and `lost` requests show how
much that may explain. The provider's numbers are passed in. Raises Unavailable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from core.postgres.database import Connections
from metering.counts import TOKEN_COLUMNS
from metering.reconciliation.drifts import first_id
from metering.sql import load

_STATEMENT_S = 3600
COMPARED = (*TOKEN_COLUMNS, "web_searches")
"""The counts that both sides have: the provider's report does not tell thinking from other output."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The provider's usage of one UTC day and model; the counts in the order of COMPARED."""

    day: date
    model: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """The two sides of one UTC day and model. `requests`: ours; `estimated`, `lost`: those without exact counts."""

    day: date
    model: str
    ours: dict[str, int]
    theirs: dict[str, int]
    requests: int
    estimated: int
    lost: int

    @property
    def difference(self) -> dict[str, int]:
        """Their counts minus ours; only those that differ."""
        by = {name: self.theirs[name] - self.ours[name] for name in COMPARED}
        return {name: amount for name, amount in by.items() if amount}

    def as_json(self) -> dict[str, Any]:
        """The row as it is printed."""
        return {
            "day": self.day.isoformat(),
            "model": self.model,
            "ours": self.ours,
            "theirs": self.theirs,
            "difference": self.difference,
            "requests": self.requests,
            "estimated": self.estimated,
            "lost": self.lost,
        }


async def compare_with_provider(
    connections: Connections, reported: Iterable[Reported], first: date, days: int
) -> list[Exposure]:
    """Every day and model with usage on either side, for `days` days from `first` on."""
    async with connections.acquire(patient=True) as connection:
        bounds = (first_id(first), first_id(first + timedelta(days=days)))
        rows = await connection.fetch(load("reconcile_provider"), *bounds, timeout=_STATEMENT_S)
    ours = {(row["day"], row["model"]): row for row in rows}
    theirs = {(entry.day, entry.model): entry.counts for entry in reported}
    none: dict[str, int] = dict.fromkeys((*COMPARED, "requests", "estimated", "lost"), 0)
    return [
        Exposure(
            day=day,
            model=model,
            ours={name: row[name] for name in COMPARED},
            theirs=dict(zip(COMPARED, theirs.get((day, model), (0,) * len(COMPARED)), strict=True)),
            requests=row["requests"],
            estimated=row["estimated"],
            lost=row["lost"],
        )
        for day, model in sorted(ours.keys() | theirs.keys())
        for row in [ours.get((day, model), none)]
    ]
