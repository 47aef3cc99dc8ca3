"""The measurements of a settled request, and its effective usage. Pure.

The row keeps the first measurement. The *latest* measurement is the row plus its revisions; the *effective* usage is
the row plus all its entries: the latest measurement and admins' corrections.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from metering.counts import NamedRow, UsageCounts
from metering.journal.records import Outcome, Settlement, Source

_RANKS = {Source.ESTIMATED: 1, Source.COUNTED: 2, Source.FINAL: 3}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The usage of a request and its source; both empty for an open request."""

    outcome: str | None
    source: str | None
    model: str | None
    counts: UsageCounts

    @classmethod
    def of(cls, settlement: Settlement) -> "Measurement":
        """The measurement of a settlement."""
        return cls(settlement.outcome.value, settlement.source.value, settlement.model, settlement.counts)

    @property
    def rank(self) -> int:
        """The quality: what a dead process left behind is the worst, then estimated, counted, final."""
        return 0 if self.outcome == Outcome.LOST or self.source is None else _RANKS[Source(self.source)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry to append, in the order of `entry_append.sql`; `metering.models.UsageEntry` describes the kinds."""

    tenant_id: UUID
    id: UUID
    kind: str
    request_id: UUID | None = None
    user_id: UUID
    key_id: UUID
    model: str
    period_id: str
    day: date
    source: str | None = None
    outcome: str | None = None
    actor: str
    actor_key_id: UUID | None = None
    reason: str
    reference: str | None = None
    counts: UsageCounts


def latest(row: NamedRow, entries: Iterable[NamedRow]) -> Measurement:
    """The latest measurement of a request: its row and its revisions, without corrections.

    A revision ranks above everything before it, so the highest rank determines source, outcome and model. A revision
    that only subtracts counts from another model has no source, and determines nothing.
    """
    found = Measurement(row["outcome"], row["source"], row["model"], UsageCounts.of(row))
    for entry in entries:
        if entry["kind"] != "revision":
            continue
        counts = found.counts + UsageCounts.of(entry)
        revised = Measurement(entry["outcome"], entry["source"], entry["model"], counts)
        best = revised if revised.rank > found.rank else found
        found = Measurement(best.outcome, best.source, best.model, counts)
    return found


def effective(row: NamedRow, entries: Iterable[NamedRow]) -> Measurement:
    """The effective usage of a request: the latest measurement plus every correction. It may be below zero."""
    entries = list(entries)
    measured = latest(row, entries)
    counts = measured.counts
    for entry in entries:
        if entry["kind"] == "correction":
            counts += UsageCounts.of(entry)
    return Measurement(measured.outcome, measured.source, measured.model, counts)
