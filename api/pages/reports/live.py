"""`/reports/live`: the present minute, each second, for as long as somebody looks.

The stream ends with the session (looked at every half minute, and on every reconnection), and at a shutdown, when the
browser finds another process by itself. Postgres away: the view says so, and goes on when it is back.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import cast
from uuid import UUID

import anyio
import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.credentials import authenticate
from api.pages.reports.feed import Feed, Readings
from api.pages.reports.words import LIVE, TABS
from api.pages.route import page_router
from api.pages.site import number, render, usd
from api.pages.visitor import AccountAdmin
from api.routes.access import RuntimeDep, tenant_filter
from api.runtime import Runtime
from core.errors import NakaError, Unavailable
from core.tenancy.principal import Scope
from metering.present import Present, read_present

router = page_router()
RECHECK_S = 30
_GRACE_S = 2
_TIMEOUT_S = 4


@router.get("/reports/live")
async def live_page(request: Request, visitor: AccountAdmin) -> Response:
    """The figures, which the script fills."""
    whose = "all tenants" if visitor.principal.is_platform_admin else visitor.tenant
    return render(request, "reports/live.html", visitor, tabs=TABS, figures=LIVE, whose=whose)


@router.get("/reports/live/events")
async def live_events(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """A reading a second; `away` while there is none, `end` when the session is over."""
    ending = anyio.Event()
    return EventSourceResponse(
        _events(request, runtime, tenant_filter(visitor.principal), ending),
        headers={"cache-control": "no-store, no-transform"},
        shutdown_event=ending,
        shutdown_grace_period=_GRACE_S,
    )


async def _events(
    request: Request, runtime: Runtime, tenant_id: UUID | None, ending: anyio.Event
) -> AsyncGenerator[ServerSentEvent, None]:
    checked = time.monotonic()
    async with aclosing(_feed(request.app, runtime).watch(tenant_id)) as readings:
        async for present in readings:
            if ending.is_set():
                return
            if time.monotonic() - checked >= RECHECK_S:
                checked = time.monotonic()
                if not await _may_look(request, runtime):
                    yield ServerSentEvent(event="end", data="")
                    return
            yield ServerSentEvent(event="away", data="") if present is None else _reading(present)


def _reading(present: Present) -> ServerSentEvent:
    """As numbers for the picture, and as a person reads them."""
    numbers = {name: getattr(present, name) for name, _, _ in LIVE}
    texts = {name: usd(value) if name == "cost_nano_usd" else number(value) for name, value in numbers.items()}
    return ServerSentEvent(data=msgspec.json.encode({"numbers": numbers, "texts": texts}).decode())


async def _may_look(request: Request, runtime: Runtime) -> bool:
    """Whether the session still allows it; nobody is sent away because Postgres does not answer."""
    try:
        (await authenticate(runtime.directory, request.scope, fresh=True)).require(Scope.TENANT_ADMIN)
    except Unavailable:
        return True
    except NakaError:
        return False
    return True


def _feed(app: FastAPI, runtime: Runtime) -> Feed:
    """The one of this process, made when it is first looked at."""
    if not hasattr(app.state, "live_feed"):
        app.state.live_feed = Feed(partial(_read, runtime))
    return cast("Feed", app.state.live_feed)


async def _read(runtime: Runtime, watched: set[UUID | None]) -> Readings:
    longest_ms = runtime.settings.request_deadline_s * 1000
    try:
        async with asyncio.timeout(_TIMEOUT_S), runtime.pool.acquire() as connection:
            return await read_present(connection, watched, longest_ms=longest_ms)
    except TimeoutError as error:
        raise Unavailable("the database does not answer") from error
