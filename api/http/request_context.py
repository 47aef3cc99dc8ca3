"""The outermost middleware: request id, access log, body bounds, and the handler of uncaught errors.

An uncaught error is a 500 problem and a log line with its traceback; neither holds bodies, keys or texts. The access
log names the tenant, the key's prefix, our id of the user and the address. Responses are `no-store` unless they set
`cache-control`.
"""

import asyncio
import logging
import time
from http import HTTPStatus

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.credentials import PRINCIPAL, SECURE
from api.gateway.messages.errors import is_anthropic_path
from api.http.body import ClientLeft
from api.http.body_admission import HOLD, RELEASE, BodyAdmission
from api.http.client_address import client_address
from api.http.problems import REQUEST_ID, logged_path, problem_response
from core.errors import Invalid, NakaError
from core.ids import uuid7
from core.logs import get_logger
from core.tenancy.principal import Principal

RAW_SEND = "naka.raw_send"
"""The scope key of the server's own `send`. Streamed text bypasses the middleware through it; a middleware that must
see every piece removes it."""

DIRECT_WRITE = "naka.direct_write"
"""The scope key of the server's function that writes a piece of a body at once, without a task: `write(piece) -> bool`,
False when the client does not keep up. Valid after the head, while RAW_SEND is on the scope."""

_REFUSAL_DELAY_S = 0.25
"""Each 429 of a route that is not metered waits this long: a caller that sends as fast as it is answered would
otherwise spend the process's time on being refused. The number of its connections is bounded elsewhere."""
_STATIC = "/static/"
"""Public scripts and styles, cached by their ETag."""

log = get_logger("api.access")
_access = logging.getLogger("api.access")
"""The standard library's logger: knows its level even before `configure_logs`."""


class AnswerCut(Exception):
    """An answer failed after its head, and was logged. The server closes the connection without the final chunk."""


class RequestContextMiddleware:
    """Gives each request an id (`X-Request-Id`, the row's id for a metered one), bounds its body, logs one line.

    `secure`: the site is https, whatever scheme a proxy uses towards this server.
    """

    def __init__(self, app: ASGIApp, *, body_admission: BodyAdmission, secure: bool = False) -> None:
        self._app = app
        self._body_admission = body_admission
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application with the request's id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = str(uuid7())
        scope[RAW_SEND] = send
        scope[SECURE] = self._secure
        structlog.contextvars.bind_contextvars(request_id=scope[REQUEST_ID])
        started = time.perf_counter_ns()
        status = 0
        body = self._body_admission.open(scope, receive)
        scope[HOLD], scope[RELEASE] = body.hold, body.release

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                body.release()
                if status == HTTPStatus.TOO_MANY_REQUESTS and not self._body_admission.is_metered(scope):
                    await asyncio.sleep(_REFUSAL_DELAY_S)
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
                    log.exception("request_failed", path=logged_path(scope))
                raise AnswerCut from error
            await problem_response(error, scope)(scope, receive, send_named)
        finally:
            body.release()
            if _access.isEnabledFor(logging.INFO):
                _log_access(scope, status, (time.perf_counter_ns() - started) // 1000)


def _refuse_nul(scope: Scope) -> None:
    """Raises Invalid for a NUL in the URL: Postgres text cannot hold one."""
    if b"%00" in scope["raw_path"] or b"%00" in scope["query_string"]:
        raise Invalid("The URL contains a NUL character.")


def _add_headers(head: Message, scope: Scope) -> None:
    headers = MutableHeaders(scope=head)
    headers["x-request-id"] = scope[REQUEST_ID]
    if is_anthropic_path(scope["path"]):
        headers["request-id"] = scope[REQUEST_ID]  # the name that Anthropic's SDKs read
    if not scope["path"].startswith(_STATIC):
        headers.setdefault("cache-control", "no-store")


def _log_access(scope: Scope, status: int, duration_us: int) -> None:
    principal = scope.get(PRINCIPAL)
    log.info(
        "request",
        method=scope["method"],
        path=logged_path(scope),
        status=status,
        duration_us=duration_us,
        address=client_address(scope),
        **({} if principal is None else _names(principal)),
    )


def _names(principal: Principal) -> dict[str, str]:
    """Whose request it is, without the tenant's name for the user, which may be an e-mail address."""
    return {"tenant": str(principal.tenant_id), "key": principal.key_prefix, "user": str(principal.user_id)}
