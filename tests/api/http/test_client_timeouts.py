"""Client timeouts and connection limits, on real sockets and the real event loop, with a small application.

The timeouts are tenths of a second; `.env.example` has the real ones.
"""

import asyncio
import json
import resource
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.client_timeouts import BODY_BYTES_PER_S
from api.http.connection_limits import ClientLimits
from api.http.server import _Server, listen
from api.http.websocket import NakaWebSocket
from core.descriptors import raise_limit

HEAD_S = 0.4
BODY_S = 0.8
STALL_S = 0.6
LATE_S = 10
"""Generous, for a loaded machine."""
LARGE = 600_000
Story = Callable[["RunningServer"], Awaitable[None]]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body's size; on `/unread` without reading it; on `/large` with more than the sockets hold."""
    if scope["path"] == "/broken":
        raise RuntimeError("nobody foresaw this")
    size, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            scope["state"]["left"].append(scope["path"])
            return
        size, more = size + len(message["body"]), message["more_body"]
    said = b"x" * LARGE if scope["path"] == "/large" else b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    for at in range(0, len(said), 50_000):
        more_body = at + 50_000 < len(said)
        await send({"type": "http.response.body", "body": said[at : at + 50_000], "more_body": more_body})
    scope["state"]["left"].append(f"{scope['path']} written")


class RunningServer:
    """A running server and its clients."""

    def __init__(self, server: _Server, port: int, left: list[str]) -> None:
        self.server = server
        self.port = port
        self.left = left
        """Paths of requests whose client disconnected, or whose answer was written completely."""
        self._callers: list[Caller] = []

    async def connect(self, address: str = "127.0.0.1", **how: Any) -> "Caller":
        """Connects from a loopback address, or over a given socket."""
        where: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "local_addr": (address, 0)}
        self._callers.append(Caller(*await asyncio.open_connection(**(how if "sock" in how else where))))
        return self._callers[-1]

    async def close(self) -> None:
        """Closes all connections."""
        for caller in self._callers:
            caller.writer.transport.abort()
        await asyncio.sleep(0.05)


class Caller:
    """A client on a raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.since_s = time.monotonic()

    def say(self, text: str) -> None:
        """Sends text."""
        self.writer.write(text.encode())

    async def hear(self) -> tuple[int, dict[str, str], bytes]:
        """Reads one response: status, headers, body."""
        async with asyncio.timeout(LATE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def is_closed_after(self) -> float:
        """Reads to the end; returns the seconds from connect to close."""
        async with asyncio.timeout(LATE_S):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionError:
                pass
        return time.monotonic() - self.since_s


def served(story: Story, *, app: ASGIApp = echo, **changed: Any) -> None:
    """Runs the story against a server with these limits."""
    given: dict[str, Any] = {
        "head_s": HEAD_S,
        "body_s": BODY_S,
        "stall_s": STALL_S,
        "min_bytes_per_s": 500,
        "max_connections": 100,
        "max_per_address": 100,
        "trusted": "127.0.0.1",
    }

    async def run() -> None:
        listener = listen("127.0.0.1", 0)
        left: list[str] = []
        config = uvicorn.Config(
            app,
            http="api.http.protocol:NakaProtocol",
            ws=NakaWebSocket,
            ws_ping_interval=None,
            lifespan="off",
            log_config=None,
            timeout_keep_alive=2,
        )
        limits = ClientLimits(**(given | changed))
        server = _Server(config, FastAPI(), lambda: None, limits=limits, drain_s=0, grace_s=0)
        config.load()
        server.lifespan = config.lifespan_class(config)
        server.lifespan.state["left"] = left
        await server.startup([listener])
        serving = asyncio.create_task(server.main_loop())
        running = RunningServer(server, listener.getsockname()[1], left)
        try:
            async with asyncio.timeout(4 * LATE_S):
                await story(running)
        finally:
            await running.close()
            server.should_exit = True
            await serving
            await server.shutdown([listener])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def is_problem(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    assert (answer[0], answer[1]["content-type"]) == (status, "application/problem+json")
    assert json.loads(answer[2])["code"] == code
    assert answer[1]["connection"] == "close"


@pytest.mark.slow
def test_silence_a_dripping_head_and_a_dripping_body_have_an_end() -> None:
    async def story(server: RunningServer) -> None:
        silent, head, blank, body = [await server.connect() for _ in range(4)]
        head.say("GET / HTTP/1.1\r\nhost: naka\r\n")
        body.say("POST / HTTP/1.1\r\nhost: naka\r\ncontent-length: 100\r\n\r\n")
        for _ in range(6):
            head.say("x: y\r\n")
            blank.say("\r\n")
            body.say("x")
            await asyncio.sleep(0.05)

        is_problem(await head.hear(), 408, "request_timeout")
        is_problem(await blank.hear(), 408, "request_timeout")
        is_problem(await body.hear(), 408, "request_timeout")
        assert await silent.reader.read() == b""
        assert await silent.is_closed_after() >= HEAD_S
        assert await head.is_closed_after() >= HEAD_S
        assert await body.is_closed_after() >= BODY_S
        assert server.left == ["/"]

    served(story)


@pytest.mark.slow
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_has_time_in_proportion_to_its_size(*, is_chunked: bool) -> None:
    steps, size = 10, 60_000
    pieces = [b"x" * size] * steps
    framing = "transfer-encoding: chunked" if is_chunked else f"content-length: {size * steps}"

    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        caller.say(f"POST / HTTP/1.1\r\nhost: naka\r\n{framing}\r\n\r\n")
        for piece in pieces:
            await asyncio.sleep(2 * BODY_S / steps)  # 375 kB/s; twice the time of a small body
            caller.writer.write(b"%x\r\n%b\r\n" % (size, piece) if is_chunked else piece)
        if is_chunked:
            caller.say("0\r\n\r\n")
        status, _, body = await caller.hear()
        assert (status, body) == (200, b"%d" % (size * steps))

    served(story)


@pytest.mark.slow
def test_a_large_body_that_stops_has_an_end() -> None:
    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        caller.say(f"POST / HTTP/1.1\r\nhost: naka\r\ncontent-length: {BODY_BYTES_PER_S}\r\n\r\nx")

        is_problem(await caller.hear(), 408, "request_timeout")
        assert time.monotonic() - caller.since_s >= BODY_S + 1

    served(story)


def test_a_body_for_anthropics_api_times_out_in_its_form() -> None:
    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        caller.say("POST /v1/messages HTTP/1.1\r\nhost: naka\r\ncontent-length: 100\r\n\r\n{")

        status, headers, body = await caller.hear()

        error = json.loads(body)
        assert (status, headers["content-type"], headers["connection"]) == (408, "application/json", "close")
        assert (error["type"], error["error"]["type"]) == ("error", "timeout_error")
        assert error["request_id"] == headers["request-id"] == headers["x-request-id"]

    served(story)


@pytest.mark.slow
def test_a_connection_that_waits_for_its_next_request_has_the_longer_clock() -> None:
    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        for _ in range(2):
            caller.say("POST / HTTP/1.1\r\nhost: naka\r\ncontent-length: 3\r\n\r\nabc")
            assert (await caller.hear())[0::2] == (200, b"3")
            await asyncio.sleep(2 * HEAD_S)
        caller.say("GE")  # from here on it is a head

        is_problem(await caller.hear(), 408, "request_timeout")

    served(story)


def test_a_body_has_to_come_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.http.client_timeouts._RATE_AFTER_S", 0.3)

    async def story(server: RunningServer) -> None:
        fast, slow = await server.connect(), await server.connect()
        for caller in (fast, slow):
            caller.say("POST / HTTP/1.1\r\nhost: naka\r\ncontent-length: 100000\r\n\r\n")
        refused = asyncio.create_task(slow.hear())
        for _ in range(100):
            fast.say("x" * 1000)
            if not refused.done():
                slow.say("x")
            await asyncio.sleep(0.01)

        is_problem(await refused, 408, "request_timeout")
        assert (await fast.hear())[0::2] == (200, b"100000")

    served(story, body_s=20)


def test_what_is_left_of_a_body_that_nobody_read_is_dropped_for_a_moment() -> None:
    async def story(server: RunningServer) -> None:
        whole, unfinished = await server.connect(), await server.connect()
        for caller in (whole, unfinished):
            caller.say("POST /unread HTTP/1.1\r\nhost: naka\r\ncontent-length: 300000\r\n\r\n")
            assert (await caller.hear())[0] == 200
        unfinished.say("x" * 200_000)
        whole.say("x" * 300_000 + "GET / HTTP/1.1\r\nhost: naka\r\n\r\n")

        assert (await whole.hear())[0::2] == (200, b"0")
        assert await unfinished.is_closed_after() > 0.9

    served(story, body_s=20)


def test_a_reader_that_does_not_read_is_left() -> None:
    async def story(server: RunningServer) -> None:
        deaf, slow = await _ask_large(server), await _ask_large(server)
        heard = 0
        while heard < LARGE:
            heard += len(await slow.reader.read(100_000))
            await asyncio.sleep(0.01)

        async with asyncio.timeout(LATE_S):
            # What is sent to somebody who left is dropped, so both are written whole.
            while server.left != ["/large written"] * 2:  # noqa: ASYNC110 - as seen from outside
                await asyncio.sleep(0.05)
        assert await deaf.is_closed_after() > STALL_S

    served(story)


async def _ask_large(server: RunningServer) -> Caller:
    """Opens a client with minimal socket and read buffers."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
    own.connect(("127.0.0.1", server.port))  # into the listener's queue, at once
    caller = await server.connect(sock=own, limit=2000)
    caller.say("GET /large HTTP/1.1\r\nhost: naka\r\nconnection: close\r\n\r\n")
    return caller


def test_connections_are_bounded_in_all_and_per_address() -> None:
    async def story(server: RunningServer) -> None:
        ask = "GET / HTTP/1.1\r\nhost: naka\r\n\r\n"
        greedy = [await server.connect("127.0.0.2") for _ in range(3)]
        for caller in greedy:
            caller.say(ask)
            assert (await caller.hear())[0] == 200
        over = await server.connect("127.0.0.2")
        over.say(ask)
        answer = await over.hear()
        is_problem(answer, 503, "too_many_connections")
        assert answer[1]["retry-after"] == "5"

        proxied = [await server.connect() for _ in range(5)]  # trusted, so exempt from the bound per address
        for caller in proxied:
            caller.say(ask)
            assert (await caller.hear())[0] == 200
        full = await server.connect("127.0.0.3")
        is_problem(await full.hear(), 503, "too_many_connections")

        greedy[0].writer.close()
        await asyncio.sleep(0.1)
        again = await server.connect("127.0.0.2")
        again.say(ask)
        assert (await again.hear())[0] == 200

    served(story, max_connections=8, max_per_address=3, head_s=20)


def test_what_breaks_outside_every_layer_is_a_problem() -> None:
    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        caller.say("GET /broken HTTP/1.1\r\nhost: naka\r\n\r\n")
        status, headers, body = await caller.hear()
        assert (status, headers["content-type"]) == (500, "application/problem+json")
        assert json.loads(body)["code"] == "internal_error"
        assert json.loads(body)["request_id"] == headers["x-request-id"]

    served(story)


def test_a_server_without_descriptors_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def story(server: RunningServer) -> None:
        ask = "GET / HTTP/1.1\r\nhost: naka\r\n\r\n"
        before = await server.connect()
        with socket.socket() as unlucky:
            resource.setrlimit(resource.RLIMIT_NOFILE, (5, hard))
            unlucky.connect(("127.0.0.1", server.port))
            await asyncio.sleep(0.5)
            assert raise_limit() == hard

        after = await server.connect()
        for caller in (before, after):
            caller.say(ask)
            assert (await caller.hear())[0] == 200
        said = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
        assert said == ["file_descriptors_exhausted"]

    try:
        served(story, head_s=20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
