"""A client that can disconnect, and helpers that wait for the effects."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2

from tests.harness import Account, Api, Simulator
from tests.journeys.forms import CHAT, Form, SocketForm

_ARRIVAL_S = 0.3
"""Time in which what was sent is read, on a busy machine."""


class Caller:
    """A client on a raw socket that can disconnect at any time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def ask(cls, api: Api, account: Account, message: str, form: Form = CHAT, *, more: bytes = b"") -> "Caller":
        """Sends a request; `more`: further lines of its head."""
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        caller = cls(reader, writer)
        if isinstance(form, SocketForm):
            writer.write(form.handshake(account))
            await caller.hears("\r\n\r\n")
        writer.write(form.request(account, message).replace(b"\r\n", b"\r\n" + more, 1))
        return caller

    async def hears(self, words: str) -> None:
        """Returns once the words arrived."""
        async with asyncio.timeout(20):
            await self._reader.readuntil(words.encode())

    async def rest(self) -> str:
        """Returns everything until the server closes the connection."""
        async with asyncio.timeout(20):
            said = (await self._reader.read()).decode(errors="replace")  # a WebSocket's frames have binary heads
        self._writer.close()
        await self._writer.wait_closed()
        return said

    async def leave(self, *, reset: bool = False) -> int:
        """Disconnects with a FIN or a reset; returns the time in Unix milliseconds."""
        if reset:
            own: socket.socket = self._writer.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left_ms = time.time_ns() // 1_000_000
        self._writer.close()
        await self._writer.wait_closed()
        return left_ms


async def eventually(check: Callable[[], Awaitable[Any]], *, within_s: float = 10) -> Any:
    """Returns the result of `check` once it is true."""
    deadline = time.monotonic() + within_s
    while not (found := await check()):
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)
    return found


async def sent(simulator: Simulator, ref: str, pieces: int) -> dict[str, Any]:
    """Returns the ledger's only entry of `ref` once so many pieces were sent, and had time to arrive."""

    async def look() -> dict[str, Any] | None:
        rows = await asyncio.to_thread(simulator.ledger, ref)
        return rows[0] if rows and rows[0]["pieces_sent"] >= pieces else None

    entry: dict[str, Any] = await eventually(look)
    await asyncio.sleep(_ARRIVAL_S)
    return entry


async def served(simulator: Simulator, ref: str, *, ended: bool) -> dict[str, Any]:
    """Returns the ledger's only entry of `ref` once it exists, or has ended."""

    async def look() -> dict[str, Any] | None:
        rows = await asyncio.to_thread(simulator.ledger, ref)
        assert len(rows) <= 1
        return rows[0] if rows and (rows[0]["state"] != "open" or not ended) else None

    entry: dict[str, Any] = await eventually(look)
    return entry


async def limit_status_when_free(http: httpx2.AsyncClient, account: Account) -> dict[str, Any]:
    """Returns the account's only window once no request is in flight and nothing is held."""

    async def look() -> dict[str, Any] | None:
        status: dict[str, Any] = (await http.get("/v1/limits", headers=account.headers)).json()
        return status if status["concurrency"]["active"] == 0 else None

    (window,) = (await eventually(look))["windows"]
    assert window["held"] == 0
    found: dict[str, Any] = window
    return found
