"""A stand-in for the real server: the chat contract, the page and its policy, and a message that asks for each mishap.

Run by `conftest.py` as a process of its own (`python -m tests.browser.stub <allowed origin>`); prints its URL, then
serves until it is terminated. The page is the real one, its visitor made up; of the rest it knows the contract only.

    limit N | held N     429 with Retry-After: N         status N     that status, before the head
    owe N                as limit N, of an account that is overdue
    break                words, then `event: error`      cut          words, then the end without `done`
    forever              words until the client leaves   silent       `done` and nothing else
    shred                hard text, one byte a chunk     say TEXT     that text
    chapters             a heading and words, and again, faster than a page is drawn
    recall               the model, and the roles and texts of the earlier turns
    fits N | room N      that, or 413 (429) with more than N earlier turns
    long N               an answer that ends at N output tokens
    anything             a short answer
"""

import asyncio
import base64
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from api.pages.site import render
from api.pages.visitor import Visitor
from core.tenancy.principal import Principal, Scope

PAGES = Path(__file__).parents[2] / "api" / "pages"
KEY = "nk_test_stub_key"
HARD_TEXT = "  two blanks\n\n<b>not bold</b> & “quotes” 😀 नाका\n: no comment\ndata: no field\n\ttab, end"
ANSWER = (
    "A toll post stands at the gate.\n\n"
    "It counts what passes, stops what may not, and sends the bill at the end of the month."
)
TOKENS_A_DAY = 5_000_000
TOKENS_PER_ANSWER = 1_234
LONGEST = 2_048
MODELS = ["claude-haiku-4-5", "claude-sonnet-4-6"]

NOBODY = UUID(int=1)
SCOPES = {"user": {Scope.CHAT}, "admin": {Scope.CHAT, Scope.TENANT_ADMIN}}


@dataclass
class Seen:
    """What happened here: the answers whose reader left, and how many were settled."""

    left: list[str] = field(default_factory=list)
    settled: int = 0
    owes: bool = False
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)


seen = Seen()


def frame(text: str, event: str = "") -> bytes:
    lines = [f"event: {event}"] if event else []
    lines += [f"data: {line}" for line in text.split("\n")]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def problem(status: int, code: str, detail: str) -> dict[str, str | int]:
    return {"type": f"urn:naka:{code}", "title": code.replace("_", " ").capitalize(), "status": status,
            "detail": detail, "code": code, "request_id": "019ab1c2-0000-7000-8000-000000000001"}  # fmt: skip


def refusal(status: int, code: str, detail: str, **headers: str) -> JSONResponse:
    return JSONResponse(problem(status, code, detail), status, headers, media_type="application/problem+json")


def wrong_key(request: Request) -> JSONResponse | None:
    """A page of ours has its session, the example client its key."""
    if "authorization" not in request.headers or request.headers["authorization"] == f"Bearer {KEY}":
        return None
    return refusal(401, "unauthorized", "The key is not known.")


async def chat(request: Request) -> Response:
    if refused := wrong_key(request):
        return refused
    body = await request.json()
    earlier = body.get("messages", [])
    verb, _, argument = body["message"].partition(" ")
    match verb:
        case "fits" | "room" if len(earlier) > int(argument):
            status, code = {"fits": (413, "input_exceeds_limit"), "room": (429, "limit_reached")}[verb]
            return refusal(status, code, "With so many earlier turns, no.", **{"Retry-After": "60"})
        case "limit" | "owe":
            seen.owes = verb == "owe"
            return refusal(
                429, "limit_reached", "The daily tokens of this user are used up.", **{"Retry-After": argument}
            )
        case "held":
            return refusal(429, "held", "Other requests hold what is left.", **{"Retry-After": argument})
        case "status":
            return refusal(int(argument), "refused", "As the stub was asked.")
        case _:
            if verb in {"recall", "fits", "room"}:
                said = [body.get("model", ""), *(f"{turn['role']}: {turn['text']}" for turn in earlier)]
                verb, argument = "say", "\n".join(said)
            request_id = str(UUID(int=len(seen.requests) + 1))
            return StreamingResponse(
                recorded(request_id, verb, argument),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache, no-transform", "X-Request-Id": request_id},
            )


async def recorded(request_id: str, verb: str, argument: str) -> AsyncIterator[bytes]:
    """An answer, whose request is settled before `done`."""
    tokens = {"input_tokens": 1_000, "output_tokens": 234, "cost_nano_usd": 6_510_000}
    caches = dict.fromkeys(("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"), 0)
    seen.requests[request_id] = row = {
        **tokens, **caches, "state": "open", "stop_reason": "end_turn", "granted_output_tokens": LONGEST
    }  # fmt: skip
    if verb == "long":
        row |= {"stop_reason": "max_tokens", "granted_output_tokens": int(argument)}
    try:
        async for piece in answer(verb, argument):
            if piece.startswith(b"event: done"):
                row["state"] = "settled"
            yield piece
    finally:
        row["state"] = "settled"


async def answer(verb: str, argument: str) -> AsyncIterator[bytes]:
    match verb:
        case "break":
            yield frame("Half of an ans")
            await asyncio.sleep(0.05)
            yield frame(json.dumps(problem(502, "upstream_error", "The provider broke off.")), "error")
            return
        case "cut":
            yield frame("Half of an ans") + b"data: never closed"
            return
        case "forever" | "chapters":
            async for piece in endless() if verb == "forever" else chapters():
                yield piece
        case "shred":
            for byte in b"\xef\xbb\xbf: hello\r\n\r\n" + frame(HARD_TEXT):
                yield bytes([byte])
                await asyncio.sleep(0)
        case "silent":
            pass
        case "say":
            yield frame(argument)
        case _:
            yield b": keep-alive\n\n"
            for word in ANSWER.split(" "):
                yield frame(word if word.startswith("A") else f" {word}")
                await asyncio.sleep(0.01)
    seen.settled += 1
    yield frame("", "done")


async def endless() -> AsyncIterator[bytes]:
    try:
        for number in range(1000):
            yield frame(f"word{number} ")
            await asyncio.sleep(0.03)
    finally:
        seen.left.append("forever")
        seen.settled += 1


async def chapters() -> AsyncIterator[bytes]:
    for number in range(60):
        yield frame(f"\n\n## Chapter {number}\n\nWhat it tells.")
        await asyncio.sleep(0.005)


async def own_request(request: Request) -> Response:
    return wrong_key(request) or JSONResponse(seen.requests[request.path_params["request_id"]])


async def limits(request: Request) -> Response:
    used = TOKENS_PER_ANSWER * seen.settled
    window = {"scope": "user", "held": 0, "resets_at": "2030-01-01T00:00:00Z"}
    windows = [
        window | {"meter": "tokens", "window": "minute", "limit": 10, "used": 0, "remaining": 10},
        window
        | {"meter": "tokens", "window": "day", "limit": TOKENS_A_DAY, "used": used, "remaining": TOKENS_A_DAY - used},
        window | {"meter": "spend", "window": "day", "limit": 5, "used": 0, "remaining": 5},
    ]
    return wrong_key(request) or JSONResponse({"windows": windows, "concurrency": {"limit": 4, "active": 0}})


async def account_status(_: Request) -> Response:
    text = "₹590 for usage is overdue since 1 Nov 2026. Until it is paid, the limits of Free apply."
    banner = {"state": "overdue", "text": text, "href": "/account/bills?state=open", "label": "Pay ₹590", "away": False}
    owes, seen.owes = seen.owes, False  # for the message alone that asked for it: the stub serves every test
    return JSONResponse({"banner": banner if owes else None, "fingerprint": str(owes)})


async def page(request: Request) -> Response:
    """`/?as=admin` is somebody who may see the plans."""
    scopes = frozenset(scope.value for scope in SCOPES[request.query_params.get("as", "user")])
    visitor = Visitor(Principal(NOBODY, NOBODY, NOBODY, scopes), "Stub Ltd", "ada", "nk_test_stub", cast("Any", None))
    return render(
        request, "chat.html", visitor, model=MODELS[-1], models=MODELS, most_tokens=LONGEST, most_bytes=100_000
    )


async def no_icon(_: Request) -> Response:
    """Browsers ask for it unbidden; a 404 would be an error in the console of every first visit."""
    return Response(status_code=204)


async def raw(request: Request) -> Response:
    """The given bytes as an event stream, for the browser's own EventSource to parse."""
    return Response(base64.urlsafe_b64decode(request.path_params["data"]), media_type="text/event-stream")


async def what_was_seen(_: Request) -> Response:
    return JSONResponse(asdict(seen))


def app(origin: str) -> Starlette:
    made = Starlette(
        routes=[
            Route("/", page),
            Route("/favicon.ico", no_icon),
            Route("/chat", chat, methods=["POST"]),
            Route("/v1/usage/requests/{request_id}", own_request),
            Route("/v1/limits", limits),
            Route("/account-status", account_status, methods=["POST"]),
            Route("/stub/raw/{data}", raw),
            Route("/stub/seen", what_was_seen),
            Mount("/static", StaticFiles(directory=PAGES / "static")),
        ],
        middleware=[
            Middleware(CORSMiddleware, allow_origins=[origin], allow_methods=["POST"],
                       allow_headers=["Authorization", "Content-Type"], expose_headers=["Retry-After", "X-Request-Id"]),
        ],
    )  # fmt: skip
    made.state.runtime = SimpleNamespace(settings=SimpleNamespace(timezone="Asia/Kolkata"))
    return made


if __name__ == "__main__":
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        uvicorn.Server(uvicorn.Config(app(sys.argv[1]), log_level="warning")).run(sockets=[listener])
