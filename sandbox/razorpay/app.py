"""The simulator as an ASGI app: `/v1` for the merchant, `/_sim` for the test, `/rzp/...` for the payer.

An effect is complete before the answer is sent, so a lost answer changes nothing. A call is checked in Razorpay's
order: path, key, method, then the rest.
"""

import asyncio
import base64
import hmac
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from sandbox.razorpay import pages
from sandbox.razorpay.account import Account, open_account
from sandbox.razorpay.calendar import DAY_S
from sandbox.razorpay.controls import Controls
from sandbox.razorpay.faults import Fault
from sandbox.razorpay.refusals import NO_ROUTE, Json, Refused, not_found
from sandbox.razorpay.router import Call, Handler, Router
from sandbox.razorpay.routes import ROUTES
from sandbox.razorpay.state import Keeper, load

_MAX_BODY_BYTES = 1 << 20
_BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body>"


class CutError(Exception):
    """Closes the connection without an answer."""


class Simulator(Starlette):
    """The ASGI app with its state."""

    def __init__(self, account: Account, keeper: Keeper | None = None) -> None:
        """`saver` writes the state file."""
        super().__init__(lifespan=self._live)
        self.account, self._keeper = account, keeper
        self._api, self._sim = Router(ROUTES), Router(Controls(account).table())
        credentials = f"{account.key_id}:{account.books.key_secret}".encode()
        self._authorization = b"Basic " + base64.b64encode(credentials)

    @asynccontextmanager
    async def _live(self, _app: Starlette) -> AsyncIterator[None]:
        """Delivers webhooks, advances time and saves while the app runs."""
        tasks = [asyncio.create_task(self.account.postman.run(self.account.tick))]
        if self._keeper is not None:
            tasks.append(asyncio.create_task(self._keeper.run()))
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._keeper is not None:
            self._keeper.save()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request; lifespan goes to Starlette."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        if not self.account.books.base_url:
            self.account.books.base_url = str(request.base_url).rstrip("/")
        try:
            response = await self._answer(request)
        except CutError:
            _cut(send)
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if path.startswith("/v1/"):
            return await self._merchant(request)
        if path.startswith("/_sim/"):
            found = self._sim.find(request.method, path)
            if found is None or found[1] is None:
                return JSONResponse(NO_ROUTE, 404)
            return await self._serve(request, "", found[1], found[2])
        if path.startswith("/rzp/"):
            code = path.removeprefix("/rzp/")
            now = self.account.tick()
            if request.method == "POST":
                return pages.act(self.account.books, code, await request.body(), now)
            return pages.show(self.account.books, code)
        return await self._front(request) if path == "/" else JSONResponse(NO_ROUTE, 404)

    async def _front(self, request: Request) -> Response:
        """`/`: an overview page that can advance time."""
        if request.method != "POST":
            return pages.front(self.account.books, self.account.tick())
        days = pages.days_of(await request.body())
        await self.account.move(self.account.clock.now() + days * DAY_S)
        return RedirectResponse("/", status_code=303)

    async def _merchant(self, request: Request) -> Response:
        """A call of `/v1`, with the faults ordered for it."""
        found = self._api.find(request.method, request.url.path)
        if found is None:
            return JSONResponse(NO_ROUTE, 404)
        sent = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(sent, self._authorization):
            return _refusal(Refused("Authentication failed", status=401))
        name, handler, ids = found
        if handler is None:
            return _refusal(not_found())
        entry: Json = {"route": name, "path": request.url.path, "at": self.account.tick(), "status": None}
        self.account.calls.append(entry)
        await request.body()  # a slow call has its effect even after the caller left
        faults, books = self.account.faults.on_answer(name), self.account.books
        response = await _strike(faults, "before")
        if self.account.books is not books:
            raise CutError  # reset while it waited: no effect on the new state
        if response is None:
            response = await self._serve(request, name, handler, ids)
            response = await _strike(faults, "after") or response
        entry["status"] = response.status_code
        return response

    async def _serve(self, request: Request, name: str, handler: Handler, ids: tuple[str, ...]) -> Response:
        """Runs the handler without interruption."""
        try:
            body = _parsed(await request.body())
            now = self.account.tick()
            call = Call(
                books=self.account.books,
                now=now,
                ids=ids,
                body=body,
                query=dict(request.query_params),
                headers=request.headers,
                hidden_after=now - self.account.faults.lag_s(name),
            )
            result: Any = handler(call)
            if inspect.isawaitable(result):
                result = await result
        except Refused as refused:
            return _refusal(refused)
        return JSONResponse(result)


def _parsed(raw: bytes) -> Json:
    """The body as an object; empty without a body."""
    if len(raw) > _MAX_BODY_BYTES:
        raise Refused("The request is too large", status=413)
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Refused("The request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise Refused("The request body must be an object")
    return body


def _refusal(refused: Refused) -> Response:
    return JSONResponse({"error": refused.error}, refused.status)


async def _strike(faults: list[Fault], when: str) -> Response | None:
    """The answer of a fault at this stage, if any; raises CutError."""
    for fault in faults:
        if fault.when != when:
            continue
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.kind == "cut":
            raise CutError
        if fault.kind == "html":
            return HTMLResponse(_BAD_GATEWAY, fault.status or 502)
        if fault.kind == "throttle":
            return _refusal(Refused("Too many requests", status=429))
        if fault.kind == "error":
            error = {"code": fault.code, "description": fault.description}
            return JSONResponse({"error": error}, fault.status or 500)
    return None


def _cut(send: Send) -> None:
    """Closes the connection; on servers other than uvicorn by an exception."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionAbortedError("ordered cut")
    transport.abort()


def create_app(
    key_id: str,
    key_secret: str,
    *,
    webhook_url: str | None = None,
    webhook_secret: str = "",
    start: int | None = None,
    base_url: str = "",
    clock_file: Path | None = None,
    state_file: Path | None = None,
) -> Simulator:
    """Creates a simulator with one key. `start`: its clock's start; `base_url`: prefix of its pages.

    `clock_file` holds the offset of its clock, `state_file` its state. Raises ValueError for invalid ones.
    """
    account = open_account(
        key_id,
        key_secret,
        webhook_url=webhook_url,
        webhook_secret=webhook_secret,
        start=start,
        base_url=base_url,
        clock_file=clock_file,
    )
    if state_file is None:
        return Simulator(account)
    load(account, state_file)
    return Simulator(account, Keeper(account, state_file))
