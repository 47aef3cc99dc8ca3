"""An HTTP server on loopback that gives scripted answers in order and records its requests."""

import base64
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_LONGEST_S = 10


@dataclass(frozen=True, kw_only=True)
class Step:
    """One answer. A closed or hanging connection has read its request, so the effect happened."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    closes: bool = False
    hangs: bool = False
    trickles: bool = False


def says(answer: object, status: int = 200, **headers: str) -> Step:
    """A JSON answer."""
    return Step(status=status, body=json.dumps(answer).encode(), headers=headers)


@dataclass(frozen=True)
class Asked:
    """One complete request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def login(self) -> str:
        """User and password."""
        return base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()


class Scripted:
    """The server; `default` answers after the end of the script."""

    def __init__(self) -> None:
        self.script: deque[Step] = deque()
        self.default: Callable[[Asked], Step] = lambda _: says({})
        self.asked: list[Asked] = []
        self.over = threading.Event()
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def answer(self) -> None:
                scripted.serve(self)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 - the standard library's names

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stops the server and its hanging answers."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, call: BaseHTTPRequestHandler) -> None:
        """Gives the next scripted answer."""
        length = int(call.headers.get("content-length") or 0)
        body = json.loads(call.rfile.read(length) or "null")
        url = urlsplit(call.path)
        headers = {name.lower(): value for name, value in call.headers.items()}
        asked = Asked(call.command, url.path, dict(parse_qsl(url.query)), headers, body)
        self.asked.append(asked)
        step = self.script.popleft() if self.script else self.default(asked)
        if step.hangs or step.closes:
            self.over.wait(_LONGEST_S if step.hangs else 0)
            call.close_connection = True
            return
        self.over.wait(step.delay_s)
        call.send_response(step.status)
        for name, value in {"Content-Length": str(len(step.body)), **step.headers}.items():
            call.send_header(name, value)
        call.end_headers()
        for at in range(0, len(step.body), 1) if step.trickles else ():
            call.wfile.write(step.body[at : at + 1])
            if self.over.wait(0.05):
                return
        if not step.trickles:
            call.wfile.write(step.body)
