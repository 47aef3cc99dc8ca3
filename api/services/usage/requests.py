"""Requests: when each was made, how it ended, and what it counts for by now, entries included.

A list costs the same at any size of the table. Streams read it a batch at a time: constant memory, no long snapshot.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.pages import Page, page_of
from api.schemas.usage.corrections import EntryItem
from api.schemas.usage.requests import NamedRequest, RequestDetail, RequestItem, RequestQuery
from api.services.context import ServiceContext
from api.services.usage.days import end_of, start_of
from api.services.usage.subject import Subject, find_subject
from core.postgres.database import Database
from core.tenancy.models import ApiKey, Tenant, User
from core.tenancy.principal import Scope
from metering.reports import requests
from metering.reports.requests import EntryFilter, RequestFilter

BATCH_ROWS = 500
_MOST_ENTRIES = 200


async def list_requests(context: ServiceContext, wanted: RequestQuery, *, size: int) -> Page[RequestItem]:
    """A page of requests, newest first. Raises NotFound for what the query names."""
    async with context.transaction(Scope.TENANT_READ, patient=True) as session:
        _, chosen = await _chosen(context, session, wanted)
        found = await requests.list_requests(session, chosen, limit=size)
    return page_of(found, lambda usage: RequestItem.of(usage).shown(with_cost=context.sees_cost))


async def list_named_requests(
    context: ServiceContext, reports: Database, wanted: RequestQuery, *, size: int
) -> tuple[Subject, Page[NamedRequest]]:
    """A page of requests with the names of users and tenants, and the names of what the query names."""
    async with context.transaction(Scope.TENANT_READ, database=reports, patient=True) as session:
        subject, chosen = await _chosen(context, session, wanted)
        found = await requests.list_requests(session, chosen, limit=size)
        names = await _user_names(session, {usage.row["user_id"] for usage in found.rows})
    return subject, page_of(
        found,
        lambda usage: NamedRequest.of(usage, **names.get(usage.row["user_id"], _UNNAMED)).shown(
            with_cost=context.sees_cost
        ),
    )


async def stream_requests(
    context: ServiceContext, reports: Database, wanted: RequestQuery
) -> AsyncGenerator[list[RequestItem], None]:
    """All requests, newest first, in batches, on a connection of `reports`. Raises NotFound before the first one."""
    async with context.transaction(Scope.TENANT_READ, patient=True) as session:
        _, chosen = await _chosen(context, session, wanted)
    return _batches(context, reports, chosen)


async def find_request(context: ServiceContext, request_id: UUID) -> RequestDetail:
    """A request with its names and entries. Raises NotFound."""
    async with context.transaction(Scope.TENANT_READ, patient=True) as session:
        usage = await requests.find_request(session, request_id, tenant_id=context.tenant_id)
        row = usage.row
        entries = await requests.list_entries(
            session, EntryFilter(tenant_id=row["tenant_id"], request_id=request_id), limit=_MOST_ENTRIES
        )
        names = await _user_names(session, {row["user_id"]})
        key = await session.execute(
            select(ApiKey.name, ApiKey.prefix).where(ApiKey.tenant_id == row["tenant_id"], ApiKey.id == row["key_id"])
        )
    detail = RequestDetail.of(
        usage,
        **names.get(row["user_id"], _UNNAMED),
        key="".join(f"{name} ({prefix}…)" for name, prefix in key),
        asked_model=row["model_asked"],
        modifiers=row["modifiers"],
        changes=[EntryItem.of(entry).shown(with_cost=context.sees_cost) for entry in reversed(entries.rows)],
    )
    return detail.shown(with_cost=context.sees_cost)


async def _chosen(
    context: ServiceContext, session: AsyncSession, wanted: RequestQuery
) -> tuple[Subject, RequestFilter]:
    subject = await find_subject(context, session, wanted)
    return subject, RequestFilter(
        tenant_id=subject.tenant_id,
        user_id=subject.user_id,
        key_id=wanted.key_id,
        model=wanted.model,
        tag=wanted.tag,
        state=wanted.state,
        since=start_of(context, wanted.since),
        until=end_of(context, wanted.until),
        before=wanted.before,
    )


async def _batches(
    context: ServiceContext, reports: Database, chosen: RequestFilter
) -> AsyncGenerator[list[RequestItem], None]:
    async with (
        context.transaction(database=reports, patient=True) as session,
        aclosing(requests.stream_requests(session, chosen, batch_rows=BATCH_ROWS)) as batches,
    ):
        async for batch in batches:
            yield [RequestItem.of(usage).shown(with_cost=context.sees_cost) for usage in batch]


_UNNAMED = {"user": "", "tenant": ""}


async def _user_names(session: AsyncSession, user_ids: Iterable[UUID]) -> dict[UUID, dict[str, str]]:
    query = select(User.id, User.external_id, Tenant.slug).join(Tenant).where(User.id.in_(user_ids))
    return {user: {"user": name, "tenant": slug} for user, name, slug in (await session.execute(query))}
