"""The outermost layer of every request: its id, its log line, its body's bounds, and the last net under it.

Whatever escapes the application is a 500 in the one documented shape, and a log line with the traceback; bodies,
keys and texts are in neither. The access line says who asked (tenant, key's prefix) and from where. No cache keeps an
answer unless the answer says that one may: nearly all of them are somebody's own.
"""

import logging
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.credentials import PRINCIPAL, SECURE
from api.http.body import ClientLeft
from api.http.body_admission import BodyAdmission
from api.http.client_address import client_address
from api.http.problems import REQUEST_ID, problem_response
from core.errors import Invalid, NakaError
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


class AnswerCut(Exception):
    """An answer broke after its head, and why is logged. The server cuts the connection: nobody takes it for whole."""


class RequestContextMiddleware:
    """Gives each request an id (`X-Request-Id`; a metered one has that of its row), bounds bodies, logs one line.

    `secure`: the site is https, whatever scheme the proxy before this server speaks to it.
    """

    def __init__(self, app: ASGIApp, *, intake: BodyAdmission, secure: bool = False) -> None:
        self._app = app
        self._intake = intake
        self._secure = secure

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
        body = self._intake.open(scope, receive)

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                body.release()
                _add_headers(message, scope)
            await send(message)

        try:
            _refuse_nul(scope)
            await self._app(scope, body, send_named)
        except ClientLeft:
            pass
        except Exception as error:
            if status:
                if not isinstance(error, NakaError):
                    log.exception("request_failed", path=scope["path"])
                raise AnswerCut from error
            await problem_response(error, scope)(scope, receive, send_named)
        finally:
            body.release()
            if _access.isEnabledFor(logging.INFO):
                _log_access(scope, status, (time.perf_counter_ns() - started) // 1000)


def _refuse_nul(scope: Scope) -> None:
    """Raises Invalid for a NUL in the URL, whichever part of it: no text of Postgres can hold one."""
    if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
        raise Invalid("the URL has a NUL in it")


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
