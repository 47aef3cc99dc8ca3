"""The outermost layer of every request: its id, its log line, and the last net under it.

Whatever escapes the application is a 500 in the one documented shape, and a log line with the traceback; bodies,
keys and texts are in neither.
"""

import logging
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body import BodyTooLarge, ClientLeft
from api.problems import REQUEST_ID, problem_response
from core.ids import uuid7
from core.logs import get_logger

PIECES = "naka.pieces"
"""The server's own `send`, on the scope: what lies between the head and the last write of a stream concerns no layer,
so the relay hands it to the server directly. A layer that does look at every piece takes it off the scope."""

log = get_logger("api.access")
_access = logging.getLogger("api.access")
"""The one beneath it, which can say whether the line is wanted even where nobody called `configure_logs`."""


class RequestContextMiddleware:
    """Gives each request an id (`X-Request-Id`; a metered one has that of its row), bounds bodies, logs one line."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application under this request's id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = str(uuid7())
        scope[PIECES] = send
        structlog.contextvars.bind_contextvars(request_id=scope[REQUEST_ID])
        started = time.perf_counter_ns()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = scope[REQUEST_ID]
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
                duration_us = (time.perf_counter_ns() - started) // 1000
                log.info("request", method=scope["method"], path=scope["path"], status=status, duration_us=duration_us)

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
