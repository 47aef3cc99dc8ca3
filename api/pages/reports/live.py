"""`/reports/live`: the current minute, updated each second while the page is open.

The stream ends with the session (checked every half minute), when its client reads nothing for
`CLIENT_WRITE_TIMEOUT_S`, and at a shutdown, after which the browser reconnects to another process. Postgres down: the
page says so, and updates again once it is back.
"""

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
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from api.auth.access import RuntimeDep
from api.http.body import ClientLeft
from api.pages.reports.words import LIVE, TABS
from api.pages.route import page_router
from api.pages.site import render
from api.pages.visitor import UsageReader, Visitor
from api.runtime import Runtime
from api.schemas.usage.counts import COST
from api.services.usage.live import LiveFeed, read_live
from core.errors import NakaError, Unavailable
from core.figures import grouped, usd
from core.logs import get_logger
from core.resilience.shares import FairPool
from core.tenancy.principal import Scope as KeyScope
from metering.reports.live_usage import LiveUsage

router = page_router()
RECHECK_S = 30
_GRACE_S = 2

log = get_logger(__name__)


class LiveAnswer(EventSourceResponse):
    """Takes one of the places of live views before its head is sent, and returns it when the stream ends."""

    places: FairPool
    owner: UUID

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it. Raises PoolFull before anything is sent, ClientLeft when the client stops reading."""
        with self.places.take(self.owner):
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError as error:
                log.warning("reader_too_slow", path=scope["path"], timeout_s=self.send_timeout)
                raise ClientLeft from error


@router.get("/reports/live")
async def live_page(request: Request, visitor: UsageReader) -> Response:
    """The page. A script fills in the figures."""
    whose = "all tenants" if visitor.context.is_platform_admin else visitor.tenant
    figures = _figures(sees_cost=visitor.context.sees_cost)
    return render(request, "reports/live.html", visitor, tabs=TABS, figures=figures, whose=whose)


@router.get("/reports/live/events")
async def live_events(request: Request, runtime: RuntimeDep, visitor: UsageReader) -> Response:
    """Sends one reading a second, `away` while Postgres is down, and `end` once the session has ended."""
    ending = anyio.Event()
    answer = LiveAnswer(
        _events(request, runtime, visitor, ending),
        headers={"cache-control": "no-store, no-transform"},
        send_timeout=runtime.settings.client_write_timeout_s,
        shutdown_event=ending,
        shutdown_grace_period=_GRACE_S,
    )
    answer.places, answer.owner = runtime.pools.live, visitor.principal.tenant_id
    return answer


async def _events(
    request: Request, runtime: Runtime, visitor: Visitor, ending: anyio.Event
) -> AsyncGenerator[ServerSentEvent, None]:
    checked, sees_cost = time.monotonic(), visitor.context.sees_cost
    async with aclosing(_feed(request.app, runtime).watch(visitor.context.tenant_id)) as readings:
        async for present in readings:
            if ending.is_set():
                return
            if time.monotonic() - checked >= RECHECK_S:
                checked = time.monotonic()
                if not await _may_look(request, runtime):
                    yield ServerSentEvent(event="end", data="")
                    return
            yield ServerSentEvent(event="away", data="") if present is None else _reading(present, sees_cost=sees_cost)


def _figures(*, sees_cost: bool) -> list[tuple[str, str, str]]:
    return [figure for figure in LIVE if sees_cost or figure[0] != COST]


def _reading(present: LiveUsage, *, sees_cost: bool) -> ServerSentEvent:
    """The event of a reading: numbers for the chart, and the same numbers as texts."""
    numbers = {name: getattr(present, name) for name, _, _ in _figures(sees_cost=sees_cost)}
    texts = {name: usd(value) if name == COST else grouped(value) for name, value in numbers.items()}
    return ServerSentEvent(data=msgspec.json.encode({"numbers": numbers, "texts": texts}).decode())


async def _may_look(request: Request, runtime: Runtime) -> bool:
    """Whether the session may still see the figures. True while Postgres is down, so that an outage ends no stream."""
    try:
        (await runtime.identities.principal_of(request.scope, fresh=True)).require(KeyScope.TENANT_READ)
    except Unavailable:
        return True
    except NakaError:
        return False
    return True


def _feed(app: FastAPI, runtime: Runtime) -> LiveFeed:
    """The feed of this process, created on first use."""
    if not hasattr(app.state, "live_feed"):
        longest_ms = runtime.settings.request_deadline_s * 1000
        app.state.live_feed = LiveFeed(partial(read_live, runtime.pool, longest_ms=longest_ms))
    return cast("LiveFeed", app.state.live_feed)
