"""A provider made of bytes: each request is read whole and kept, and gets what a function writes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Write = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """A received request: the lines of its head, and its body."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def counts(self) -> bool:
        """Whether it asks for a count of tokens."""
        return "/count_tokens" in self.line


@dataclass
class RawProvider:
    """The server; `write` may be exchanged between two requests."""

    write: Write
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    talks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as both sides keep it."""
        talk = asyncio.current_task()
        assert talk is not None
        self.talks.add(talk)
        talk.add_done_callback(self.talks.discard)
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                await self.write(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request:
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def raw_provider(write: Write) -> AsyncIterator[RawProvider]:
    """Starts one on a port of its own."""
    made = RawProvider(write)
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for talk in list(made.talks):
            talk.cancel()
        await asyncio.gather(*made.talks, return_exceptions=True)
