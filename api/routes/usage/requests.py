"""The requests: when each was made, how it ended, and what it counts for by now, entries included.

As JSON a page at a time; as CSV all of them, streamed in constant memory.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Response

from api.auth.access import RuntimeDep, UsageContext
from api.routes.parameters import (
    Cursor,
    Form,
    KeyWanted,
    ModelWanted,
    PageSize,
    Since,
    TagWanted,
    TenantWanted,
    Until,
    UserWanted,
)
from api.routes.route import admin_router
from api.routes.streamed import StreamedAnswer
from api.schemas.csv_text import as_csv
from api.schemas.pages import DEFAULT_SIZE, Page
from api.schemas.usage.requests import CSV_COLUMNS, RequestItem, RequestQuery, State
from api.services.usage import requests
from api.services.usage.tags import read_tag

router = admin_router()


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
    context: UsageContext,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    key_id: KeyWanted = None,
    model: ModelWanted = None,
    tag: TagWanted = None,
    state: State | None = None,
    since: Since = None,
    until: Until = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
    form: Form = "json",
) -> Page[RequestItem] | Response:
    """Requests, newest first. As CSV all at once, whatever `limit` says."""
    wanted = RequestQuery(
        tenant=tenant_id,
        user_id=user_id,
        key_id=key_id,
        model=model,
        tag=read_tag(tag) if tag else None,
        state=state,
        since=since,
        until=until,
        before=cursor,
    )
    if form == "json":
        return await requests.list_requests(context, wanted, size=size)
    lines = as_csv(_lines(await requests.stream_requests(context, runtime.reports, wanted)), CSV_COLUMNS)
    timeout_s = runtime.settings.client_write_timeout_s
    return await StreamedAnswer.begin(lines, "text/csv", write_timeout_s=timeout_s, filename="requests.csv")


async def _lines(batches: AsyncGenerator[list[RequestItem], None]) -> AsyncGenerator[list[list[object]], None]:
    async with aclosing(batches):
        async for batch in batches:
            items = [item.model_dump(mode="json") for item in batch]
            yield [[_cell(item[name]) for name in CSV_COLUMNS] for item in items]


def _cell(value: object) -> object:
    """Tags as one text: `conversation=c-42,feature=search`."""
    return ",".join(f"{key}={each}" for key, each in sorted(value.items())) if isinstance(value, dict) else value
