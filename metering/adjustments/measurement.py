"""What is known of a settled request: how it was measured last, and what it counts for. Pure.

The row has the first measurement, for ever. The *latest* measurement is the row plus its revisions; the *effective*
usage is the row plus all its entries: what was measured last, and what admins decided on top of it.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import date
from typing import Any, Protocol
from uuid import UUID

from metering.journal.records import Outcome, Settlement, Source
from metering.pricing.tokens import Usage

_RANKS = {Source.ESTIMATED: 1, Source.COUNTED: 2, Source.FINAL: 3}


class Named(Protocol):
    """A row that is asked by the names of its columns: asyncpg's, or a mapping of SQLAlchemy's."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Counts:
    """The seven counts, or a signed difference of them."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost_nano_usd: int = 0

    @classmethod
    def of(cls, row: Named) -> "Counts":
        """Of a row that has a column for each."""
        return cls(*(int(row[name]) for name in COUNT_NAMES))

    @property
    def usage(self) -> Usage:
        """The five token classes."""
        return Usage(*self.values[1:6])

    @property
    def values(self) -> tuple[int, ...]:
        """The seven numbers in their order."""
        return tuple(getattr(self, name) for name in COUNT_NAMES)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    def __sub__(self, other: "Counts") -> "Counts":
        return self + -other

    def __neg__(self) -> "Counts":
        return Counts(*(-value for value in self.values))


COUNT_NAMES = tuple(field.name for field in fields(Counts))


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a request came to, and how that is known. Of an open request: nothing yet."""

    outcome: str | None
    source: str | None
    model: str | None
    counts: Counts

    @classmethod
    def of(cls, settlement: Settlement) -> "Measurement":
        """What a settlement says."""
        numbers = (settlement.requests, *astuple(settlement.usage), settlement.cost_nano_usd)
        return cls(settlement.outcome.value, settlement.source.value, settlement.model, Counts(*numbers))

    @property
    def rank(self) -> int:
        """How good it is: what a dead process left behind is the worst, then estimated, counted, final."""
        return 0 if self.outcome == Outcome.LOST or self.source is None else _RANKS[Source(self.source)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry as it is appended; `metering.models.UsageEntry` says what each kind is."""

    tenant_id: UUID
    id: UUID
    kind: str
    user_id: UUID
    key_id: UUID
    model: str
    period_id: str
    day: date
    actor: str
    reason: str
    counts: Counts
    request_id: UUID | None = None
    source: str | None = None
    outcome: str | None = None
    actor_key_id: UUID | None = None
    reference: str | None = None


def latest(row: Named, entries: Iterable[Named]) -> Measurement:
    """The best measurement of a request: its row and its revisions, without corrections.

    A revision ranks above what was known before it, so the one of the highest rank says source, outcome and model.
    One that only takes counts away from another model names no source, and says nothing else.
    """
    found = Measurement(row["outcome"], row["source"], row["model"], Counts.of(row))
    for entry in entries:
        if entry["kind"] != "revision":
            continue
        counts = found.counts + Counts.of(entry)
        said = Measurement(entry["outcome"], entry["source"], entry["model"], counts)
        best = said if said.rank > found.rank else found
        found = Measurement(best.outcome, best.source, best.model, counts)
    return found


def effective(row: Named, entries: Iterable[Named]) -> Measurement:
    """What a request counts for: the latest measurement, and every correction on top. It may be below zero."""
    entries = list(entries)
    measured = latest(row, entries)
    counts = measured.counts
    for entry in entries:
        if entry["kind"] == "correction":
            counts += Counts.of(entry)
    return Measurement(measured.outcome, measured.source, measured.model, counts)
