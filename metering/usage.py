"""Reading usage: a user's own by day and model, and the requests and entries behind it. Reports: `metering.reports`.

Sums come from the rollup, never from the request rows, and no report is read on the request path. A request is shown
as what it counts for: its row and its entries.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import now_ms, to_datetime, to_ms
from core.database import Base
from core.errors import NotFound
from core.ids import uuid7_floor, uuid7_ms
from core.tenancy.models import Tenant
from metering.measurements import Measurement, Named, effective
from metering.models import COUNT_COLUMNS, UsageCheckpoint, UsageDaily, UsageEntry, UsageRequest

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


async def list_requests(session: AsyncSession, wanted: RequestFilter, *, limit: int) -> Sequence[RequestUsage]:
    """Requests, newest first, at most `limit`."""
    return await _with_entries(session, (await session.execute(_wanted(wanted).limit(limit))).mappings().all())


async def stream_requests(
    session: AsyncSession, wanted: RequestFilter, *, batch_rows: int
) -> AsyncGenerator[list[RequestUsage], None]:
    """All of them, newest first, some at a time, out of a cursor on the server."""
    result = await session.stream(_wanted(wanted), execution_options={"yield_per": batch_rows})
    async for rows in result.mappings().partitions():
        yield await _with_entries(session, rows)


def _wanted(wanted: RequestFilter) -> Select[*tuple[Any, ...]]:
    """The rows of requests, newest first."""
    query = select(*_columns(UsageRequest)).order_by(UsageRequest.id.desc())
    for column, value in (
        (UsageRequest.tenant_id, wanted.tenant_id),
        (UsageRequest.user_id, wanted.user_id),
        (UsageRequest.key_id, wanted.key_id),
        (UsageRequest.model, wanted.model),
        (UsageRequest.state, wanted.state),
    ):
        if value is not None:
            query = query.where(column == value)
    return _between(query, UsageRequest.id, wanted.since, wanted.until, wanted.before)


async def find_request(session: AsyncSession, request_id: UUID, *, tenant_id: UUID | None) -> RequestUsage:
    """By id, within `tenant_id` unless that is None (any tenant). Raises NotFound.

    The rows are found by tenant and id; without a tenant, each one's index is asked, which costs a probe a tenant and
    not a scan of a month.
    """
    query = select(*_columns(UsageRequest)).where(UsageRequest.id == request_id)
    if tenant_id is None:
        of_tenant = (UsageRequest.tenant_id == Tenant.id, UsageRequest.id == request_id)
        probe = select(UsageRequest.tenant_id).where(*of_tenant).limit(1).lateral()
        tenant_id = await session.scalar(select(probe.c.tenant_id).select_from(Tenant).join(probe, true()))
    rows = (await session.execute(query.where(UsageRequest.tenant_id == tenant_id))).mappings().all()
    if not rows:
        raise await no_request(session, request_id, tenant_id)
    return (await _with_entries(session, rows))[0]


async def no_request(session: AsyncSession, request_id: UUID, tenant_id: UUID | None) -> NotFound:
    """What to raise for a request that is not there: of a month that was archived only sums are."""
    minted_ms = min(uuid7_ms(request_id), now_ms())  # anybody may ask for any id
    month = to_datetime(minted_ms).date().replace(day=1)
    archived = select(UsageCheckpoint.month).where(UsageCheckpoint.month == month).limit(1)
    if tenant_id is not None:
        archived = archived.where(UsageCheckpoint.tenant_id == tenant_id)
    if await session.scalar(archived) is None:
        return NotFound("no such request")
    return NotFound(f"requests of {month:%B %Y} were archived: their sums are kept, the single ones are not")


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


async def list_entries(session: AsyncSession, wanted: EntryFilter, *, limit: int) -> Sequence[Named]:
    """Entries, newest first, at most `limit`."""
    query = select(*_columns(UsageEntry)).order_by(UsageEntry.id.desc()).limit(limit)
    for column, value in (
        (UsageEntry.tenant_id, wanted.tenant_id),
        (UsageEntry.user_id, wanted.user_id),
        (UsageEntry.request_id, wanted.request_id),
        (UsageEntry.kind, wanted.kind),
    ):
        if value is not None:
            query = query.where(column == value)
    query = _between(query, UsageEntry.id, wanted.since, wanted.until, wanted.before)
    return (await session.execute(query)).mappings().all()


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


def _between(
    query: Select[*tuple[Any, ...]],
    id_column: Any,
    since: datetime | None,
    until: datetime | None,
    before: UUID | None,
) -> Select[*tuple[Any, ...]]:
    """Narrowed to ids that were minted from `since` until `until`, and are older than `before`."""
    if since is not None:
        query = query.where(id_column >= uuid7_floor(to_ms(since)))
    if until is not None:
        query = query.where(id_column < uuid7_floor(to_ms(until)))
    return query if before is None else query.where(id_column < before)
