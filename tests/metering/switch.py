"""An address that leads to a server, to another one, or nowhere: what a network does to one process alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from sandbox.valkey import Valkey


class Switch:
    """Passes bytes on. `cut` drops what is connected and refuses what comes, until `mend` or `lead_to`."""

    def __init__(self, server: Valkey) -> None:
        self._server = server
        self._target: int | None = _port(server)
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @property
    def url(self) -> str:
        """The server's URL by way of this address."""
        parts = urlsplit(self._server.url)
        return urlunsplit(parts._replace(netloc=f":{parts.password}@127.0.0.1:{self.port}"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Switch"]:
        """Listens, until the end of the block."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self.cut()
            await listener.wait_closed()

    def lead_to(self, server: Valkey) -> None:
        """Cuts what is connected; who connects again meets `server`."""
        self.cut()
        self._target = _port(server)

    def cut(self) -> None:
        """Nobody gets through."""
        self._target = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def mend(self) -> None:
        """Leads to the server again."""
        self._target = _port(self._server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target is None:
            writer.transport.abort()
            return
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, to_server]
        await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


def _port(server: Valkey) -> int:
    return urlsplit(server.url).port or 0
