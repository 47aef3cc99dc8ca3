"""Turns on unmetered routes: of one caller three requests work at once; other callers do not wait for them."""

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from api.http.turns import AT_ONCE, TurnsMiddleware


class Application:
    """Counts the requests that work; each works until `finish`, then sends a head and holds its body open."""

    def __init__(self) -> None:
        self.working = 0
        self.finish = asyncio.Event()
        self.end = asyncio.Event()

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Answers one request."""
        self.working += 1
        await self.finish.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.working -= 1
        await self.end.wait()


def _request(path: str = "/v1/reports/usage", *, key: str | None = None, address: str = "192.0.2.1") -> dict[str, Any]:
    headers = [] if key is None else [(b"x-api-key", key.encode())]
    return {"type": "http", "scheme": "http", "method": "GET", "path": path, "headers": headers, "client": (address, 1)}


async def _nothing(message: Message) -> None:
    """Takes a message."""


async def _never() -> Message:
    raise AssertionError("nothing is read")


async def _start(middleware: TurnsMiddleware, requests: list[dict[str, Any]]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(middleware(request, _never, _nothing)) for request in requests]
    await asyncio.sleep(0.01)
    return tasks


async def test_one_key_has_three_requests_at_work_and_another_key_does_not_wait() -> None:
    app = Application()
    middleware = TurnsMiddleware(app)
    tasks = await _start(middleware, [_request(key="one") for _ in range(10)])
    assert app.working == AT_ONCE
    tasks += await _start(middleware, [_request(key="two")])
    assert app.working == AT_ONCE + 1
    app.finish.set()
    app.end.set()
    await asyncio.gather(*tasks)


async def test_a_turn_ends_with_the_head_so_streams_hold_none() -> None:
    app = Application()
    middleware = TurnsMiddleware(app)
    app.finish.set()
    tasks = await _start(middleware, [_request(key="one") for _ in range(10)])
    assert app.working == 0  # all ten heads are sent, while all ten bodies are open
    app.end.set()
    await asyncio.gather(*tasks)


async def test_without_a_key_the_network_has_the_turns_but_webhooks_and_probes_have_none() -> None:
    app = Application()
    middleware = TurnsMiddleware(app)
    tasks = await _start(middleware, [_request("/sign-in") for _ in range(10)])
    assert app.working == AT_ONCE
    tasks += await _start(middleware, [_request("/sign-in", address="192.0.2.2")])
    assert app.working == AT_ONCE + 1
    tasks += await _start(middleware, [_request("/webhooks/razorpay") for _ in range(10)])
    tasks += await _start(middleware, [_request("/healthz")])
    assert app.working == AT_ONCE + 12
    app.finish.set()
    app.end.set()
    await asyncio.gather(*tasks)
