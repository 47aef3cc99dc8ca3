"""The HTTP/1.1 protocol of a client connection: uvicorn's, with problems as its own errors and a graceful shutdown.

During a shutdown each answer closes its connection. A request that arrives too late, or is cancelled before its answer
began, gets a 503 with `Retry-After`. A handshake for a WebSocket on one of `SOCKET_PATHS` hands the connection over to
`api.http.websocket`; on any other path it is an ordinary request.
"""

import asyncio
from collections.abc import Iterable
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from api.gateway.stream_errors import fault
from api.http.client_timeouts import LINGER_S, TimedProtocol
from api.http.connection_limits import ConnectionLimits
from api.http.problems import REQUEST_ID, logged_path, problem_response
from api.http.request_context import DIRECT_WRITE, AnswerCut
from core.ids import uuid7
from core.logs import get_logger

SOCKET_PATHS = frozenset({b"/chat"})
_MAX_HEAD_BYTES = 64 * 1024

log = get_logger(__name__)


class Phase(IntEnum):
    """The phase of the shutdown."""

    SERVING = 0
    DRAINING = 1
    CLOSING = 2
    ENDING = 3


class State(ServerState):
    """State shared by the server and its connections."""

    def __init__(self, connection_limits: ConnectionLimits) -> None:
        super().__init__()
        self.phase = Phase.SERVING
        self.connection_limits = connection_limits


class NakaProtocol(TimedProtocol):
    """HTTP/1.1 with problems as its own errors, a bounded request head, and a graceful shutdown."""

    server_state: State

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_limits = self.server_state.connection_limits
        self._in_head = True
        self._head_bytes = 0
        self._latest: RequestResponseCycle | None = None
        self._running: RequestResponseCycle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the running request, too: uvicorn tells only the latest of a pipeline."""
        super().connection_lost(exc)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parses; refuses a head of more than `_MAX_HEAD_BYTES`."""
        if self.is_refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.BAD_REQUEST)

    def on_message_begin(self) -> None:
        """Starts counting the bytes of a head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Ends the head. During a shutdown the answer closes the connection."""
        self._in_head = False
        super().on_headers_complete()
        self._latest = self.cycle
        if self._upgrades():
            return
        if self.server_state.phase is not Phase.SERVING:
            self.cycle.keep_alive = False

    def _should_upgrade(self) -> bool:
        """Whether the request is a handshake that the application may accept, and no earlier one is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return (
            super()._should_upgrade()
            and self.url.partition(b"?")[0] in SOCKET_PATHS
            and self.parser.get_method() == b"GET"
            and self.parser.get_http_version() == "1.1"
            and (cycle is None or cycle.response_complete)
        )

    def _upgrades(self) -> bool:
        return bool(self.parser.should_upgrade()) and self._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """Hands the connection over, with its count."""
        super().handle_websocket_upgrade()
        self.transport.get_protocol().adopt(self._address)  # type: ignore[attr-defined]
        self._address = None

    def send_400_response(self, msg: str) -> None:
        """Answers an unparsable request and closes. `msg` is the parser's and is not shown."""
        del msg
        self._answer_by_itself(HTTPStatus.BAD_REQUEST)
        self.transport.close()

    def answer_timeout(self) -> None:
        """Answers an incomplete request with a 408."""
        self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def end_keep_alive(self) -> None:
        """Makes an answer whose head is not yet sent the connection's last."""
        if self._latest is not None and not self._latest.response_started:
            self._latest.keep_alive = False

    def end_if_idle(self, *, patient: bool) -> None:
        """Closes now, or after the answer being sent. `patient`: not while a request may be arriving."""
        if self._latest is not None and not self._latest.response_complete:
            self._latest.keep_alive = False
        elif not (patient and self._in_head):
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, partial(self._answer, cycle, app))

    async def _answer(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Runs the application; sends a 503 for a request that is too late, or cancelled before its answer began."""
        if self.server_state.phase is Phase.ENDING:
            await _refuse(scope, receive, send)
            return
        scope[DIRECT_WRITE] = _DirectWrite(cycle)
        try:
            await app(scope, receive, send)
            if cycle.response_started and not cycle.response_complete:
                self.transport.abort()  # the client does not read: a close would wait for it
        except asyncio.CancelledError:
            if cycle.response_started:
                self.transport.close()  # without the final chunk, so that no client takes it for complete
            else:
                await _refuse(scope, receive, send)
        except AnswerCut:
            self.transport.close()
        except Exception as error:
            if cycle.response_started:
                log.exception("request_failed", path=logged_path(scope))
                self.transport.close()  # as above
            else:
                await _answer_with(error, scope, receive, send)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers, then drops further input for `LINGER_S` before closing."""
        self.is_refused = True
        self._answer_by_itself(status)
        self.loop.call_later(LINGER_S, self.transport.close)

    def _answer_by_itself(self, status: HTTPStatus) -> None:
        path = (self.scope or {}).get("path", "")  # none before the head's end
        self.transport.write(raw_answer(HTTPException(status), path, self.server_state.default_headers))


def raw_answer(error: Exception, path: str, default_headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns the bytes of an error's answer, which closes the connection."""
    scope = {REQUEST_ID: str(uuid7()), "path": path}
    response = problem_response(error, scope)
    response.headers["x-request-id"] = scope[REQUEST_ID]
    lines = [
        b"HTTP/1.1 %d %b" % (response.status_code, HTTPStatus(response.status_code).phrase.encode()),
        *(name + b": " + value for name, value in default_headers),
        *(name + b": " + value for name, value in response.raw_headers),
        b"connection: close",
        b"",
        bytes(response.body),
    ]
    return b"\r\n".join(lines)


class _DirectWrite:
    """Writes pieces of a body after the head, as uvicorn's `send` does, but without a task."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def __call__(self, piece: bytes) -> bool:
        """Writes a piece, and returns whether the client keeps up. A piece for a client that has left is dropped."""
        cycle = self._cycle
        if cycle.disconnected:
            return True
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if cycle.chunked_encoding else piece)
        return not cycle.flow.write_paused


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await _answer_with(fault("shutting_down"), scope, receive, send)


async def _answer_with(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = scope.setdefault(REQUEST_ID, str(uuid7()))
    response = problem_response(error, scope)
    response.headers["x-request-id"] = request_id
    await response(scope, receive, send)
