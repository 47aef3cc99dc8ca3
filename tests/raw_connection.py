"""An HTTP client on one raw connection, which knows what it received and when the server closed it."""

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.answers import parse_sse

_PATIENCE_S = 20


@dataclass(frozen=True)
class Reply:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        """Whether it is the connection's last."""
        return self.headers.get("connection") == "close"

    @property
    def is_done(self) -> bool:
        """Whether it is a stream that ended with `done`."""
        return self.status == 200 and parse_sse(self.body)[-1] == ("done", "")

    def json(self) -> Any:
        """Returns the body as JSON."""
        return json.loads(self.body)


class RawConnection:
    """One connection to the API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = False
        """Whether any byte of the last response arrived."""

    @classmethod
    async def open(cls, port: int, data: bytes = b"", *, receive_bytes: int | None = None) -> "RawConnection":
        """Connects and sends. `receive_bytes`: the receive buffer, small for a client that does not read."""
        with socket.socket() as made:
            if receive_bytes is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            made.setblocking(False)  # noqa: FBT003 - that is its signature
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
            own = socket.socket(fileno=made.detach())
        connection = cls(*await asyncio.open_connection(sock=own, limit=receive_bytes or 2**20))
        connection.send(data)
        return connection

    @property
    def is_over(self) -> bool:
        """Whether the server closed the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    def send(self, data: bytes) -> None:
        """Sends more of a request."""
        self.received = False
        self._writer.write(data)

    async def hears(self, words: str) -> None:
        """Returns once the words arrived."""
        async with asyncio.timeout(_PATIENCE_S):
            await self._reader.readuntil(words.encode())

    async def reply(self) -> Reply:
        """Returns the response. Raises IncompleteReadError or ConnectionError when it is cut."""
        async with asyncio.timeout(_PATIENCE_S):
            self.received = bool(first := await self._reader.readexactly(1))
            head = (first + await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, *fields = head.split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
            if "content-length" in headers:
                body = await self._reader.readexactly(int(headers["content-length"]))
            else:
                body = await self._chunks()
        return Reply(int(status.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Returns everything until the server closes the connection."""
        got = b""
        async with asyncio.timeout(_PATIENCE_S):
            try:
                while chunk := await self._reader.read(65536):
                    got += chunk
            except ConnectionError:
                pass
        return got

    async def close(self) -> None:
        """Closes the connection."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return body
