"""`/reports/requests`: the requests behind the figures, newest first, and all that is known of one of them.

A tenant's admin sees the own tenant's; anybody else's are not found. Postgres away: the page that says so.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode
from uuid import UUID

from fastapi import Depends, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep, tenant_filter
from api.http.parameters import Reads
from api.pages.reports.about import About, about
from api.pages.reports.view import PARAMETERS, BadView, View, quick_ranges, read_id, read_view
from api.pages.reports.words import ENTRIES, OUTCOMES, REQUEST_COUNTS, SOURCES, STATES, TABS
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import AccountAdmin
from core.clock import now_ms, to_datetime, to_ms
from core.tenancy.models import ApiKey, Tenant, User
from metering.quota.windows import day_start_ms
from metering.reports.requests import (
    EntryFilter,
    RequestFilter,
    RequestUsage,
    find_request,
    list_entries,
    list_requests,
)

router = page_router()
_PATH = "/reports/requests"
_PAGE = 50
_MOST_ENTRIES = 200


@router.get(_PATH, dependencies=[Depends(Reads(*PARAMETERS, "cursor"))])
async def requests_page(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """A page of them; `cursor` is where an older one starts."""
    asked, today = request.query_params, runtime.calendar.date_of(now_ms())
    try:
        view = read_view(asked, today, sees_tenants=visitor.principal.is_platform_admin)
        before = read_id(asked, "cursor")
    except BadView as error:
        return render(request, "reports/requests.html", visitor, status=422, tabs=TABS, error=str(error))
    zone = runtime.calendar.zone
    async with runtime.reports.session(tenant_id=tenant_filter(visitor.principal), patient=True) as session:
        of = await about(session, visitor.principal, view)
        wanted = RequestFilter(
            tenant_id=of.tenant_id,
            user_id=of.user_id,
            key_id=view.key_id,
            model=view.model,
            since=to_datetime(day_start_ms(view.first, zone)),
            until=to_datetime(day_start_ms(view.last + timedelta(days=1), zone)),
            before=before,
        )
        found = await list_requests(session, wanted, limit=_PAGE)
        shown = found.rows
        names = await _user_names(session, shown)
    return render(
        request,
        "reports/requests.html",
        visitor,
        tabs=TABS,
        error="",
        view=view,
        about=of,
        requests=shown,
        names=names,
        lasted=lasted,
        older=f"{_PATH}?{urlencode(_query(view) | {'cursor': found.next})}" if found.next is not None else "",
        newest=f"{_PATH}?{urlencode(_query(view))}" if before else "",
        usage=view.url(),
        csv=f"/v1/admin/requests?{urlencode(_api_query(view, of))}",
        ranges=[
            (label, f"{_PATH}?{urlencode(_query(replace(view, first=first, last=last)))}", view.covers(first, last))
            for label, first, last in quick_ranges(today)
        ],
        without=lambda field: f"{_PATH}?{urlencode({k: v for k, v in _query(view).items() if k != field})}",
        outcomes=OUTCOMES,
        states=STATES,
        is_operator=visitor.principal.is_platform_admin,
    )


@router.get(f"{_PATH}/{{request_id}}")
async def request_page(request: Request, runtime: RuntimeDep, visitor: AccountAdmin, request_id: UUID) -> Response:
    """One request, and what was learnt or decided about it later."""
    async with runtime.database.session(tenant_id=tenant_filter(visitor.principal), patient=True) as session:
        usage = await find_request(session, request_id, tenant_id=tenant_filter(visitor.principal))
        wanted = EntryFilter(tenant_id=usage.row["tenant_id"], request_id=request_id)
        entries = (await list_entries(session, wanted, limit=_MOST_ENTRIES)).rows
        names = await _user_names(session, [usage])
        key = await _key_name(session, usage)
    return render(
        request,
        "reports/request.html",
        visitor,
        tabs=TABS,
        usage=usage,
        row=usage.row,
        user=names.get(usage.row["user_id"]),
        key=key,
        entries=entries[::-1],
        lasted=lasted(usage),
        counts=REQUEST_COUNTS,
        outcomes=OUTCOMES,
        states=STATES,
        sources=SOURCES,
        kinds=ENTRIES,
    )


def lasted(usage: RequestUsage) -> str:
    """From the grant to the settlement, in words; nothing while it runs."""
    opened, settled = usage.row["opened_at"], usage.row["settled_at"]
    if opened is None or settled is None:
        return ""
    tenths = max(0, to_ms(settled) - to_ms(opened)) // 100
    minutes, rest = divmod(tenths // 10, 60)
    return f"{minutes} min {rest} s" if minutes else f"{tenths // 10}.{tenths % 10} s"


def _api_query(view: View, of: About) -> dict[str, str]:
    """The same list by API, all of it in a file."""
    named = {name: value for name, value in _query(view).items() if name != "tenant"}
    return named | ({"tenant_id": str(of.tenant_id)} if of.tenant_id else {}) | {"format": "csv"}


def _query(view: View) -> dict[str, str]:
    """The days and what they are narrowed to: a list of requests has no groups."""
    return {name: value for name, value in view.query().items() if name not in ("group_by", "measure", "order")}


async def _user_names(session: AsyncSession, found: Sequence[RequestUsage]) -> dict[UUID, tuple[str, str]]:
    """(the user's own name, the tenant's) of the shown rows."""
    query = (
        select(User.id, User.external_id, Tenant.slug)
        .join(Tenant, Tenant.id == User.tenant_id)
        .where(User.id.in_({usage.row["user_id"] for usage in found}))
    )
    return {user_id: (name, slug) for user_id, name, slug in (await session.execute(query))}


async def _key_name(session: AsyncSession, usage: RequestUsage) -> str:
    query = select(ApiKey.name, ApiKey.prefix).where(
        ApiKey.tenant_id == usage.row["tenant_id"], ApiKey.id == usage.row["key_id"]
    )
    found = (await session.execute(query)).one_or_none()
    return f"{found[0]} ({found[1]}…)" if found else ""
