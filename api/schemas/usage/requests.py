"""Shapes of requests and of what a list of them is narrowed to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from api.schemas.usage.corrections import EntryItem
from api.schemas.usage.counts import Counts, ListQuery, counts
from metering.counts import COUNT_COLUMNS, LATER_COLUMNS
from metering.reports.requests import RequestUsage

State = Literal["open", "settled", "void"]

_ROW = ("id", "tenant_id", "user_id", "key_id", "state", "upstream_request_id", "opened_at", "settled_at")
_IN_FRONT = ("id", "opened_at", "settled_at", "tenant_id", "user_id", "key_id", "model", "state", "outcome", "source")
_COUNTS = tuple(name for name in COUNT_COLUMNS if name not in LATER_COLUMNS)
CSV_COLUMNS = (*_IN_FRONT, *_COUNTS, "entries", "upstream_request_id", *LATER_COLUMNS, "tags")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuery(ListQuery):
    """A list of requests."""

    state: State | None = None


class RequestItem(Counts):
    """One request: `source` says how the counts are known, `final`, `counted` or `estimated`.

    The counts are what it counts for by now: its first settlement, what other models did for it, better measurements
    that came later, corrections; so many `entries`. A count is below zero where a correction took off more than the
    best measurement came to. `model` is what answered, or while that is not known, what was asked for. `tags` are those
    that it was sent with; keys that begin with `nk:` are Naka's own.
    """

    id: UUID
    tenant_id: UUID
    user_id: UUID
    key_id: UUID | None
    state: State
    outcome: str | None
    source: str | None
    model: str | None
    upstream_request_id: str | None
    opened_at: datetime | None
    settled_at: datetime | None
    entries: int
    tags: dict[str, str]

    @classmethod
    def of(cls, usage: RequestUsage, **more: object) -> Self:
        """The shape of a request; `more` are a subclass's own fields."""
        row, known = usage.row, usage.effective
        return cls.model_validate(
            {
                **{name: row[name] for name in _ROW},
                "outcome": known.outcome,
                "source": known.source,
                "model": known.model or row["model_asked"],
                **counts(known.total),
                "entries": usage.entries,
                "tags": row["tags"] or {},
                **more,
            }
        )


class NamedRequest(RequestItem):
    """A request with the names of its user and tenant; empty for a user that does not exist."""

    user: str
    tenant: str


class RequestDetail(NamedRequest):
    """A request with its key's name and every entry on top of it, oldest first.

    `modifiers` multiply the price of its tokens, as `speed:fast,inference_geo:us`; null for the list price.
    """

    key: str
    asked_model: str | None
    modifiers: str | None
    changes: list[EntryItem]
