"""The WebSocket protocol's own timeouts and bounds, on real sockets with a small application."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from api.gateway.chat.socket import ChatSockets
from api.http import websocket
from api.http.body_admission import BodyAdmission
from api.http.websocket import CONNECTION, MAX_EARLY, STRANGER_MAX_BYTES, NakaWebSocket
from core.errors import Unavailable
from core.tenancy.principal import Principal
from tests.api.http.test_client_timeouts import BODY_S, HEAD_S, LATE_S, RunningServer, served

MAX_BYTES = 300_000
HANDSHAKE = (
    "GET /chat HTTP/1.1\r\nhost: naka\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Sockets:
    """Accepts; admits a client that says `known`, and answers each message with its length."""

    def __init__(self, room: int = MAX_BYTES) -> None:
        self.room = room
        self.ended = 0

    def hold(self, size: int, so_far: int) -> None:
        """Takes room for a message."""
        del so_far
        if size > self.room:
            raise Unavailable("full")
        self.room -= size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection: NakaWebSocket = scope[CONNECTION]
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["text"] == "broken":
                raise RuntimeError("nobody foresaw this")
            if message["text"] == "known":
                connection.admit(MAX_BYTES, self.hold)
            await send({"type": "websocket.send", "text": str(len(message["text"]))})
            connection.end_answer()
        self.ended += 1


@asynccontextmanager
async def dial(server: RunningServer, *, known: bool = True) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{server.port}/chat", proxy=None, close_timeout=1) as socket:
        if known:
            await socket.send("known")
            assert await socket.recv() == "5"
        yield socket


async def closed(socket: ClientConnection) -> tuple[int | None, float]:
    """The code that the server closes with, and the seconds until then."""
    began_s = time.monotonic()
    async with asyncio.timeout(LATE_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed:
            return socket.close_code, time.monotonic() - began_s


def test_a_client_that_does_not_say_who_it_is_is_closed() -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server, known=False) as stranger, dial(server) as known:
            code, after_s = await closed(stranger)
            assert (code, after_s > HEAD_S / 2) == (1008, True)
            await known.send("still here")
            assert await known.recv() == "10"

    served(story, app=Sockets())


def test_a_client_that_asks_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "IDLE_S", 0.5)

    async def story(server: RunningServer) -> None:
        async with dial(server) as idle:
            assert (await closed(idle))[0] == 1000

    served(story, app=Sockets())


@pytest.mark.slow
def test_a_message_that_takes_too_long_is_closed() -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server) as slow, dial(server) as cut:
            slow.transport.write(b"\x81\xfe\x10\x00abcd" + b"x" * 100)  # the head of a frame of 4096 bytes, and a part
            cut.transport.write(Frame(Opcode.TEXT, b"half", fin=False).serialize(mask=True))
            for socket in (slow, cut):
                code, after_s = await closed(socket)
                assert code == 1008
            assert after_s < BODY_S + LATE_S

    served(story, app=Sockets())


def test_a_strangers_message_is_small_and_a_known_ones_bounded() -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server, known=False) as stranger:
            await stranger.send("x" * STRANGER_MAX_BYTES)
            assert await stranger.recv() == str(STRANGER_MAX_BYTES)
            await stranger.send("x" * (STRANGER_MAX_BYTES + 1))
            assert (await closed(stranger))[0] == 1009
        async with dial(server) as known:
            await known.send("x" * MAX_BYTES)
            assert await known.recv() == str(MAX_BYTES)
            await known.send(["x" * 200_000, "x" * 200_000])
            assert (await closed(known))[0] == 1009

    served(story, app=Sockets())


def test_room_for_a_message_is_given_back() -> None:
    app = Sockets(room=250_000)

    async def story(server: RunningServer) -> None:
        async with dial(server) as first, dial(server) as second:
            head = struct.pack(">BBQ4s", 0x81, 0xFF, 200_000, b"\0\0\0\0")
            first.transport.write(head + b"x" * 150_000)
            await asyncio.sleep(0.2)
            assert app.room < 150_000
            await second.send("x" * 200_000)
            assert (await closed(second))[0] == 1013
            first.transport.write(b"x" * 50_000)
            assert await first.recv() == "200000"
            first.transport.write(head + b"x" * 150_000)
            await asyncio.sleep(0.2)
            first.transport.abort()
        await asyncio.sleep(0.2)
        assert app.room == 250_000

    served(story, app=app, body_s=LATE_S)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\x83\x80abcd", 1002),
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007),
        (Frame(Opcode.CONT, b"x").serialize(mask=True), 1002),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
    ids=["not masked", "no such opcode", "not UTF-8", "continues nothing", "HTTP"],  # the masks are random
)
def test_what_is_no_frame_closes_the_connection(data: bytes, code: int) -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server) as socket:
            socket.transport.write(data)
            assert (await closed(socket))[0] == code

    served(story, app=Sockets())


def test_pings_of_a_client_that_does_not_read_take_no_memory() -> None:
    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        caller.say(HANDSHAKE)
        assert (await caller.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        (protocol,) = server.server.server_state.connections
        assert isinstance(protocol, NakaWebSocket)
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 1000
        most = 0
        for _ in range(100):
            caller.writer.write(ping)
            await asyncio.sleep(0)
            most = max(most, protocol.transport.get_write_buffer_size())
        assert most < 400_000

    served(story, app=Sockets(), head_s=LATE_S, stall_s=LATE_S)


EMPTY = {
    "pongs": b"\x8a\x80\0\0\0\0",
    "pings": b"\x89\x80\0\0\0\0",
    "continuations": b"\0\x80\0\0\0\0",
    "texts": b"\x81\x80\0\0\0\0",
}


@pytest.mark.parametrize("known", [True, False], ids=["known", "stranger"])
@pytest.mark.parametrize("kind", EMPTY)
def test_a_flood_of_empty_frames_is_cut_off(kind: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    handled, parse = 0, ServerProtocol.recv_frame

    def count(self: ServerProtocol, frame: Frame) -> None:
        nonlocal handled
        handled += 1
        parse(self, frame)

    monkeypatch.setattr(ServerProtocol, "recv_frame", count)
    monkeypatch.setattr(websocket, "LINGER_S", 0.3)

    async def story(server: RunningServer) -> None:
        async with dial(server, known=known) as socket:
            if kind == "continuations":
                socket.transport.write(Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True))
            for _ in range(3):
                socket.transport.write(EMPTY[kind] * 40_000)
            code, after_s = await closed(socket)
            assert (code, after_s < LATE_S / 2) == (1008, True)
        assert handled < 2000, "one slice, not what the client sent"

    served(story, app=Sockets(), head_s=LATE_S, body_s=LATE_S)


def test_a_flood_during_the_handshake_is_cut_off() -> None:
    app = Sockets()

    async def story(server: RunningServer) -> None:
        caller = await server.connect()
        caller.say(HANDSHAKE)
        caller.writer.write(EMPTY["pongs"] * 40_000)
        async with asyncio.timeout(LATE_S / 2):
            with suppress(ConnectionResetError):
                await caller.reader.read()
        limits: Any = server.server.server_state.connection_limits
        await asyncio.sleep(0.2)
        assert limits._count == 0

    served(story, app=app, head_s=LATE_S)


def test_small_fragments_and_control_frames_at_a_usual_rate_are_taken() -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server) as socket:
            for _ in range(20):
                await socket.ping()
            await socket.send(["x" * 4096] * (MAX_BYTES // 4096))
            assert await socket.recv() == str(MAX_BYTES // 4096 * 4096)
            await socket.send(["x"] * 40)
            assert await socket.recv() == "40"

    served(story, app=Sockets())


def test_a_strangers_unfinished_message_has_no_more_time_than_an_introduction() -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server, known=False) as stranger:
            stranger.transport.write(Frame(Opcode.TEXT, b"half", fin=False).serialize(mask=True))
            code, after_s = await closed(stranger)
            assert (code, after_s < LATE_S / 2) == (1008, True)

    served(story, app=Sockets(), body_s=2 * LATE_S)


class Everybody:
    """Identities that know everybody."""

    async def principal_of(self, scope: Scope) -> Principal:
        """Of any handshake."""
        del scope
        return Principal(UUID(int=1), UUID(int=2), UUID(int=3), frozenset({"chat"}))


def test_questions_of_a_client_that_left_are_not_begun() -> None:
    begun = 0

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        del scope, receive
        begun += 1
        await send({"type": "http.response.start", "status": 422, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    everybody: Any = Everybody()
    admission = BodyAdmission(everybody, max_body_bytes=1000, max_bytes=1000, metered=frozenset(), keyless={})
    app = ChatSockets(refuse, everybody, body_admission=admission, origins=(), deadline_s=LATE_S, secure=False)

    async def story(server: RunningServer) -> None:
        url, key = f"ws://127.0.0.1:{server.port}/chat", {"authorization": "Bearer key"}
        async with connect(url, proxy=None, close_timeout=1, additional_headers=key) as socket:
            question = Frame(Opcode.TEXT, b"no JSON").serialize(mask=True)
            socket.transport.write(question * MAX_EARLY + Frame(Opcode.CLOSE, b"").serialize(mask=True))
            await socket.wait_closed()
        await asyncio.sleep(0.2)
        assert begun <= 1

    served(story, app=app)


def test_an_application_that_fails_closes_with_an_error() -> None:
    async def story(server: RunningServer) -> None:
        async with dial(server) as socket:
            await socket.send("broken")
            assert (await closed(socket))[0] == 1011

    served(story, app=Sockets())


def test_every_connection_is_counted_once() -> None:
    async def story(server: RunningServer) -> None:
        limits: Any = server.server.server_state.connection_limits
        for _ in range(3):
            async with dial(server), dial(server):
                assert limits._count == 2
            caller = await server.connect()
            caller.say(HANDSHAKE.replace("sec-websocket-version: 13", "sec-websocket-version: 7"))
            status, headers, _ = await caller.hear()
            assert (status, headers["content-type"]) == (400, "application/problem+json")
        await asyncio.sleep(0.3)
        assert limits._count == 0

    served(story, app=Sockets())
