"""Reading usage: a user's own by day and model, the requests behind it, and reports for admins.

Sums come from the rollup, never from the request rows, and no report is read on the request path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import to_ms
from core.ids import uuid7_floor
from metering.models import COUNT_COLUMNS, UsageDaily, UsageRequest

_SUMS: list[ColumnElement[Any]] = [
    func.coalesce(func.sum(getattr(UsageDaily, name)), 0).label(name) for name in COUNT_COLUMNS
]
GROUPS: dict[str, ColumnElement[Any]] = {
    "tenant": UsageDaily.tenant_id.label("tenant_id"),
    "user": UsageDaily.user_id.label("user_id"),
    "key": UsageDaily.key_id.label("key_id"),
    "model": UsageDaily.model.label("model"),
    "day": UsageDaily.day.label("day"),
}
"""What a report can be grouped by."""


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


def usage_report(
    *, tenant_id: UUID | None, first: date, last: date, group_by: Sequence[str]
) -> Select[*tuple[Any, ...]]:
    """The query of a report: the groups asked for, then the seven sums. `tenant_id` None: every tenant's."""
    groups = [GROUPS[name] for name in group_by]
    query = select(*groups, *_SUMS).where(UsageDaily.day.between(first, last))
    if tenant_id is not None:
        query = query.where(UsageDaily.tenant_id == tenant_id)
    return query.group_by(*groups).order_by(*groups) if groups else query


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests to list; None means any. `before` is a cursor: only older ids."""

    tenant_id: UUID | None = None
    user_id: UUID | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None


async def list_requests(session: AsyncSession, wanted: RequestFilter, *, limit: int) -> Sequence[UsageRequest]:
    """Request rows, newest first, at most `limit`."""
    query = select(UsageRequest).order_by(UsageRequest.id.desc()).limit(limit)
    for column, value in (
        (UsageRequest.tenant_id, wanted.tenant_id),
        (UsageRequest.user_id, wanted.user_id),
        (UsageRequest.state, wanted.state),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.since is not None:
        query = query.where(UsageRequest.id >= uuid7_floor(to_ms(wanted.since)))
    if wanted.until is not None:
        query = query.where(UsageRequest.id < uuid7_floor(to_ms(wanted.until)))
    if wanted.before is not None:
        query = query.where(UsageRequest.id < wanted.before)
    return (await session.scalars(query)).all()
