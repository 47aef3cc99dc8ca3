"""uvicorn as Naka runs it: what is not HTTP at all is refused in the same one shape as every other error."""

import socket
from http import HTTPStatus

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


class AddressTaken(Exception):
    """Something else listens there, or it is not an address of this machine."""


class NakaProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose own refusals are problems too."""

    def send_400_response(self, msg: str) -> None:
        """Answers what could not be parsed, and closes. `msg` is the parser's and not for the caller."""
        del msg
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
        self.transport.close()


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
