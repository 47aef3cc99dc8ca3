"""The routes `/_sim/...`: what was served, what was received, and the clock of the caches.

| route | what it does |
| --- | --- |
| `GET /_sim/ledger?since=&ref=` | an entry per request; `DELETE` forgets all but open requests |
| `GET /_sim/inferences?since=&ref=&request_id=` | what the provider bills: a row per inference |
| `GET /_sim/requests?since=&ref=` | the requests as they were received: path, headers, body in base64 |
| `GET /_sim/stats` | counters |
| `GET /_sim/clock`, `POST {"advance_s": 300}` | the time that caches expire by |
"""

import base64
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from sandbox.anthropic.caches import Caches
from sandbox.anthropic.clock import Clock
from sandbox.anthropic.inferences import Inferences
from sandbox.anthropic.ledger import Ledger

_MAX_KEPT_BYTES = 64 * 1024 * 1024
_MAX_KEPT = 2_000


@dataclass(slots=True)
class Received:
    """One request as it came; `seq` numbers them."""

    request_id: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    ref: str | None = None
    seq: int = 0

    @classmethod
    def of(cls, scope: Scope, request_id: str) -> "Received":
        """Take what is known before the body."""
        query = scope["query_string"].decode("latin-1")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        return cls(request_id, f"{scope['path']}?{query}" if query else scope["path"], headers)

    def as_json(self) -> dict[str, Any]:
        """Return the request for a test to read."""
        return {
            "seq": self.seq,
            "request_id": self.request_id,
            "ref": self.ref,
            "path": self.path,
            "headers": self.headers,
            "body": base64.b64encode(self.body).decode(),
        }


class Controls:
    """The simulator's own routes; keeps the last requests within a bound of bytes."""

    def __init__(self, ledger: Ledger, inferences: Inferences, caches: Caches, clock: Clock) -> None:
        """Take what there is to show."""
        self._ledger = ledger
        self._inferences = inferences
        self._caches = caches
        self._clock = clock
        self._received: deque[Received] = deque()
        self._kept_bytes = 0
        self._last_seq = 0

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/_sim/ledger", self._show_ledger, methods=["GET"]),
            Route("/_sim/ledger", self._clear_ledger, methods=["DELETE"]),
            Route("/_sim/inferences", self._show_inferences, methods=["GET"]),
            Route("/_sim/requests", self._show_received, methods=["GET"]),
            Route("/_sim/stats", self._show_stats, methods=["GET"]),
            Route("/_sim/clock", self._show_clock, methods=["GET", "POST"]),
        ]

    def keep(self, received: Received) -> None:
        """Keep a request, and drop the oldest beyond the bound."""
        self._last_seq += 1
        received.seq = self._last_seq
        self._received.append(received)
        self._kept_bytes += len(received.body)
        while len(self._received) > 1 and (self._kept_bytes > _MAX_KEPT_BYTES or len(self._received) > _MAX_KEPT):
            self._kept_bytes -= len(self._received.popleft().body)

    async def _show_ledger(self, request: Request) -> Response:
        """`GET /_sim/ledger?since=N&ref=`: the entries after N, as they are now, and the next N."""
        items = list(self._ledger.since(_since(request.query_params), request.query_params.get("ref") or None))
        return _json({"items": items, "next": self._ledger.last_seq})

    async def _clear_ledger(self, _request: Request) -> Response:
        """`DELETE /_sim/ledger`: forget entries, rows, requests, failures and counters; caches stay."""
        self._ledger.clear()
        self._inferences.clear()
        self._received.clear()
        self._kept_bytes = 0
        return Response(status_code=204)

    async def _show_inferences(self, request: Request) -> Response:
        """`GET /_sim/inferences`: the rows of the requests after `since`, and the next `since`."""
        asked = request.query_params
        rows = self._inferences.since(_since(asked), ref=asked.get("ref"), request_id=asked.get("request_id"))
        return _json({"items": list(rows), "next": self._ledger.last_seq})

    async def _show_received(self, request: Request) -> Response:
        """`GET /_sim/requests`: the requests kept, after `since`."""
        since, ref = _since(request.query_params), request.query_params.get("ref")
        items = [each.as_json() for each in self._received if each.seq > since and ref in (None, each.ref)]
        return _json({"items": items, "next": self._last_seq})

    async def _show_stats(self, _request: Request) -> Response:
        """`GET /_sim/stats`: the counters."""
        return _json(self._ledger.stats())

    async def _show_clock(self, request: Request) -> Response:
        """`GET` or `POST /_sim/clock`: the time, moved forward by `advance_s` seconds before."""
        if request.method == "POST":
            seconds = (await request.json()).get("advance_s", 0)
            if not isinstance(seconds, int | float) or seconds < 0:
                raise HTTPException(400, "advance_s: not a number of seconds")
            self._clock.advance(seconds)
        return _json({"now_s": self._clock.now_s()})


def _since(asked: QueryParams) -> int:
    """Return the number after which to begin."""
    since = asked.get("since") or "0"
    if not (since.isascii() and since.isdigit()):
        raise HTTPException(400, "since: not a number")
    return int(since)


def _json(payload: object) -> Response:
    """Make an answer of the simulator's own routes."""
    return Response(msgspec.json.encode(payload), media_type="application/json")
