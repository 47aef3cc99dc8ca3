"""Usage reports: sums by the groups asked for, as JSON or CSV, streamed from a cursor in constant memory.

A report has no pages, however long it is; a break in the middle cuts the connection, so that nobody takes a part for
the whole. In CSV, a text that a spreadsheet would run as a formula is defused with a leading apostrophe.
"""

import csv
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import date
from io import StringIO
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Row, Select
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.body import ClientLeft
from api.routes.access import RuntimeDep, TenantAdmin
from api.routes.admin.scope import TenantWanted, confine
from api.routes.usage import Counts, FromDay, ToDay, date_range
from core.database import Database
from metering.models import COUNT_COLUMNS
from metering.usage import GROUPS, usage_report

router = APIRouter()
_BATCH_ROWS = 500
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_GROUP = "|".join(GROUPS)
_COLUMNS = {name: name if name in ("model", "day") else f"{name}_id" for name in GROUPS}

GroupBy = Annotated[
    str,
    Query(
        description=f"Any of {', '.join(GROUPS)}, separated by commas; empty for one row, the sum of all",
        pattern=rf"^(?:(?:{_GROUP})(?:,(?:{_GROUP})){{0,9}})?$",
        examples=["tenant,day"],
    ),
]
Form = Annotated[Literal["json", "csv"], Query(alias="format")]
Statement = Select[*tuple[Any, ...]]
Rows = Sequence[Row[*tuple[Any, ...]]]


class ReportRow(Counts):
    """The sums of one group; only the columns of the groups asked for are there."""

    tenant_id: UUID | None = None
    user_id: UUID | None = None
    key_id: UUID | None = None
    model: str | None = None
    day: date | None = None


class Report(BaseModel):
    """All rows; `next` is always null."""

    items: list[ReportRow]
    next: None = None


class StreamedReport(StreamingResponse):
    """Starts once the first rows are there, and closes its transaction however the answer ends."""

    @classmethod
    async def begin(cls, chunks: AsyncGenerator[str, None], media_type: str, headers: dict[str, str]) -> Self:
        """Raises what the query raises, while there still can be a status for it."""
        response = cls(_again(await anext(chunks), chunks), media_type=media_type, headers=headers)
        response._chunks = chunks
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it; a client that leaves ends the query. Raises ClientLeft then, if the server tells."""
        try:
            async with aclosing(self._chunks):
                await super().__call__(scope, receive, send)
        except ClientDisconnect as error:
            raise ClientLeft from error

    _chunks: AsyncGenerator[str, None]


@router.get(
    "/reports/usage",
    response_class=Response,
    responses={
        200: {
            "description": "The report",
            "model": Report,
            "content": {"text/csv": {"schema": {"type": "string"}, "example": "day,requests,input_tokens,...\r\n"}},
        }
    },
)
async def usage_by_group(
    principal: TenantAdmin,
    runtime: RuntimeDep,
    first: FromDay = None,
    last: ToDay = None,
    group_by: GroupBy = "day",
    tenant_id: TenantWanted = None,
    form: Form = "json",
) -> Response:
    """What was used, by the groups asked for. Without a range: this month."""
    first, last = date_range(runtime, first, last)
    async with runtime.database.session() as session:
        wanted = await confine(session, principal, tenant_id)
    groups = [group for group in dict.fromkeys(group_by.split(",")) if group]
    query = usage_report(tenant_id=wanted, first=first, last=last, group_by=groups)
    columns = [_COLUMNS[group] for group in groups] + list(COUNT_COLUMNS)
    headers = {"cache-control": "no-store"}
    if form == "json":
        chunks = _as_json(_batches(runtime.database, query), columns)
        return await StreamedReport.begin(chunks, media_type="application/json", headers=headers)
    headers["content-disposition"] = f'attachment; filename="usage-{first}-{last}.csv"'
    chunks = _as_csv(_batches(runtime.database, query), columns)
    return await StreamedReport.begin(chunks, media_type="text/csv", headers=headers)


async def _batches(database: Database, query: Statement) -> AsyncGenerator[Rows, None]:
    """The rows, some at a time, out of a cursor on the server."""
    async with database.session() as session:
        result = await session.stream(query, execution_options={"yield_per": _BATCH_ROWS})
        async for rows in result.partitions():
            yield rows


async def _as_csv(batches: AsyncGenerator[Rows, None], columns: list[str]) -> AsyncGenerator[str, None]:
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    async with aclosing(batches):
        async for rows in batches:
            writer.writerows([cell(value) for value in row] for row in rows)
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


async def _as_json(batches: AsyncGenerator[Rows, None], columns: list[str]) -> AsyncGenerator[str, None]:
    before = '{"items":['
    async with aclosing(batches):
        async for rows in batches:
            yield before + ",".join(_object(columns, row) for row in rows)
            before = ","
    yield (before if before != "," else "") + '],"next":null}'


def _object(columns: list[str], row: Sequence[Any]) -> str:
    sums = {name: int(value) if name in COUNT_COLUMNS else value for name, value in zip(columns, row, strict=True)}
    return msgspec.json.encode(sums).decode()


def cell(value: object) -> str:
    """A value in CSV. Only texts can be a formula: what is ours (ids, days, sums) never is."""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


async def _again(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    yield first
    async for chunk in rest:
        yield chunk
