"""The outermost layer of every request: its id, its log line, and the last net under it.

Whatever escapes the application is a 500 in the one documented shape, and a log line with the traceback; bodies,
keys and texts are in neither. The access line says who asked (tenant, key's prefix) and from where. No cache keeps an
answer unless the answer says that one may: nearly all of them are somebody's own.
"""

import logging
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.addresses import client_address
from api.body import BodyTooLarge, ClientLeft
from api.credentials import PRINCIPAL, SECURE
from api.problems import REQUEST_ID, problem_response
from core.ids import uuid7
from core.logs import get_logger

PIECES = "naka.pieces"
"""The server's own `send`, on the scope: what lies between the head and the last write of a stream concerns no layer,
so the relay hands it to the server directly. A layer that does look at every piece takes it off the scope."""

_STATIC = "/static/"
"""Scripts and styles: everybody's, and cached by their ETag."""

log = get_logger("api.access")
_access = logging.getLogger("api.access")
"""The one beneath it, which can say whether the line is wanted even where nobody called `configure_logs`."""


class RequestContextMiddleware:
    """Gives each request an id (`X-Request-Id`; a metered one has that of its row), bounds bodies, logs one line.

    `secure`: the site is https, whatever scheme the proxy before this server speaks to it.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, secure: bool = False) -> None:
        self._app = app
        self._secure = secure
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application under this request's id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = str(uuid7())
        scope[PIECES] = send
        scope[SECURE] = self._secure
        structlog.contextvars.bind_contextvars(request_id=scope[REQUEST_ID])
        started = time.perf_counter_ns()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, scope)
            await send(message)

        try:
            await self._app(scope, self._bounded(receive), send_named)
        except ClientLeft:
            pass
        except BodyTooLarge as error:
            if not status:
                await problem_response(error, scope)(scope, receive, send_named)
        except Exception as error:
            log.exception("request_failed", path=scope["path"])
            if status:
                raise  # the head is out: the server cuts the connection, so that nobody takes it for whole
            await problem_response(error, scope)(scope, receive, send_named)
        finally:
            if _access.isEnabledFor(logging.INFO):
                _log_access(scope, status, (time.perf_counter_ns() - started) // 1000)

    def _bounded(self, receive: Receive) -> Receive:
        left = self._max_body_bytes

        async def receive_bounded() -> Message:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise BodyTooLarge(self._max_body_bytes)
            return message

        return receive_bounded


def _add_headers(head: Message, scope: Scope) -> None:
    headers = MutableHeaders(scope=head)
    headers["x-request-id"] = scope[REQUEST_ID]
    if not scope["path"].startswith(_STATIC):
        headers.setdefault("cache-control", "no-store")


def _log_access(scope: Scope, status: int, duration_us: int) -> None:
    principal = scope.get(PRINCIPAL)
    log.info(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        duration_us=duration_us,
        address=client_address(scope),
        **({} if principal is None else {"tenant": str(principal.tenant_id), "key": principal.key_prefix}),
    )
