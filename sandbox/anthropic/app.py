"""The simulator's ASGI application: Anthropic's routes, and `/_sim/...` to inspect what was served.

Every accepted request has exactly one ledger entry, which ends however its response did. The two routes bypass
Starlette's middleware, which would hide the server's own `send`.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sandbox.anthropic import frames
from sandbox.anthropic.answer import Answer, compose
from sandbox.anthropic.ledger import Entry, Ledger
from sandbox.anthropic.reply import Reply
from sandbox.anthropic.request import (
    MAX_BODY_BYTES,
    ApiError,
    MessagesBody,
    check_headers,
    count_input,
    read_count,
    read_messages,
    read_script,
    texts_of,
)
from sandbox.anthropic.script import Script
from sandbox.anthropic.usage_report import admin_key_of, usage_page
from sandbox.anthropic.wire import ClientGoneError, Wire

Handler = Callable[[bytes, str, Receive, Send], Awaitable[None]]


class Simulator(Starlette):
    """The app; its state lives as long as it does."""

    def __init__(self, api_key: str, pace_ms: int) -> None:
        """Take the one key that is let in, and the pause before each piece of an answer."""
        super().__init__(
            routes=[
                Route("/_sim/ledger", self._show_ledger, methods=["GET"]),
                Route("/_sim/ledger", self._clear_ledger, methods=["DELETE"]),
                Route("/_sim/stats", self._show_stats, methods=["GET"]),
                Route("/v1/organizations/usage_report/messages", self._report_usage, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _http_error},
        )
        self.ledger = Ledger()
        self._api_key = api_key.encode()
        self._admin_key = admin_key_of(api_key).encode()
        self._pace_ms = pace_ms
        self._handlers: dict[str, Handler] = {
            "/v1/messages": self._messages,
            "/v1/messages/count_tokens": self._count_tokens,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve Anthropic's routes here, everything else through Starlette."""
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" else None
        if handler is None or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        self.ledger.meet(scope.get("client"))
        request_id = frames.new_request_id()
        try:
            check_headers(dict(scope["headers"]), self._api_key)
            await handler(await _read_body(receive), request_id, receive, send)
        except ApiError as error:
            await _send_error(send, request_id, error)
        except ClientGoneError:
            return

    async def _messages(self, raw: bytes, request_id: str, receive: Receive, send: Send) -> None:
        """Answer a messages request, and see its entry to the end."""
        body = read_messages(raw)
        script, said = read_script(body)
        answer = compose(body, script, said)
        message_id = frames.new_message_id()
        entry = self._open(body, script, answer, request_id)
        entry.message_id = message_id
        wire = Wire(receive, send, script)
        try:
            await Reply(wire, script, answer, entry, self.ledger, message_id, self._pace_ms).send()
        except ApiError as error:
            _forget_input(entry)
            entry.status = error.status
            self.ledger.end(entry, "error")
            raise
        except ClientGoneError:
            entry.stop_reason = None
            self.ledger.end(entry, "client_gone")
            raise
        finally:
            wire.release()
            if entry.state == "open":  # the server is being stopped
                self.ledger.end(entry, "cut")

    def _open(self, body: MessagesBody, script: Script, answer: Answer, request_id: str) -> Entry:
        """Write the entry of an accepted messages request."""
        entry = self.ledger.open(
            "messages", request_id=request_id, ref=script.ref, model=answer.model, asked=body.model
        )
        entry.stream = body.stream
        entry.input_tokens = answer.usage.input_tokens
        entry.cache_read_input_tokens = answer.usage.cache_read_input_tokens
        entry.cache_creation_5m = answer.usage.cache_creation_5m
        entry.cache_creation_1h = answer.usage.cache_creation_1h
        entry.max_tokens = body.max_tokens
        entry.system_len = sum(map(len, texts_of(body.system)))
        return entry

    async def _count_tokens(self, raw: bytes, request_id: str, _receive: Receive, send: Send) -> None:
        """Answer a count_tokens request."""
        body = read_count(raw)
        script, _ = read_script(body)
        entry = self.ledger.open(
            "count_tokens", request_id=request_id, ref=script.ref, model=body.model, asked=body.model
        )
        entry.system_len = sum(map(len, texts_of(body.system)))
        await asyncio.sleep(script.count_delay_ms / 1000)
        if script.count_status is not None:
            entry.status = script.count_status
            self.ledger.end(entry, "error")
            raise ApiError(
                script.count_status,
                "The simulator was told to fail.",
                error_type=script.error_type,
                retry_after=script.retry_after,
            )
        entry.input_tokens = max(0, count_input(body) + script.count_skew)
        self.ledger.end(entry, "completed")
        head = frames.headers(request_id, b"application/json")
        await _send_json(send, 200, head, {"input_tokens": entry.input_tokens})

    async def _show_ledger(self, request: Request) -> Response:
        """`GET /_sim/ledger?since=N&ref=`: the entries after N, as they are now, and the next N."""
        since = request.query_params.get("since") or "0"
        if not (since.isascii() and since.isdigit()):
            raise HTTPException(400, "since: not a number")
        items = list(self.ledger.since(int(since), request.query_params.get("ref") or None))
        return _json({"items": items, "next": self.ledger.last_seq})

    async def _clear_ledger(self, _request: Request) -> Response:
        """`DELETE /_sim/ledger`: forget entries, failures and counters."""
        self.ledger.clear()
        return Response(status_code=204)

    async def _show_stats(self, _request: Request) -> Response:
        """`GET /_sim/stats`: the counters."""
        return _json(self.ledger.stats())

    async def _report_usage(self, request: Request) -> Response:
        """`GET /v1/organizations/usage_report/messages`: the ledger as Anthropic's Admin API would tell it."""
        try:
            check_headers(dict(request.headers.raw), self._admin_key)
            return _json(usage_page(request.query_params, self.ledger.since(0, None)))
        except ApiError as error:
            body = frames.error_body(frames.new_request_id(), error.error_type, error.message)
            return Response(msgspec.json.encode(body), error.status, media_type="application/json")


def create_app(api_key: str, *, pace_ms: int = 0) -> Starlette:
    """Make a simulator that lets in one key and pauses `pace_ms` milliseconds before each piece."""
    return Simulator(api_key, pace_ms)


def _forget_input(entry: Entry) -> None:
    """Take back what the entry says was processed: an HTTP error comes before that."""
    entry.input_tokens = entry.cache_read_input_tokens = entry.cache_creation_5m = entry.cache_creation_1h = 0
    entry.output_tokens = 0


async def _read_body(receive: Receive) -> bytes:
    """Read the body within Anthropic's bound; raises `ApiError` (413) or `ClientGoneError`."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, "Request exceeds the maximum size")
        parts.append(part)
    return b"".join(parts)


async def _send_json(send: Send, status: int, head: frames.Headers, payload: frames.Json) -> None:
    """Send one JSON answer."""
    body = msgspec.json.encode(payload)
    head.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _send_error(send: Send, request_id: str, error: ApiError) -> None:
    """Send an HTTP error in Anthropic's shape."""
    head = frames.error_headers(request_id, error)
    if error.status == 413:  # noqa: PLR2004 - the rest of the body is not read
        head.append((b"connection", b"close"))
    await _send_json(send, error.status, head, frames.error_body(request_id, error.error_type, error.message))


def _json(payload: object) -> Response:
    """Make an answer of the simulator's own routes."""
    return Response(msgspec.json.encode(payload), media_type="application/json")


async def _http_error(_request: Request, raised: Exception) -> Response:
    """Answer an unknown route or method in Anthropic's shape."""
    status, detail = (raised.status_code, raised.detail) if isinstance(raised, HTTPException) else (500, "")
    error = ApiError(status, detail, error_type="not_found_error" if status in (404, 405) else None)
    body = frames.error_body(frames.new_request_id(), error.error_type, error.message)
    response = _json(body)
    response.status_code = status
    return response
