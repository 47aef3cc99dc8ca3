"""The simulator's ASGI application: Anthropic's routes, and `/_sim/...` to inspect what was served.

Every accepted request has exactly one ledger entry, which ends however its response did. The two routes that a model
serves bypass Starlette's middleware, which would hide the server's own `send`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sandbox.anthropic import frames
from sandbox.anthropic.answers.plan import Answer, compose
from sandbox.anthropic.answers.reply import Reply
from sandbox.anthropic.caches import Caches
from sandbox.anthropic.clock import Clock
from sandbox.anthropic.controls import Controls, Received
from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.inferences import Inferences, Served
from sandbox.anthropic.ledger import Entry, Ledger
from sandbox.anthropic.models import find_model, models_page
from sandbox.anthropic.requests.asking import Asked, read_asked
from sandbox.anthropic.requests.body import decode_body, read_json, receive_body
from sandbox.anthropic.requests.counting import count_input
from sandbox.anthropic.requests.fields import Request, read_count, read_messages
from sandbox.anthropic.requests.head import Head, read_head
from sandbox.anthropic.requests.threads import Threads
from sandbox.anthropic.requests.turns import blocks_of
from sandbox.anthropic.script import Script
from sandbox.anthropic.usage_report import admin_key_of, usage_page
from sandbox.anthropic.wire import ClientGoneError, Wire


@dataclass(frozen=True, slots=True)
class _Call:
    """One request that was let in."""

    head: Head
    body: dict[str, object]
    received: Received
    receive: Receive
    send: Send


Handler = Callable[[_Call], Awaitable[None]]


class Simulator(Starlette):
    """The app; its state lives as long as it does."""

    def __init__(self, api_keys: Sequence[str], pace_ms: int, rows: Path | None) -> None:
        """Take the keys that are let in, each of a workspace of its own, and the pause before each piece.

        `rows`: a file that keeps the inferences from one start to the next.
        """
        self._inferences = Inferences(rows)
        self.ledger = Ledger(self._inferences.last_seq)
        clock = Clock()
        self._caches = Caches(clock)
        self._threads = Threads(clock)
        self._controls = Controls(self.ledger, self._inferences, self._caches, clock)
        self._api_keys = [key.encode() for key in api_keys]
        self._admin_key = admin_key_of(api_keys[0]).encode()
        self._pace_ms = pace_ms
        self._handlers: dict[str, Handler] = {
            "/v1/messages": self._messages,
            "/v1/messages/count_tokens": self._count_tokens,
        }
        super().__init__(
            routes=[
                *self._controls.routes(),
                Route("/v1/models", self._list_models, methods=["GET"]),
                Route("/v1/models/{model_id}", self._show_model, methods=["GET"]),
                Route("/v1/organizations/usage_report/messages", self._report_usage, methods=["GET"]),
                Route("/api/hello", _hello, methods=["GET", "HEAD"]),
            ],
            exception_handlers={HTTPException: _http_error, ApiError: _api_error},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve Anthropic's routes here, everything else through Starlette."""
        handler = self._handlers.get(scope["path"]) if scope["type"] == "http" else None
        if handler is None or scope["method"] != "POST":
            await super().__call__(scope, receive, send)
            return
        self.ledger.meet(scope.get("client"))
        received = Received.of(scope, frames.new_request_id())
        try:
            headers = dict(scope["headers"])
            head = read_head(headers, self._api_keys)
            received.body = await receive_body(receive)
            self._controls.keep(received)
            body = read_json(decode_body(headers, received.body))
            await handler(_Call(head, body, received, receive, send))
        except ApiError as error:
            await _send_error(send, received.request_id, error)
        except ClientGoneError:
            return

    async def _messages(self, call: _Call) -> None:
        """Answer a messages request, and see its entry to the end."""
        request, asked = self._read(call)
        call.received.ref = asked.script.ref
        prompt = self._caches.look_up(request)
        answer = compose(request, asked, prompt)
        message_id = frames.new_message_id()
        entry = self._open(request, answer, call.received.request_id, message_id)
        served = Served(entry, answer, self.ledger, self._inferences, request.head.workspace)
        wire = Wire(call.receive, call.send, asked.script, request.head.accept_encoding)
        try:
            await wire.pause(asked.script.head_delay_ms)
            self._fail(asked.script)
            self._caches.commit(prompt)
            self._threads.keep(request, [block.whole for block in answer.blocks], message_id)
            await Reply(wire, answer, served, message_id, self._pace_ms).send()
        except ApiError as error:
            _forget_input(entry)
            entry.status = error.status
            served.end("error")
            raise
        except ClientGoneError:
            entry.stop_reason = None
            served.end("client_gone")
            raise
        finally:
            wire.release()
            if entry.state == "open":  # the server is being stopped
                served.end("cut")

    def _read(self, call: _Call) -> tuple[Request, Asked]:
        """Check a messages request and read its script; raises `ApiError`."""
        request = read_messages(call.body, call.head)
        asked = read_asked(request)
        if asked.script.stall_after is not None and not self._strikes(asked.script):
            asked = replace(asked, script=msgspec.structs.replace(asked.script, stall_after=None, fail_times=None))
        if request.fields.thread is None:
            return request, asked
        return self._threads.continued(request, asked.script), asked

    def _fail(self, script: Script) -> None:
        """Raise the scripted HTTP error, if this request is to fail."""
        if script.status is not None and self._strikes(script):
            raise _scripted_error(script, script.status)

    def _strikes(self, script: Script) -> bool:
        """Count a request that is to fail or to stall; whether it does."""
        return script.fail_times is None or self.ledger.fail(script.ref or "", script.fail_times)

    def _open(self, request: Request, answer: Answer, request_id: str, message_id: str) -> Entry:
        """Write the entry of an accepted messages request."""
        script, model = answer.script, answer.model
        entry = self.ledger.open("messages", request_id=request_id, ref=script.ref, model=model, asked=request.model.id)
        start = answer.usage.start
        entry.message_id = message_id
        entry.stream = request.stream
        entry.input_tokens = start.input_tokens
        entry.cache_read_input_tokens = start.cache_read_input_tokens
        entry.cache_creation_5m = start.cache_creation_5m
        entry.cache_creation_1h = start.cache_creation_1h
        entry.max_tokens = request.max_tokens
        entry.system_len = _system_len(request)
        return entry

    async def _count_tokens(self, call: _Call) -> None:
        """Answer a count_tokens request."""
        request = read_count(call.body, call.head)
        script = read_asked(request).script
        call.received.ref = script.ref
        request_id, model = call.received.request_id, request.model.id
        entry = self.ledger.open("count_tokens", request_id=request_id, ref=script.ref, model=model, asked=model)
        entry.system_len = _system_len(request)
        await asyncio.sleep(script.count_delay_ms / 1000)
        if script.count_status is not None:
            entry.status = script.count_status
            self.ledger.end(entry, "error")
            raise _scripted_error(script, script.count_status)
        counted = max(0, count_input(request) + script.count_skew)
        entry.input_tokens = counted
        self.ledger.end(entry, "completed")
        answer: frames.Json = {"input_tokens": counted}
        if request.fields.context_management is not None:
            answer["context_management"] = {"original_input_tokens": counted}
        await _send_json(call.send, 200, frames.headers(request_id, b"application/json", script.headers), answer)

    async def _list_models(self, request: HttpRequest) -> Response:
        """`GET /v1/models`: one page."""
        read_head(dict(request.headers.raw), self._api_keys)
        return _answer(models_page(request.query_params))

    async def _show_model(self, request: HttpRequest) -> Response:
        """`GET /v1/models/{model_id}`: one model."""
        read_head(dict(request.headers.raw), self._api_keys)
        return _answer(find_model(request.path_params["model_id"]).as_json())

    async def _report_usage(self, request: HttpRequest) -> Response:
        """`GET /v1/organizations/usage_report/messages`: the ledger as Anthropic's Admin API would tell it."""
        read_head(dict(request.headers.raw), [self._admin_key])
        return _answer(usage_page(request.query_params, self.ledger.since(0, None), self._inferences.since(0)))


def create_app(api_key: str, *more_keys: str, pace_ms: int = 0, rows: Path | None = None) -> Starlette:
    """Make a simulator that lets in these keys and pauses `pace_ms` milliseconds before each piece.

    `rows`: a file that keeps what it bills from one start to the next.
    """
    return Simulator((api_key, *more_keys), pace_ms, rows)


def _scripted_error(script: Script, status: int) -> ApiError:
    return ApiError(
        status,
        script.error_message or "The simulator was told to fail.",
        error_type=script.error_type,
        error_code=script.error_code,
        retry_after=script.retry_after,
        headers=script.headers,
    )


def _system_len(request: Request) -> int:
    """Count the characters of the system prompt."""
    return sum(len(block["text"]) for block in blocks_of(request.fields.system))


def _forget_input(entry: Entry) -> None:
    """Take back what the entry says was processed: an HTTP error comes before that."""
    entry.input_tokens = entry.cache_read_input_tokens = entry.cache_creation_5m = entry.cache_creation_1h = 0
    entry.output_tokens = 0


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
    await _send_json(send, error.status, head, frames.error_body(request_id, error))


def _answer(payload: object, status: int = 200, *, request_id: str | None = None) -> Response:
    """Make an answer with the headers of any answer; with a new request id unless one is given."""
    response = Response(msgspec.json.encode(payload), status)
    response.raw_headers = [
        *((name, value) for name, value in response.raw_headers if name == b"content-length"),
        *frames.headers(request_id or frames.new_request_id(), b"application/json"),
    ]
    return response


async def _hello(_request: HttpRequest) -> Response:
    """`HEAD /api/hello`, which a client sends to see whether there is a way."""
    return _answer({"message": "hello"})


async def _api_error(_request: HttpRequest, raised: Exception) -> Response:
    """Answer a refusal of a route that no model serves."""
    error = raised if isinstance(raised, ApiError) else ApiError(500, "")
    request_id = frames.new_request_id()
    return _answer(frames.error_body(request_id, error), error.status, request_id=request_id)


async def _http_error(request: HttpRequest, raised: Exception) -> Response:
    """Answer an unknown route or method in Anthropic's shape."""
    status, detail = (raised.status_code, raised.detail) if isinstance(raised, HTTPException) else (500, "")
    error = ApiError(status, detail, error_type="not_found_error" if status in (404, 405) else None)
    return await _api_error(request, error)
