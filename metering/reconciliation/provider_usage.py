"""What the provider says that we used, against what we measured: by UTC day and model.

It is a report, not a check of the books: the provider may count what we never saw (an answer whose end we did not get,
a request that broke before it began), and `estimated` and `lost` requests say how much of a difference that may be.
Its numbers are passed in; only ours are read here. Raises Unavailable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from core.clock import to_ms
from core.ids import uuid7_floor
from core.postgres.database import Connections
from metering.sql import load

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
_STATEMENT_S = 3600


@dataclass(frozen=True, slots=True)
class Reported:
    """What the provider says of one UTC day and model: the five classes of tokens, in the order of TOKENS."""

    day: date
    model: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One UTC day and model. `requests`, `estimated` and `lost` are ours: all, and those whose counts are not exact."""

    day: date
    model: str
    ours: dict[str, int]
    theirs: dict[str, int]
    requests: int
    estimated: int
    lost: int

    @property
    def difference(self) -> dict[str, int]:
        """What they count and we do not (or, negative, the other way round); only what differs."""
        by = {name: self.theirs[name] - self.ours[name] for name in TOKENS}
        return {name: amount for name, amount in by.items() if amount}

    def as_json(self) -> dict[str, Any]:
        """As it is printed."""
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
    """Every day and model that either side knows, from `first` on for so many days. Days without usage are left out."""
    async with connections.acquire(patient=True) as connection:
        bounds = (_floor(first), _floor(first + timedelta(days=days)))
        rows = await connection.fetch(load("reconcile_provider"), *bounds, timeout=_STATEMENT_S)
    ours = {(row["day"], row["model"]): row for row in rows}
    theirs = {(entry.day, entry.model): entry.tokens for entry in reported}
    return [
        _exposure(day, model, ours.get((day, model)), theirs.get((day, model), (0,) * len(TOKENS)))
        for day, model in sorted(ours.keys() | theirs.keys())
    ]


def _exposure(day: date, model: str, row: Any, theirs: tuple[int, ...]) -> Exposure:
    return Exposure(
        day=day,
        model=model,
        ours={name: row[name] if row else 0 for name in TOKENS},
        theirs=dict(zip(TOKENS, theirs, strict=True)),
        requests=row["requests"] if row else 0,
        estimated=row["estimated"] if row else 0,
        lost=row["lost"] if row else 0,
    )


def _floor(day: date) -> Any:
    return uuid7_floor(to_ms(datetime.fromisoformat(f"{day}T00:00:00+00:00")))
