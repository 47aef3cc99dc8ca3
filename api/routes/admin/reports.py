"""Usage reports: sums by the groups asked for, as JSON or CSV, streamed from a cursor in constant memory.

Beside U: `errors`, and `price_nano_paise`, what the usage is worth at its plan's own rates past the allowance (docs/
reports.md says what each figure means).

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
from api.routes.admin.fields import EXAMPLE_ID
from api.routes.admin.requests import UserWanted, confine_to_user
from api.routes.admin.scope import TenantWanted, reach_key
from api.routes.usage import Counts, FromDay, ToDay, date_range
from billing.report_prices import period_rates
from core.clock import now_ms
from core.database import Database
from metering.reports import GROUPS, ORDERS, PRICE, SUMS
from metering.reports import Report as Wanted

router = APIRouter()
_BATCH_ROWS = 500
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_GROUP = "|".join(GROUPS)
_NUMBERS = frozenset({*SUMS, PRICE})

GroupBy = Annotated[
    str,
    Query(
        description=f"Any of {', '.join(GROUPS)}, separated by commas; empty for one row, the sum of all",
        pattern=rf"^(?:(?:{_GROUP})(?:,(?:{_GROUP})){{0,9}})?$",
        examples=["tenant,day"],
    ),
]
Form = Annotated[Literal["json", "csv"], Query(alias="format")]
KeyWanted = Annotated[UUID | None, Query(description="Only this one", examples=[EXAMPLE_ID])]
ModelWanted = Annotated[str | None, Query(description="Only this one", max_length=200, examples=["claude-sonnet-4-6"])]
Order = Annotated[
    str | None,
    Query(
        description=f"Most first, by one of {', '.join(ORDERS)}; without it the rows come by their groups",
        pattern=f"^(?:{'|'.join(ORDERS)})$",
        examples=["tokens"],
    ),
]
Top = Annotated[int | None, Query(ge=1, le=10_000, description="At most so many rows", examples=[20])]
Names = Annotated[bool, Query(description="Tenants' slugs, users' external ids, keys' names beside the ids")]
Statement = Select[*tuple[Any, ...]]
Rows = Sequence[Row[*tuple[Any, ...]]]


class ReportRow(Counts):
    """The sums of one group; only the columns of the groups asked for are there, and their names if wanted."""

    tenant_id: UUID | None = None
    tenant_slug: str | None = None
    user_id: UUID | None = None
    external_id: str | None = None
    key_id: UUID | None = None
    key_name: str | None = None
    key_prefix: str | None = None
    model: str | None = None
    day: date | None = None
    month: date | None = None
    errors: int = 0
    price_nano_paise: int = 0


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
async def usage_by_group(  # noqa: PLR0913 - the filters
    *,
    principal: TenantAdmin,
    runtime: RuntimeDep,
    first: FromDay = None,
    last: ToDay = None,
    group_by: GroupBy = "day",
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    key_id: KeyWanted = None,
    model: ModelWanted = None,
    order: Order = None,
    top: Top = None,
    names: Names = False,
    form: Form = "json",
) -> Response:
    """What was used, by the groups asked for. Without a range: this month."""
    first, last = date_range(runtime, first, last)
    async with runtime.database.session() as session:
        tenant = await confine_to_user(session, principal, tenant_id, user_id)
        if key_id is not None:
            await reach_key(session, principal, key_id)
    wanted = Wanted(
        first,
        last,
        [group for group in dict.fromkeys(group_by.split(",")) if group],
        tenant_id=tenant,
        user_id=user_id,
        key_id=key_id,
        model=model,
        order=order,
        top=top,
        today=runtime.calendar.date_of(now_ms()),
        named=names,
    )
    query = wanted.query(period_rates(tenant))
    columns = [*wanted.columns, PRICE]
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
    sums = {name: int(value) if name in _NUMBERS else value for name, value in zip(columns, row, strict=True)}
    return msgspec.json.encode(sums).decode()


def cell(value: object) -> str:
    """A value in CSV. Only texts can be a formula: what is ours (ids, days, sums) never is."""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


async def _again(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    yield first
    async for chunk in rest:
        yield chunk
