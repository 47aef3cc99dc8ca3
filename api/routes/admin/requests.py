"""The request rows: what was asked when, how it ended, what it cost."""

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query

from api.routes.access import RuntimeDep, TenantAdmin
from api.routes.admin.fields import EXAMPLE_ID, Day, Moment
from api.routes.admin.pages import DEFAULT_SIZE, Cursor, Page, PageSize, page
from api.routes.admin.scope import TenantWanted, confine, reach_user
from api.routes.usage import Counts, counts
from core.clock import to_datetime
from core.errors import NotFound
from metering.models import UsageRequest
from metering.usage import RequestFilter, list_requests
from metering.windows import Calendar, day_start_ms

router = APIRouter()

State = Literal["open", "settled", "void"]
_MOMENT_EXAMPLES = ["2026-11-01T00:00:00Z", "2026-11-01"]
UserWanted = Annotated[UUID | None, Query(alias="user_id", description="Only this one", examples=[EXAMPLE_ID])]
Since = Annotated[
    Moment | Day | None,
    Query(
        alias="from",
        description="Opened at this moment or later; or a day of the operator's time zone",
        examples=_MOMENT_EXAMPLES,
        union_mode="left_to_right",
    ),
]
Until = Annotated[
    Moment | Day | None,
    Query(
        alias="to",
        description="Opened before this moment; or a day of the operator's time zone, included",
        examples=_MOMENT_EXAMPLES,
        union_mode="left_to_right",
    ),
]


class RequestItem(Counts):
    """One request: `source` says how the counts are known, `final`, `counted` or `estimated`.

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

    @classmethod
    def of(cls, row: UsageRequest) -> Self:
        """As it is answered."""
        return cls.model_validate(
            {
                "id": row.id,
                "tenant_id": row.tenant_id,
                "user_id": row.user_id,
                "key_id": row.key_id,
                "state": row.state,
                "outcome": row.outcome,
                "source": row.source,
                "model": row.model or row.model_asked,
                **counts(row),
                "upstream_request_id": row.upstream_request_id,
                "opened_at": row.opened_at,
                "settled_at": row.settled_at,
            }
        )


@router.get("/requests")
async def all_requests(  # noqa: PLR0913 - the filters
    *,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    state: State | None = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[RequestItem]:
    """Requests, newest first."""
    async with runtime.database.session() as session:
        wanted = await confine(session, principal, tenant_id)
        if user_id is not None:
            user = await reach_user(session, principal, user_id)
            if wanted not in (None, user.tenant_id):
                raise NotFound("no such user")
            wanted = user.tenant_id
        chosen = RequestFilter(
            tenant_id=wanted,
            user_id=user_id,
            state=state,
            since=_start(since, runtime.calendar),
            until=_end(until, runtime.calendar),
            before=cursor,
        )
        rows = await list_requests(session, chosen, limit=size + 1)
    return page(rows, size, RequestItem.of)


def _start(bound: Moment | Day | None, calendar: Calendar) -> datetime | None:
    """The moment meant: itself, or the first of the operator's day."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return to_datetime(day_start_ms(bound, calendar.zone))


def _end(bound: Moment | Day | None, calendar: Calendar) -> datetime | None:
    """The moment before which a request was opened: a day is included whole."""
    if bound is None or isinstance(bound, datetime):
        return bound
    return _start(bound + timedelta(days=1), calendar)
