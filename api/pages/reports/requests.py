"""`/reports/requests`: the requests behind the figures, newest first, and a page for each of them.

A tenant's admin sees its own tenant's; all others are not found.
"""

from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.http.parameters import Reads
from api.pages.reports.view import PARAMETERS, BadView, View, quick_ranges, read_id, read_view
from api.pages.reports.words import ENTRIES, OUTCOMES, REQUEST_COUNTS, SOURCES, STATES, TABS, narrowed
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import UsageReader
from api.schemas.usage.counts import COST
from api.schemas.usage.requests import RequestItem, RequestQuery
from api.services.usage import requests
from api.services.usage.days import today as operators_today
from core.clock import to_ms

router = page_router()
_PAGE = 50


@router.get("/reports/requests", dependencies=[Depends(Reads(*PARAMETERS, "cursor"))])
async def requests_page(request: Request, runtime: RuntimeDep, visitor: UsageReader) -> Response:
    """A page of requests; `cursor` starts an older one."""
    asked, today = request.query_params, operators_today(visitor.context)
    try:
        context = visitor.context
        view = read_view(asked, today, sees_tenants=context.is_platform_admin, sees_cost=context.sees_cost)
        before = read_id(asked, "cursor")
    except BadView as error:
        return render(request, "reports/requests.html", visitor, status=422, tabs=TABS, error=str(error))
    wanted = RequestQuery(
        tenant=view.tenant,
        user_id=view.user_id,
        key_id=view.key_id,
        model=view.model,
        tag=view.tag,
        since=view.first,
        until=view.last,
        before=before,
    )
    subject, found = await requests.list_named_requests(visitor.context, runtime.reports, wanted, size=_PAGE)
    return render(
        request,
        "reports/requests.html",
        visitor,
        tabs=TABS,
        error="",
        view=view,
        narrowed=narrowed(subject.names),
        requests=found.items,
        duration=duration,
        older=view.requests_url(cursor=found.next) if found.next is not None else "",
        newest=view.requests_url() if before else "",
        usage=view.usage_url,
        csv=f"/v1/admin/requests?{urlencode(_api_query(view, subject.tenant_id))}",
        ranges=[
            (label, view.requests_url(first=first, last=last), view.covers(first, last))
            for label, first, last in quick_ranges(today)
        ],
        without=lambda field: view.requests_url(**{field: None}),
        outcomes=OUTCOMES,
        states=STATES,
        is_operator=context.is_platform_admin,
        sees_cost=context.sees_cost,
    )


@router.get("/reports/requests/{request_id}")
async def request_page(request: Request, visitor: UsageReader, request_id: UUID) -> Response:
    """One request, and its revisions and corrections."""
    found, sees_cost = await requests.find_request(visitor.context, request_id), visitor.context.sees_cost
    return render(
        request,
        "reports/request.html",
        visitor,
        tabs=TABS,
        found=found,
        duration=duration(found),
        counts=[(column, label) for column, label in REQUEST_COUNTS if sees_cost or column != COST],
        sees_cost=sees_cost,
        outcomes=OUTCOMES,
        states=STATES,
        sources=SOURCES,
        kinds=ENTRIES,
    )


def duration(request: RequestItem) -> str:
    """From the grant to the settlement; empty while it runs."""
    if request.opened_at is None or request.settled_at is None:
        return ""
    tenths = max(0, to_ms(request.settled_at) - to_ms(request.opened_at)) // 100
    minutes, rest = divmod(tenths // 10, 60)
    return f"{minutes} min {rest} s" if minutes else f"{tenths // 10}.{tenths % 10} s"


def _api_query(view: View, tenant_id: UUID | None) -> dict[str, str]:
    """The parameters of the same list by API, as one CSV file."""
    named = {name: value for name, value in view.requests_query().items() if name != "tenant"}
    return named | ({"tenant_id": str(tenant_id)} if tenant_id else {}) | {"format": "csv"}
