"""Requests, and the ledger entries behind their usage. None is read on the request path.

A request is shown with its effective usage: its row and its entries.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import to_ms
from core.ids import uuid7_floor
from core.postgres.database import Base
from core.postgres.index_pages import HIGHEST, LOWEST, KeysetQuery, Sift, read_page
from metering.adjustments.errors import no_request
from metering.adjustments.measurement import Measurement, effective
from metering.counts import NamedRow
from metering.models import UsageEntry, UsageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    """The rows to list; None means any. `since` and `until`: their creation. `before` is a cursor: only older ids."""

    tenant_id: UUID | None = None
    user_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None

    def query(self, table: type[Base], sift: Sequence[Sift], few: ColumnElement[bool] | None) -> KeysetQuery:
        """The index to walk (of the user, of the tenant, or of all), and the filters on its rows."""
        fixed = {name: getattr(self, name) for name in ("tenant_id", "user_id") if getattr(self, name) is not None}
        if self.tenant_id is None and self.user_id is not None:
            fixed, sift = {}, [*sift, lambda columns: columns.user_id == self.user_id]
        lowest = LOWEST if self.since is None else uuid7_floor(to_ms(self.since))
        ends = [] if self.until is None else [uuid7_floor(to_ms(self.until))]
        return KeysetQuery(table, fixed, sift, few, lowest, min([*ends, self.before or HIGHEST]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter(UsageFilter):
    """The requests to list."""

    key_id: UUID | None = None
    model: str | None = None
    state: str | None = None
    tag: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """A request: its row as it was first settled, its effective usage, and the number of its entries."""

    row: NamedRow
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
    found = await read_page(session, _query_of(wanted), limit=limit)
    return RequestPage(await _with_entries(session, found.mappings), found.next)


async def stream_requests(
    session: AsyncSession, wanted: RequestFilter, *, batch_rows: int
) -> AsyncGenerator[list[RequestUsage], None]:
    """All requests, newest first, in batches: no snapshot stays open for as long as the reader takes."""
    while True:
        page = await list_requests(session, wanted, limit=batch_rows)
        if page.rows:
            yield page.rows
        if page.next is None:
            return
        wanted = replace(wanted, before=page.next)


def _query_of(wanted: RequestFilter) -> KeysetQuery:
    sift: list[Sift] = []
    if wanted.key_id is not None:
        sift.append(lambda columns: columns.key_id == wanted.key_id)
    if wanted.model is not None:
        sift.append(lambda columns: columns.model == wanted.model)
    if wanted.tag is not None:
        key, value = wanted.tag
        sift.append(lambda columns: columns.tags[key].astext == value)
    is_open = UsageRequest.state == literal_column("'open'")  # a literal, so that every plan may use the partial index
    if wanted.state not in (None, "open"):
        sift.append(lambda columns: columns.state == wanted.state)
    return wanted.query(UsageRequest, sift, is_open if wanted.state == "open" else None)


async def find_request(session: AsyncSession, request_id: UUID, *, tenant_id: UUID | None) -> RequestUsage:
    """The request with the id, of `tenant_id` or, if None, of any tenant. Raises NotFound."""
    query = select(*_columns(UsageRequest)).where(UsageRequest.id == request_id)
    if tenant_id is not None:
        query = query.where(UsageRequest.tenant_id == tenant_id)
    rows = (await session.execute(query)).mappings().all()
    if not rows:
        raise await no_request(session, request_id, tenant_id)
    return (await _with_entries(session, rows))[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter(UsageFilter):
    """The entries to list."""

    request_id: UUID | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class EntryPage:
    """One page of entries, like RequestPage."""

    rows: Sequence[NamedRow]
    next: UUID | None


async def list_entries(session: AsyncSession, wanted: EntryFilter, *, limit: int) -> EntryPage:
    """Entries, newest first. A page costs the same at any size of the table."""
    sift: list[Sift] = [lambda columns: columns.kind == wanted.kind] if wanted.kind is not None else []
    few = None if wanted.request_id is None else UsageEntry.request_id == wanted.request_id
    if few is not None and wanted.tenant_id is not None:
        few &= UsageEntry.tenant_id == wanted.tenant_id
    found = await read_page(session, wanted.query(UsageEntry, sift, few), limit=limit)
    return EntryPage(found.mappings, found.next)


async def _with_entries(session: AsyncSession, rows: Sequence[NamedRow]) -> list[RequestUsage]:
    """The rows with their effective usage; one query reads the entries of all."""
    query = select(*_columns(UsageEntry)).where(
        UsageEntry.tenant_id.in_({row["tenant_id"] for row in rows}),
        UsageEntry.request_id.in_([row["id"] for row in rows]),
    )
    entries: dict[UUID, list[NamedRow]] = {}
    for entry in (await session.execute(query)).mappings():
        entries.setdefault(entry["request_id"], []).append(entry)
    found = [(row, entries.get(row["id"], [])) for row in rows]
    return [RequestUsage(row, effective(row, its), len(its)) for row, its in found]


def _columns(table: type[Base]) -> list[Any]:
    return list(table.__table__.columns)
