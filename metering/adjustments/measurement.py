"""The measurements of a settled request, and its effective usage. Pure.

The row keeps the first measurement of the request's own model; entries of the kind `iteration` keep that of the others.
The *latest* measurement adds the revisions to them; the *effective* usage adds admins' corrections, too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from uuid import UUID

from metering.counts import NamedRow, UsageCounts
from metering.journal.records import Outcome, Settlement, Source

_RANKS = {Source.ESTIMATED: 1, Source.COUNTED: 2, Source.FINAL: 3}
_NOTHING = UsageCounts()


@dataclass(frozen=True, slots=True)
class Measurement:
    """The usage of a request and its source; both empty for an open request.

    `counts` are those of its own `model`, `others` those of each other model that did something for it.
    """

    outcome: str | None
    source: str | None
    model: str | None
    counts: UsageCounts
    others: Mapping[str | None, UsageCounts] = field(default_factory=dict)

    @classmethod
    def of(cls, settlement: Settlement) -> "Measurement":
        """The measurement of a settlement."""
        others: dict[str | None, UsageCounts] = {other.model: other.counts for other in settlement.others}
        return cls(settlement.outcome.value, settlement.source.value, settlement.model, settlement.counts, others)

    @property
    def rank(self) -> int:
        """The quality: what a dead process left behind is the worst, then estimated, counted, final."""
        return 0 if self.outcome == Outcome.LOST or self.source is None else _RANKS[Source(self.source)]

    @property
    def by_model(self) -> dict[str | None, UsageCounts]:
        """The counts of every model, its own included."""
        return {**self.others, self.model: self.counts}

    @property
    def total(self) -> UsageCounts:
        """The counts of all models together."""
        return sum(self.others.values(), self.counts)


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
    """The latest measurement of a request: its row, its iterations and its revisions, without corrections.

    A revision ranks above everything before it, so the highest rank determines source, outcome and model. A revision
    that only changes the counts of another model has no source, and determines nothing.
    """
    best = Measurement(row["outcome"], row["source"], row["model"], UsageCounts.of(row))
    sums: dict[str | None, UsageCounts] = {best.model: best.counts}
    for entry in entries:
        if entry["kind"] not in {"iteration", "revision"}:
            continue
        model = entry["model"] or row["model"]
        sums[model] = sums.get(model, _NOTHING) + UsageCounts.of(entry)
        if entry["kind"] == "revision":
            revised = Measurement(entry["outcome"], entry["source"], model, _NOTHING)
            best = revised if revised.rank > best.rank else best
    others = {model: counts for model, counts in sums.items() if model != best.model and counts != _NOTHING}
    return replace(best, counts=sums[best.model], others=others)


def effective(row: NamedRow, entries: Iterable[NamedRow]) -> Measurement:
    """The effective usage of a request: the latest measurement plus every correction. It may be below zero."""
    entries = list(entries)
    measured = latest(row, entries)
    counts = measured.counts
    for entry in entries:
        if entry["kind"] == "correction":
            counts += UsageCounts.of(entry)
    return replace(measured, counts=counts)
