"""uvicorn as Naka runs it: what is not HTTP at all is refused in the same one shape as every other error."""

import socket
from http import HTTPStatus
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import REQUEST_ID, problem_of
from core.ids import uuid7

_GRACE_S = 30
_KEEP_ALIVE_S = 75  # longer than the usual 60 s of a load balancer, which must be the one to close
_BACKLOG = 2048
_MAX_HEAD_BYTES = 64 * 1024
_LINGER_S = 1


class AddressTaken(Exception):
    """Something else listens there, or it is not an address of this machine."""


class NakaProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose own refusals are problems too, and whose request heads have an end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._refused = False

    def data_received(self, data: bytes) -> None:
        """Parses; a head that is not whole after `_MAX_HEAD_BYTES` is refused."""
        if self._refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refused = True  # what still comes is read and dropped: a reset would overtake the answer
            self._answer_400()
            self.loop.call_later(_LINGER_S, self.transport.close)

    def on_message_begin(self) -> None:
        """A new request: its head is counted from here."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what could not be parsed, and closes. `msg` is the parser's and not for the caller."""
        del msg
        self._answer_400()
        self.transport.close()

    def _answer_400(self) -> None:
        request_id = str(uuid7())
        problem = problem_of(HTTPException(HTTPStatus.BAD_REQUEST), {REQUEST_ID: request_id})
        body = msgspec.json.encode(problem.body)
        lines = [
            b"HTTP/1.1 400 Bad Request",
            *(name + b": " + value for name, value in self.server_state.default_headers),
            b"content-type: application/problem+json",
            b"content-length: %d" % len(body),
            b"x-request-id: %b" % request_id.encode(),
            b"connection: close",
            b"",
            body,
        ]
        self.transport.write(b"\r\n".join(lines))


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 takes a free one. Raises AddressTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise AddressTaken(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return listener


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Serves until SIGTERM or Ctrl-C, then gives running answers their grace."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=NakaProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])
