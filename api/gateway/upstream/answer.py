"""An answer of the provider being received: its head, then its pieces, piped to a callback or read one by one.

An answer that nobody takes stops the reading. After its end the connection belongs to the next request: an answer
touches only a connection that is still its own.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.gateway.upstream.connection import UpstreamConnection

_MAX_BUFFERED_BYTES = 256 * 1024


class ConnectionFault(Exception):
    """The connection failed. `sent` is False when the provider cannot have received the whole request."""

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.sent = sent


class Answer:
    """An answer being received. `headers` has names in lower case; `take` is called with each piece."""

    def __init__(self, connection: "UpstreamConnection") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_ended = False
        self.error: ConnectionFault | None = None
        self._connection = connection
        self._head: asyncio.Future[None] = connection.loop.create_future()
        self.take: Callable[[bytes], None] = self._keep
        self._on_end: Callable[[], None] | None = None
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._arrival: asyncio.Future[None] | None = None

    @property
    def has_head(self) -> bool:
        """Whether the status is known, or the request has failed."""
        return self._head.done()

    async def head(self) -> None:
        """Returns when the head has arrived. Raises ConnectionFault."""
        await self._head

    def pipe(self, take: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """From now on calls `take` with each piece, and `on_end` once: the end, or an `error`."""
        self.take, self._on_end = take, on_end
        if self._pieces:
            pieces, self._pieces, self._buffered = self._pieces, [], 0
            take(b"".join(pieces))
        if self.has_ended or self.error is not None:
            on_end()

    async def read(self) -> bytes:
        """Returns the bytes that have arrived, at least one; none at the end. Raises ConnectionFault."""
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self.has_ended:
                return b""
            self._connection.resume()
            self._arrival = self._connection.loop.create_future()
            await self._arrival
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def is_paused(self) -> bool:
        """Whether the answer is not being read."""
        return self._is_open and self._connection.is_paused

    @property
    def _is_open(self) -> bool:
        """Whether the connection is this answer's: after its end, the next request may have it."""
        return not self.has_ended and self.error is None

    def pause(self) -> None:
        """Stops the reading: the client does not keep up."""
        if self._is_open:
            self._connection.pause()

    def resume(self) -> None:
        """Continues the reading."""
        if self._is_open:
            self._connection.resume()

    async def ended(self, *, within_s: float) -> None:
        """Drops what still arrives until the end, for at most `within_s`, so that the connection can be used again."""
        if not self._is_open:
            return
        end: asyncio.Future[None] = self._connection.loop.create_future()

        def note_end() -> None:
            if not end.done():
                end.set_result(None)

        self.take, self._on_end = _drop, note_end
        self._connection.resume()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await end

    def close(self) -> None:
        """Closes the connection, unless everything was read."""
        if self._is_open:
            self._connection.abort()

    def on_head(self, status: int, headers: dict[str, str]) -> None:
        """Notes the head."""
        self.status, self.headers = status, headers
        if not self._head.done():
            self._head.set_result(None)

    def _keep(self, piece: bytes) -> None:
        """Keeps a piece until it is read, or the answer is piped."""
        self._pieces.append(piece)
        self._buffered += len(piece)
        if self._buffered > _MAX_BUFFERED_BYTES:
            self._connection.pause()
        self._wake()

    def on_end(self, error: ConnectionFault | None = None) -> None:
        """Notes the end, or what broke the answer off."""
        if not self._is_open:
            return
        self.error, self.has_ended = error, error is None
        self.take = _drop  # nothing follows, and a method of its own would keep the answer for the garbage collector
        if not self._head.done() and error is not None:
            self._head.set_exception(error)
            self._head.exception()  # a request that was given up awaits it no longer
        self._wake()
        if self._on_end is not None:
            self._on_end()

    def _wake(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.done():
            arrival.set_result(None)


def _drop(_: bytes) -> None:
    """Takes a piece that nobody needs."""
