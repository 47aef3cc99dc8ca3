"""Usage of one user by day and model, and the requests and ledger entries behind it.

Sums come from the rollup, never from the request rows, and no report is read on the request path. A request is shown
as what it counts for: its row and its entries.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import to_ms
from core.ids import uuid7_floor
from core.postgres.database import Base
from core.postgres.index_pages import HIGHEST, LOWEST, KeysetQuery, Sift, read_page
from metering.adjustments.errors import no_request
from metering.adjustments.measurement import Measurement, Named, effective
from metering.models import COUNT_COLUMNS, UsageDaily, UsageEntry, UsageRequest

_SUMS: list[ColumnElement[Any]] = [
    func.coalesce(func.sum(getattr(UsageDaily, name)), 0).label(name) for name in COUNT_COLUMNS
]


async def own_usage(
    session: AsyncSession, tenant_id: UUID, user_id: UUID, *, first: date, last: date
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Rows (day, model, seven sums) of one user, from the operator's day `first` to `last`, both included."""
    query = (
        select(UsageDaily.day, UsageDaily.model, *_SUMS)
        .where(
            UsageDaily.tenant_id == tenant_id,
            UsageDaily.user_id == user_id,
            UsageDaily.day.between(first, last),
        )
        .group_by(UsageDaily.day, UsageDaily.model)
        .order_by(UsageDaily.day, UsageDaily.model)
    )
    return (await session.execute(query)).all()


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests to list; None means any. `before` is a cursor: only older ids."""

    tenant_id: UUID | None = None
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """A request: its row as it was settled first, what it counts for by now, and how many entries that took."""

    row: Named
    effective: Measurement
    entries: int

    @property
    def id(self) -> UUID:
        """The request's id."""
        return UUID(str(self.row["id"]))


@dataclass(frozen=True, slots=True)
class RequestPage:
    """One page of requests; `next` is the cursor of the following page, None at the end."""

    rows: list[RequestUsage]
    next: UUID | None


async def list_requests(session: AsyncSession, wanted: RequestFilter, *, limit: int) -> RequestPage:
    """Requests, newest first. A page costs the same at any size of the table."""
    found = await read_page(session, _walk_of(wanted), limit=limit)
    return RequestPage(await _with_entries(session, found.mappings), found.next)


async def stream_requests(
    session: AsyncSession, wanted: RequestFilter, *, batch_rows: int
) -> AsyncGenerator[list[RequestUsage], None]:
    """All of them, newest first, some at a time: no snapshot is kept open for as long as the reader takes."""
    while True:
        page = await list_requests(session, wanted, limit=batch_rows)
        if page.rows:
            yield page.rows
        if page.next is None:
            return
        wanted = replace(wanted, before=page.next)


def _walk_of(wanted: RequestFilter) -> KeysetQuery:
    """The index and what is sifted: that of the user, of the tenant, or of all; open requests have their own."""
    fixed = {name: getattr(wanted, name) for name in ("tenant_id", "user_id") if getattr(wanted, name) is not None}
    sift: list[Sift] = []
    if "tenant_id" not in fixed and "user_id" in fixed:
        user_id = fixed.pop("user_id")
        sift.append(lambda columns: columns.user_id == user_id)
    if wanted.key_id is not None:
        sift.append(lambda columns: columns.key_id == wanted.key_id)
    if wanted.model is not None:
        sift.append(lambda columns: columns.model == wanted.model)
    is_open = UsageRequest.state == literal_column("'open'")  # no parameter: the partial index is to fit every plan
    if wanted.state not in (None, "open"):
        sift.append(lambda columns: columns.state == wanted.state)
    lowest, before = _bounds(wanted)
    few = is_open if wanted.state == "open" else None
    return KeysetQuery(UsageRequest, fixed, sift, few, lowest, before)


async def find_request(session: AsyncSession, request_id: UUID, *, tenant_id: UUID | None) -> RequestUsage:
    """By id, within `tenant_id` unless that is None (any tenant). Raises NotFound."""
    query = select(*_columns(UsageRequest)).where(UsageRequest.id == request_id)
    if tenant_id is not None:
        query = query.where(UsageRequest.tenant_id == tenant_id)
    rows = (await session.execute(query)).mappings().all()
    if not rows:
        raise await no_request(session, request_id, tenant_id)
    return (await _with_entries(session, rows))[0]


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries to list, as RequestFilter; times are those of the entries."""

    tenant_id: UUID | None = None
    user_id: UUID | None = None
    request_id: UUID | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None


@dataclass(frozen=True, slots=True)
class EntryPage:
    """As RequestPage."""

    rows: Sequence[Named]
    next: UUID | None


async def list_entries(session: AsyncSession, wanted: EntryFilter, *, limit: int) -> EntryPage:
    """Entries, newest first. A page costs the same at any size of the table."""
    fixed = {name: getattr(wanted, name) for name in ("tenant_id", "user_id") if getattr(wanted, name) is not None}
    sift: list[Sift] = [lambda columns: columns.kind == wanted.kind] if wanted.kind is not None else []
    few = None if wanted.request_id is None else UsageEntry.request_id == wanted.request_id
    if few is not None and wanted.tenant_id is not None:
        few &= UsageEntry.tenant_id == wanted.tenant_id
    if "tenant_id" not in fixed and "user_id" in fixed:
        user_id = fixed.pop("user_id")
        sift.append(lambda columns: columns.user_id == user_id)
    found = await read_page(session, KeysetQuery(UsageEntry, fixed, sift, few, *_bounds(wanted)), limit=limit)
    return EntryPage(found.mappings, found.next)


async def _with_entries(session: AsyncSession, rows: Sequence[Named]) -> list[RequestUsage]:
    """The rows with what their entries make of them, asked for all at once."""
    query = select(*_columns(UsageEntry)).where(
        UsageEntry.tenant_id.in_({row["tenant_id"] for row in rows}),
        UsageEntry.request_id.in_([row["id"] for row in rows]),
    )
    entries: dict[UUID, list[Named]] = {}
    for entry in (await session.execute(query)).mappings():
        entries.setdefault(entry["request_id"], []).append(entry)
    found = [(row, entries.get(row["id"], [])) for row in rows]
    return [RequestUsage(row, effective(row, its), len(its)) for row, its in found]


def _columns(table: type[Base]) -> list[Any]:
    return list(table.__table__.columns)


def _bounds(wanted: RequestFilter | EntryFilter) -> tuple[UUID, UUID]:
    """The ids that were minted from `since` until `until`, and are older than `before`."""
    lowest = LOWEST if wanted.since is None else uuid7_floor(to_ms(wanted.since))
    ends = [] if wanted.until is None else [uuid7_floor(to_ms(wanted.until))]
    return lowest, min([*ends, wanted.before or HIGHEST])
