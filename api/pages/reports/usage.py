"""`/reports`: usage as figures, a chart and a table with equal totals, and links to the same report as CSV and by API.

A tenant's admin sees its own tenant. A platform admin sees every tenant, or one named in the URL.
"""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.http.parameters import Reads
from api.pages.reports.drill import below
from api.pages.reports.picture import picture
from api.pages.reports.view import PARAMETERS, BadView, Measure, View, quick_ranges, read_view, require_added_up
from api.pages.reports.words import COLUMNS, GROUPS, MEASURES, TABS, narrowed, refusals
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import UsageReader, Visitor
from api.schemas.usage.counts import COST
from api.schemas.usage.reports import Group
from api.services.usage.days import today as operators_today
from api.services.usage.reports import read_figures
from api.services.usage.tags import list_tag_names
from metering.reports.usage_report import ORDERS

router = page_router()
RATED = Measure.RATED
_ROUTE = "/v1/admin/reports/usage"
_PERSONAL = (Group.USER, Group.KEY, Group.MODEL)


@router.get("/reports", dependencies=[Depends(Reads(*PARAMETERS))])
async def usage_page(request: Request, runtime: RuntimeDep, visitor: UsageReader) -> Response:
    """The report of the URL's parameters. For a wrong parameter: the form, with a message."""
    today, is_operator = operators_today(visitor.context), visitor.context.is_platform_admin
    sees_cost = visitor.context.sees_cost
    try:
        view = read_view(request.query_params, today, sees_tenants=is_operator, sees_cost=sees_cost)
        require_added_up(view)
    except BadView as error:
        view = read_view({}, today, sees_tenants=False, sees_cost=False)
        typed = {name: request.query_params.get(name, "")[:20] for name in ("from", "to")}
        shown = {"error": str(error), "typed": typed} | _choices(view, today, visitor)
        return render(request, "reports/usage.html", visitor, status=422, **shown)
    tag_keys = await list_tag_names(visitor.context, view.tenant if is_operator else None)
    report = await read_figures(visitor.context, runtime.reports, view)
    is_priced = report.total.rated_nano_paise != 0
    drawn = await asyncio.to_thread(picture, report, view)  # some ms of CPU, so not on the event loop
    return render(
        request,
        "reports/usage.html",
        visitor,
        error="",
        typed={"from": view.first.isoformat(), "to": view.last.isoformat()},
        report=report,
        picture=drawn,
        narrowed=narrowed(report.names),
        is_priced=is_priced,
        columns=[
            (column, label)
            for column, label in COLUMNS
            if (is_priced or column != RATED) and (sees_cost or column != COST)
        ],
        sees_cost=sees_cost,
        below=below,
        refusals=refusals(report.refusals),
        rate=runtime.settings.paise_per_usd if is_priced and is_operator else None,
        requests=view.requests_url(),
        narrowed_without=lambda field: view.url(**{field: None}),
        api=_api(request, view, report.tenant_id),
        **_choices(view, today, visitor, is_priced=is_priced, tag_keys=tag_keys),
    )


def _choices(
    view: View, today: date, visitor: Visitor, *, is_priced: bool = False, tag_keys: Sequence[str] = ()
) -> dict[str, Any]:
    """The links to other views, each as (label, link, whether it is the view shown)."""
    ranges = [
        (label, view.url(first=first, last=last, **_usual_group(view, first, last)), view.covers(first, last))
        for label, first, last in quick_ranges(today)
    ]
    is_operator, sees_cost = visitor.context.is_platform_admin, visitor.context.sees_cost
    hidden = {measure for measure, is_shown in ((RATED, is_priced), (Measure.COST, sees_cost)) if not is_shown}
    measures = [measure for measure in Measure if measure not in hidden]
    hidden_groups = {Group.TAG, *(() if is_operator else (Group.TENANT,)), *(_PERSONAL if view.tag else ())}
    groups = [group for group in Group if group not in hidden_groups]
    by_tag = () if view.tag or view.is_personal else tag_keys
    return {
        "tabs": TABS,
        "view": view,
        "ranges": ranges,
        "groups": [
            *((f"By {GROUPS[group].lower()}", view.url(group=group), group == view.group) for group in groups),
            *((f"By {key}", view.url(group=Group.TAG, by_tag=key), key == view.by_tag) for key in by_tag),
        ],
        "measures": [(MEASURES[measure], view.url(measure=measure), measure == view.measure) for measure in measures],
        "group_name": view.by_tag or GROUPS[view.group],
        "is_operator": is_operator,
    }


def _usual_group(view: View, first: date, last: date) -> dict[str, Group]:
    """The group to change to: by user for a single day, which has no days to compare; by day for several."""
    if first == last and view.group == Group.DAY and view.tag is None:
        return {"group": Group.USER}
    return {"group": Group.DAY} if view.days == 1 and first != last and view.group == Group.USER else {}


def _api(request: Request, view: View, tenant_id: UUID | None) -> dict[str, str]:
    """The report from the API: the link to a CSV with names, and a `curl` command."""
    asked: dict[str, date | str | UUID | None] = {
        "from": view.first,
        "to": view.last,
        "group_by": view.group_name,
        "tenant_id": tenant_id,
        "user_id": view.user_id,
        "key_id": view.key_id,
        "model": view.model,
        "tag": None if view.tag is None else "=".join(view.tag),
        "order": view.order if view.is_falling and view.order in ORDERS else None,
    }
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return {
        "csv": f"{_ROUTE}?{query}&names=true&format=csv",
        "curl": f"curl -H \"Authorization: Bearer $NAKA_KEY\" '{request.base_url}{_ROUTE.removeprefix('/')}?{query}'",
    }
