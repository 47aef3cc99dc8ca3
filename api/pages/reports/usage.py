"""`/reports`: what was used, as figures, a picture and a table that add up to each other, and how to get at more.

A tenant's admin sees the own tenant; a platform admin all of them, or one that is named. Postgres away: the page that
says so.
"""

import asyncio
from datetime import date
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep, tenant_filter
from api.http.parameters import Reads
from api.pages.reports.about import About, about
from api.pages.reports.drill import below, requests_url
from api.pages.reports.figures import read_report
from api.pages.reports.picture import picture
from api.pages.reports.view import PARAMETERS, BadView, Group, Measure, View, quick_ranges, read_view
from api.pages.reports.words import COLUMNS, GROUPS, MEASURES, TABS
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import AccountAdmin, Visitor
from billing.invoicing.report_prices import billed
from core.clock import now_ms
from metering.reports.usage_report import ORDERS

router = page_router()
PRICE = Measure.PRICE
_ROUTE = "/v1/admin/reports/usage"


@router.get("/reports", dependencies=[Depends(Reads(*PARAMETERS))])
async def usage_page(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """The report that the URL asks for, or in words why there is none."""
    today = runtime.calendar.date_of(now_ms())
    try:
        view = read_view(request.query_params, today, sees_tenants=visitor.principal.is_platform_admin)
    except BadView as error:
        view = read_view({}, today, sees_tenants=False)
        typed = {name: request.query_params.get(name, "")[:20] for name in ("from", "to")}
        said = {"error": str(error), "typed": typed} | _choices(view, today, visitor)
        return render(request, "reports/usage.html", visitor, status=422, **said)
    async with runtime.reports.session(tenant_id=tenant_filter(visitor.principal), patient=True) as session:
        of = await about(session, visitor.principal, view)
        report = await read_report(session, view, of.tenant_id, today=today)
        is_operator = visitor.principal.is_platform_admin and not view.is_narrowed
        asked = await billed(session, runtime.calendar.zone, view.first, view.last, of.tenant_id) if is_operator else {}
    is_priced = report.total.price_nano_paise != 0
    drawn = await asyncio.to_thread(picture, report, view)  # some 10 ms of CPU, which are not the event loop's
    return render(
        request,
        "reports/usage.html",
        visitor,
        error="",
        typed={"from": view.first.isoformat(), "to": view.last.isoformat()},
        report=report,
        billed=sum(asked.values()),
        picture=drawn,
        about=of,
        is_priced=is_priced,
        columns=[(column, label) for column, label in COLUMNS if is_priced or column != PRICE],
        below=below,
        rate=runtime.settings.paise_per_usd if is_priced and visitor.principal.is_platform_admin else None,
        requests=requests_url(view),
        narrowed_without=lambda field: view.url(**{field: None}),
        api=_api(request, view, of),
        **_choices(view, today, visitor, is_priced=is_priced),
    )


def _choices(view: View, today: date, visitor: Visitor, *, is_priced: bool = False) -> dict[str, Any]:
    """What else could be looked at: (label, link, whether it is this)."""
    ranges = [
        (label, view.url(first=first, last=last, **_usual_group(view, first, last)), view.covers(first, last))
        for label, first, last in quick_ranges(today)
    ]
    measures = [measure for measure in Measure if is_priced or measure != PRICE]
    groups = [group for group in Group if visitor.principal.is_platform_admin or group != Group.TENANT]
    return {
        "tabs": TABS,
        "view": view,
        "ranges": ranges,
        "groups": [(f"By {GROUPS[group].lower()}", view.url(group=group), group == view.group) for group in groups],
        "measures": [(MEASURES[measure], view.url(measure=measure), measure == view.measure) for measure in measures],
        "group_name": GROUPS[view.group],
        "is_operator": visitor.principal.is_platform_admin,
    }


def _usual_group(view: View, first: date, last: date) -> dict[str, Group]:
    """One day has no days to compare: its users are what is of interest; and the other way around."""
    if first == last and view.group == Group.DAY:
        return {"group": Group.USER}
    return {"group": Group.DAY} if view.days == 1 and first != last and view.group == Group.USER else {}


def _api(request: Request, view: View, of: About) -> dict[str, str]:
    """The same by API: a link to the CSV, with names for a person, and a line for a shell."""
    asked: dict[str, date | str | UUID | None] = {
        "from": view.first,
        "to": view.last,
        "group_by": view.group.value,
        "tenant_id": of.tenant_id,
        "user_id": view.user_id,
        "key_id": view.key_id,
        "model": view.model,
        "order": view.order if view.is_falling and view.order in ORDERS else None,
    }
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return {
        "csv": f"{_ROUTE}?{query}&names=true&format=csv",
        "curl": f"curl -H \"Authorization: Bearer $NAKA_KEY\" '{request.base_url}{_ROUTE.removeprefix('/')}?{query}'",
    }
