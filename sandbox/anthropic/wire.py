"""One response being sent: paced, re-chunked, delayed or cut, with detection of a disconnect.

A disconnect is noticed at once, even in a pause, and every later call raises `ClientGoneError`. Cutting a socket uses
uvicorn's `send`; under another server a cut is an exception, which closes the connection too.
"""

import asyncio
import zlib
from typing import Protocol, cast

from starlette.types import Message, Receive, Send

from sandbox.anthropic.frames import Headers
from sandbox.anthropic.script import Script

_FLUSH_TIMEOUT_S = 5.0  # for a client that does not read, before its socket is aborted
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_BREATH_WRITES = 64  # a long answer without pauses lets others in between


class ClientGoneError(Exception):
    """The client closed its connection."""


class ScriptedCutError(Exception):
    """The script's number of bytes is reached within a frame; `Wire.cut` is to follow."""

    def __init__(self, frame: bytes, sent: int, *, chunked: bool) -> None:
        """Take the frame, and how much of it is to be sent."""
        super().__init__(sent)
        self.frame = frame
        self.sent = sent
        self.chunked = chunked


class _Transport(Protocol):
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


async def _leave(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _negotiated(wanted: str | None, accepted: str) -> str | None:
    """Return the encoding that the script wants, if the client accepts it."""
    names = [part.partition(";")[0].strip().lower() for part in accepted.split(",")]
    return wanted if wanted in names else None


class Wire:
    """The way to one client; made after the request's body has been read."""

    def __init__(self, receive: Receive, send: Send, script: Script, accept_encoding: str = "") -> None:
        """Begin to watch the client."""
        self._send = send
        self._script = script
        self._held = bytearray()
        self._splits = list(reversed(script.splits))
        self._writes = 0
        self._sent_bytes = 0
        self.encoding = _negotiated(script.compress, accept_encoding)
        self._zip = None if self.encoding is None else zlib.compressobj(wbits=_WINDOW_BITS[self.encoding])
        self._leaving = asyncio.create_task(_leave(receive))

    async def pause(self, delay_ms: int) -> None:
        """Wait, unless the client leaves."""
        if delay_ms:
            await asyncio.wait({self._leaving}, timeout=delay_ms / 1000)
        self._check()

    async def hang(self) -> None:
        """Wait for the client to leave, which raises."""
        await self._leaving
        self._check()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the response's head."""
        self._check()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, frame: bytes) -> None:
        """Send a frame, in the shape that the script wants."""
        self._check()
        if self._script.crlf:
            frame = frame.replace(b"\n", b"\r\n")
        if self._splits:
            self._held += frame
            await self._send_splits()
        elif self._script.coalesce:
            self._held += frame
        elif self._script.chunk_bytes:
            self._held += frame
            await self._send_chunks(self._script.chunk_bytes)
        else:
            await self._put(frame)

    async def flush(self) -> None:
        """Send what is still held back."""
        if self._held and self._splits:
            await self._send_splits()
        if self._held and self._script.chunk_bytes:
            await self._send_chunks(self._script.chunk_bytes)
        if self._held:
            rest = bytes(self._held)
            self._held.clear()
            await self._put(rest)

    async def end(self, last: bytes = b"", *, chunked: bool = True) -> None:
        """End the body, after what is held back and the `last` bytes, which are compressed if all of it is."""
        await self.flush()
        self._check()
        if self._zip is not None and chunked:
            last = self._zip.compress(last) + self._zip.flush()
        self._limit(last, chunked=chunked)
        self.release()
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    def compressed(self, body: bytes) -> bytes:
        """Compress a whole body, if the script and the client want it."""
        if self._zip is None:
            return body
        return self._zip.compress(body) + self._zip.flush()

    async def cut(self, frame: bytes, *, chunked: bool = True, sent: int | None = None) -> None:
        """Close the socket inside a frame, after its first half or `sent` bytes, in the chunk (or body) it began."""
        if sent is None:
            await self.flush()
        self._check()
        transport = cast("_Transport | None", getattr(getattr(self._send, "__self__", None), "transport", None))
        if transport is None:
            raise ConnectionAbortedError("scripted cut")
        size = b"%x\r\n" % len(frame) if chunked else b""
        transport.write(size + frame[: len(frame) // 2 if sent is None else sent])
        transport.close()
        await asyncio.wait({self._leaving}, timeout=_FLUSH_TIMEOUT_S)
        if not self._leaving.done():
            transport.abort()
            await self._leaving

    def release(self) -> None:
        """Stop watching; before the body's end, which the server reports like a client that left."""
        self._leaving.cancel()

    async def _send_chunks(self, size: int) -> None:
        """Send whole chunks of what is held back, each in a turn of the loop of its own."""
        while len(self._held) >= size:
            await self._send_first(size)

    async def _send_first(self, size: int) -> None:
        """Send the first bytes of what is held back, in a turn of the loop of their own."""
        chunk = bytes(self._held[:size])
        del self._held[:size]
        await self._put(chunk)
        await asyncio.sleep(0)

    async def _put(self, body: bytes) -> None:
        """Hand bytes to the server."""
        self._check()
        if self._zip is not None:
            body = self._zip.compress(body) + self._zip.flush(zlib.Z_SYNC_FLUSH)
        self._limit(body, chunked=True)
        message: Message = {"type": "http.response.body", "body": body, "more_body": True}
        await self._send(message)
        self._writes += 1
        if self._writes % _BREATH_WRITES == 0:
            await asyncio.sleep(0)

    def _limit(self, body: bytes, *, chunked: bool) -> None:
        """Raise `ScriptedCutError` if the script cuts the socket within these bytes."""
        limit = self._script.cut_bytes
        if limit is not None and self._sent_bytes + len(body) > limit:
            raise ScriptedCutError(body, limit - self._sent_bytes, chunked=chunked)
        self._sent_bytes += len(body)

    async def _send_splits(self) -> None:
        """Send the script's splits as far as there are bytes for them."""
        while self._splits and len(self._held) >= max(1, self._splits[-1]):
            await self._send_first(max(1, self._splits.pop()))
        if self._held and not (self._splits or self._script.coalesce or self._script.chunk_bytes):
            await self._send_first(len(self._held))

    def _check(self) -> None:
        """Raise if the client has left."""
        if self._leaving.done():
            raise ClientGoneError
