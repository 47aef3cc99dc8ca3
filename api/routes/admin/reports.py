"""Usage reports: sums by the groups asked for, as JSON or CSV, streamed from a cursor in constant memory.

Beside U: `errors`, and `price_nano_paise`, what the usage is worth at its plan's own rates past the allowance (docs/
reports.md says what each figure means).

A report has no pages, however long it is.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import date
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy import Row, Select

from api.auth.access import RuntimeDep, TenantAdmin, tenant_filter
from api.routes.admin.requests import KeyWanted, ModelWanted, UserWanted, confine_to_key
from api.routes.admin.streamed import BATCH_ROWS, Form, StreamedAnswer, as_csv
from api.routes.parameters import TenantWanted
from api.routes.usage import Counts, FromDay, ToDay, date_range
from billing.invoicing.report_prices import period_rates
from core.clock import now_ms
from core.postgres.database import Database
from metering.reports.usage_report import GROUPS, ORDERS, PRICE, SUMS
from metering.reports.usage_report import UsageReport as Wanted

router = APIRouter()
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
    async with runtime.database.session(tenant_id=tenant_filter(principal), patient=True) as session:
        tenant, user = await confine_to_key(session, principal, tenant_id, user_id, key_id)
    wanted = Wanted(
        first,
        last,
        [group for group in dict.fromkeys(group_by.split(",")) if group],
        tenant_id=tenant,
        user_id=user,
        key_id=key_id,
        model=model,
        order=order,
        top=top,
        today=runtime.calendar.date_of(now_ms()),
        named=names,
    )
    query = wanted.query(period_rates(tenant))
    columns = [*wanted.columns, PRICE]
    rows = _batches(runtime.reports, tenant_filter(principal), query)
    write_timeout_s = runtime.settings.client_write_timeout_s
    if form == "json":
        chunks, media_type, name = _as_json(rows, columns), "application/json", None
    else:
        chunks, media_type, name = as_csv(rows, columns), "text/csv", f"usage-{first}-{last}.csv"
    return await StreamedAnswer.begin(chunks, media_type, write_timeout_s=write_timeout_s, filename=name)


async def _batches(database: Database, tenant_id: UUID | None, query: Statement) -> AsyncGenerator[Rows, None]:
    """The rows, some at a time, out of a cursor on the server."""
    async with database.session(tenant_id=tenant_id, patient=True) as session:
        result = await session.stream(query, execution_options={"yield_per": BATCH_ROWS})
        async for rows in result.partitions():
            yield rows


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
