"""The requests: what was asked when, how it ended, and what it counts for by now, entries included.

As JSON a page at a time; as CSV all of them, streamed in constant memory.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep, TenantAdmin, tenant_filter
from api.routes.admin.scope import confine, reach_key, reach_user
from api.routes.admin.streamed import BATCH_ROWS, Form, StreamedAnswer, as_csv
from api.routes.parameters import Cursor, PageSize, Since, TenantWanted, Until
from api.routes.usage import Counts, counts
from api.schemas.fields import EXAMPLE_ID
from api.schemas.moments import Day, Moment
from api.schemas.pages import DEFAULT_SIZE, Page
from core.clock import to_datetime
from core.errors import NotFound
from core.postgres.database import Database
from core.tenancy.principal import Principal
from metering.models import COUNT_COLUMNS
from metering.quota.windows import Calendar, day_start_ms
from metering.reports.requests import RequestFilter, RequestUsage, list_requests, stream_requests

router = APIRouter()

State = Literal["open", "settled", "void"]
UserWanted = Annotated[UUID | None, Query(alias="user_id", description="Only this one", examples=[EXAMPLE_ID])]
KeyWanted = Annotated[UUID | None, Query(alias="key_id", description="Only this one", examples=[EXAMPLE_ID])]
ModelWanted = Annotated[str | None, Query(description="Only this one", max_length=200, examples=["claude-sonnet-4-6"])]
_IN_FRONT = ("id", "opened_at", "settled_at", "tenant_id", "user_id", "key_id", "model", "state", "outcome", "source")
CSV_COLUMNS = (*_IN_FRONT, *COUNT_COLUMNS, "entries", "upstream_request_id")


class RequestItem(Counts):
    """One request: `source` says how the counts are known, `final`, `counted` or `estimated`.

    The counts are what it counts for by now: its first settlement, better measurements that came later, corrections;
    so many `entries`. A count is below zero where a correction took off more than the best measurement came to.
    `model` is what answered, or while that is not known, what was asked for.
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

    @classmethod
    def of(cls, usage: RequestUsage) -> Self:
        """As it is answered."""
        row, known = usage.row, usage.effective
        shown = ("id", "tenant_id", "user_id", "key_id", "state", "upstream_request_id", "opened_at", "settled_at")
        return cls.model_validate(
            {
                **{name: row[name] for name in shown},
                "outcome": known.outcome,
                "source": known.source,
                "model": known.model or row["model_asked"],
                **counts(known.counts),
                "entries": usage.entries,
            }
        )


@router.get(
    "/requests",
    response_model=Page[RequestItem],
    responses={
        200: {
            "description": "A page of them; as CSV, all",
            "content": {"text/csv": {"schema": {"type": "string"}, "example": "id,opened_at,settled_at,...\r\n"}},
        }
    },
)
async def all_requests(  # noqa: PLR0913 - the filters
    *,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    key_id: KeyWanted = None,
    model: ModelWanted = None,
    state: State | None = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
    form: Form = "json",
) -> Page[RequestItem] | Response:
    """Requests, newest first. As CSV all at once, whatever `limit` says."""
    async with runtime.database.session(tenant_id=tenant_filter(principal), patient=True) as session:
        tenant, user = await confine_to_key(session, principal, tenant_id, user_id, key_id)
        chosen = RequestFilter(
            tenant_id=tenant,
            user_id=user,
            key_id=key_id,
            model=model,
            state=state,
            since=start_of(since, runtime.calendar),
            until=end_of(until, runtime.calendar),
            before=cursor,
        )
        if form == "json":
            found = await list_requests(session, chosen, limit=size)
            items = [RequestItem.of(usage) for usage in found.rows]
            return Page(items=items, next=None if found.next is None else str(found.next))
    lines = as_csv(_lines(runtime.reports, tenant_filter(principal), chosen), CSV_COLUMNS)
    timeout_s = runtime.settings.client_write_timeout_s
    return await StreamedAnswer.begin(lines, "text/csv", write_timeout_s=timeout_s, filename="requests.csv")


async def _lines(
    database: Database, tenant_id: UUID | None, chosen: RequestFilter
) -> AsyncGenerator[list[list[object]], None]:
    async with (
        database.session(tenant_id=tenant_id, patient=True) as session,
        aclosing(stream_requests(session, chosen, batch_rows=BATCH_ROWS)) as batches,
    ):
        async for some in batches:
            items = [RequestItem.of(usage).model_dump(mode="json") for usage in some]
            yield [[item[name] for name in CSV_COLUMNS] for item in items]


async def confine_to_user(
    session: AsyncSession, principal: Principal, tenant_id: UUID | None, user_id: UUID | None
) -> UUID | None:
    """The tenant that a list is about, as `confine`; with a user, the user's. Raises NotFound for either."""
    wanted = await confine(session, principal, tenant_id)
    if user_id is None:
        return wanted
    user = await reach_user(session, principal, user_id)
    if wanted not in (None, user.tenant_id):
        raise NotFound("no such user")
    return user.tenant_id


async def confine_to_key(
    session: AsyncSession, principal: Principal, tenant_id: UUID | None, user_id: UUID | None, key_id: UUID | None
) -> tuple[UUID | None, UUID | None]:
    """The tenant and the user that a list is about; with a key, the key's, because rows are found by their user.

    Raises NotFound for any of them.
    """
    tenant = await confine_to_user(session, principal, tenant_id, user_id)
    if key_id is None:
        return tenant, user_id
    key = await reach_key(session, principal, key_id)
    if tenant not in (None, key.tenant_id) or user_id not in (None, key.user_id):
        raise NotFound("no such key")
    return key.tenant_id, key.user_id


def start_of(bound: Moment | Day | None, calendar: Calendar) -> datetime | None:
    """The moment meant: itself, or the first of the operator's day."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return to_datetime(day_start_ms(bound, calendar.zone))


def end_of(bound: Moment | Day | None, calendar: Calendar) -> datetime | None:
    """The moment before which a request was opened: a day is included whole."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return start_of(bound + timedelta(days=1), calendar)
