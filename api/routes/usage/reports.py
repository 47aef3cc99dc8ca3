"""Usage reports: sums by the groups asked for, as JSON or CSV, streamed. A report has no pages, however long it is."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from api.auth.access import RuntimeDep, TenantContext
from api.routes.parameters import Form, FromDay, KeyWanted, ModelWanted, TenantWanted, ToDay, UserWanted
from api.routes.streamed import StreamedAnswer
from api.schemas.csv_text import as_csv
from api.schemas.usage.reports import Report, UsageQuery, UsageRows
from api.services.usage.reports import stream_usage
from metering.reports.usage_report import GROUPS, ORDERS

router = APIRouter()
_GROUP = "|".join(GROUPS)

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
    context: TenantContext,
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
    """Usage by the groups asked for. Without a range: this month."""
    wanted = UsageQuery(
        first=first,
        last=last,
        group_by=[group for group in group_by.split(",") if group],
        tenant=tenant_id,
        user_id=user_id,
        key_id=key_id,
        model=model,
        order=order,
        top=top,
        named=names,
    )
    report = await stream_usage(context, runtime.reports, wanted)
    timeout_s = runtime.settings.client_write_timeout_s
    if form == "json":
        return await StreamedAnswer.begin(_as_json(report), "application/json", write_timeout_s=timeout_s)
    lines, name = as_csv(report.batches, report.columns), f"usage-{report.first}-{report.last}.csv"
    return await StreamedAnswer.begin(lines, "text/csv", write_timeout_s=timeout_s, filename=name)


async def _as_json(report: UsageRows) -> AsyncGenerator[str, None]:
    before = '{"items":['
    async with aclosing(report.batches) as batches:
        async for rows in batches:
            yield before + ",".join(msgspec.json.encode(report.exact(row)).decode() for row in rows)
            before = ","
    yield (before if before != "," else "") + '],"next":null}'
