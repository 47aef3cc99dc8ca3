"""Usage reports: sums by the groups asked for, as JSON or CSV, streamed. A report has no pages, however long it is."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec
from fastapi import Query, Response

from api.auth.access import RuntimeDep, UsageContext
from api.routes.parameters import Form, FromDay, KeyWanted, ModelWanted, TagWanted, TenantWanted, ToDay, UserWanted
from api.routes.route import admin_router
from api.routes.streamed import StreamedAnswer
from api.schemas.csv_text import as_csv
from api.schemas.usage.reports import RefusalsFound, Report, UsageQuery, UsageRows
from api.services.usage.reports import stream_refusals, stream_usage
from api.services.usage.tags import read_tag
from metering.reports.refusals import REFUSAL_GROUPS
from metering.reports.usage_report import GROUPS, ORDERS, TAG_GROUP

router = admin_router()
_GROUP = "|".join([*GROUPS, rf"{TAG_GROUP}(?:nk:token|[a-z0-9][a-z0-9_.-]{{0,39}})"])

GroupBy = Annotated[
    str,
    Query(
        description=f"Any of {', '.join(GROUPS)}, or `tag:` and a key, separated by commas; empty for the sum of all",
        pattern=rf"^(?:(?:{_GROUP})(?:,(?:{_GROUP})){{0,9}})?$",
        examples=["tenant,day"],
    ),
]
_REFUSAL_GROUP = "|".join(REFUSAL_GROUPS)
RefusalGroups = Annotated[
    str,
    Query(
        alias="group_by",
        description=f"Any of {', '.join(REFUSAL_GROUPS)}, separated by commas; empty for one row, the sum of all",
        pattern=rf"^(?:(?:{_REFUSAL_GROUP})(?:,(?:{_REFUSAL_GROUP})){{0,9}})?$",
        examples=["day,code"],
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
    context: UsageContext,
    runtime: RuntimeDep,
    first: FromDay = None,
    last: ToDay = None,
    group_by: GroupBy = "day",
    tenant_id: TenantWanted = None,
    user_id: UserWanted = None,
    key_id: KeyWanted = None,
    model: ModelWanted = None,
    tag: TagWanted = None,
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
        tag=read_tag(tag) if tag else None,
        order=order,
        top=top,
        named=names,
    )
    report = await stream_usage(context, runtime.reports, wanted)
    return await _answer(report, form, "usage", runtime.settings.client_write_timeout_s)


@router.get(
    "/reports/refusals",
    response_class=Response,
    responses={
        200: {
            "description": "The report",
            "model": RefusalsFound,
            "content": {"text/csv": {"schema": {"type": "string"}, "example": "code,requests\r\n"}},
        }
    },
)
async def refusals_by_group(
    *,
    context: UsageContext,
    runtime: RuntimeDep,
    first: FromDay = None,
    last: ToDay = None,
    group_by: RefusalGroups = "code",
    tenant_id: TenantWanted = None,
    form: Form = "json",
) -> Response:
    """Refused requests by the groups asked for; `code` is the error's. Without a range: this month.

    They were never opened, so usage does not have them. Counted some seconds late.
    """
    groups = [group for group in group_by.split(",") if group]
    wanted = UsageQuery(first=first, last=last, group_by=groups, tenant=tenant_id)
    report = await stream_refusals(context, runtime.reports, wanted)
    return await _answer(report, form, "refusals", runtime.settings.client_write_timeout_s)


async def _answer(report: UsageRows, form: str, name: str, timeout_s: float) -> Response:
    if form == "json":
        return await StreamedAnswer.begin(_as_json(report), "application/json", write_timeout_s=timeout_s)
    lines, file = as_csv(report.batches, report.columns), f"{name}-{report.first}-{report.last}.csv"
    return await StreamedAnswer.begin(lines, "text/csv", write_timeout_s=timeout_s, filename=file)


async def _as_json(report: UsageRows) -> AsyncGenerator[str, None]:
    before = '{"items":['
    async with aclosing(report.batches) as batches:
        async for rows in batches:
            yield before + ",".join(msgspec.json.encode(report.exact(row)).decode() for row in rows)
            before = ","
    yield (before if before != "," else "") + '],"next":null}'
