"""One HTTP/1.1 connection to the provider: sends a request, and passes the answer's pieces on as they arrive.

A piece goes to a callback inside the event loop's read: no task wakes for it, which is most of the cost of a relayed
word (docs/decisions/0002). Head and trailer are bounded; an answer that nobody takes stops the reading. Bodies are not
decompressed: we ask for `identity`. A connection that said more than was asked is closed: it may belong to another
request.
"""

import asyncio
import select
from collections.abc import Callable, Iterator, Sequence

import httptools

from api.gateway.upstream.answer import Answer, ConnectionFault

MAX_HEAD_BYTES = 64 * 1024
_SLICE_BYTES = 256 * 1024
"""A large body is written in slices, so that the transport's buffer holds only a part of it."""
_OK = 200

_READ_BYTES = 16 * 1024
"""Parsed in one turn of the event loop, so that a flood of tiny events does not hold up the other requests."""

Part = bytes | memoryview


class UpstreamConnection(asyncio.Protocol):
    """A connection, used by one request at a time. `on_free`: when the next one may use it; `on_lost`: at its end."""

    def __init__(
        self, on_free: "Callable[[UpstreamConnection], None]", on_lost: "Callable[[UpstreamConnection], None]"
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.idle_since_s = 0.0
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: Answer | None = None
        self._headers: dict[str, str] = {}
        self._arrived: list[bytes] = []
        """Pieces of the body in what is being parsed."""
        self._bare_bytes = 0
        self._is_sent = False
        self.is_paused = False
        self._writable: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether the provider has said nothing since the last answer: what it says then is that it closes."""
        if self._transport is None or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    async def send(self, head: bytes, parts: Sequence[Part], on_sent: Callable[[], None] | None) -> Answer:
        """Sends a request; returns when the head of the answer has arrived. Raises ConnectionFault."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionFault("the connection is closed", sent=False)
        answer = self._answer = Answer(self)
        self._parser, self._headers, self._bare_bytes, self._is_sent = httptools.HttpResponseParser(self), {}, 0, False
        try:
            await self._write(transport, head, parts, answer, on_sent)
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    async def _write(
        self,
        transport: asyncio.Transport,
        head: bytes,
        parts: Sequence[Part],
        answer: Answer,
        on_sent: Callable[[], None] | None,
    ) -> None:
        """Writes a request as fast as the provider reads. An answer that comes before its end ends the writing."""
        left = sum(len(part) for part in parts)
        if left > _SLICE_BYTES:
            transport.write(head)
            slices = _sliced(parts)
        else:
            slices = iter((b"".join((head, *parts)),))
            left += len(head)
        for piece in slices:
            if transport.is_closing() or answer.has_head:
                return
            left -= len(piece)
            if not left:  # before the write: after a failed one it is unknown what was sent
                self._is_sent = True
                if on_sent is not None:
                    on_sent()
            transport.write(piece)
            if self._writable is not None:
                await asyncio.shield(self._writable)

    def pause(self) -> None:
        """Stops the reading."""
        if self.is_open and not self.is_paused and self._transport is not None:
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Continues the reading."""
        if self.is_open and self.is_paused and self._transport is not None:
            self.is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Closes the connection at once: without waiting for unsent bytes, or for the end of an encrypted answer."""
        transport = self._transport
        if transport is None:
            return
        is_encrypted = transport.get_extra_info("ssl_object") is not None
        if transport.get_write_buffer_size() or (is_encrypted and self._answer is not None):
            transport.abort()
        else:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Notes the transport; called again with the encrypted one, after a tunnel."""
        if hasattr(transport, "max_size"):  # asyncio's own sockets: 256 kB otherwise
            transport.max_size = _READ_BYTES
        self._transport = transport  # type: ignore[assignment] # a stream's transport: reads and writes

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends an answer that ends with its connection; any other is broken."""
        answer, self._answer = self._answer, None
        self._transport = None
        self._continue_writing()
        self._on_lost(self)
        if answer is not None:
            whole = (
                exc is None and answer.has_head and not {"content-length", "transfer-encoding"} & self._headers.keys()
            )
            answer.on_end(None if whole else self._fault("the connection was lost"))

    def pause_writing(self) -> None:
        """Makes the writing wait: the transport's buffer is full."""
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """Lets the writing go on."""
        self._continue_writing()

    def _continue_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parses what arrived."""
        answer, parser = self._answer, self._parser
        if answer is None or parser is None:
            self.abort()  # nothing was asked
            return
        self._bare_bytes += len(data)
        try:
            parser.feed_data(data)
            self._pass_on()
            if self._bare_bytes > MAX_HEAD_BYTES:
                self._break("the head is too long")
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours: the loop logs it, and the connection is lost
        except httptools.HttpParserError:
            self._break("the answer is no HTTP")
        except httptools.HttpParserUpgrade:
            self._break("the answer changes the protocol")

    def _pass_on(self) -> None:
        """Passes on what arrived at once as one piece: each event of the provider is a chunk of its own."""
        if not self._arrived:
            return
        pieces, self._arrived = self._arrived, []
        if self._answer is not None:
            self._answer.take(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _break(self, reason: str) -> None:
        self._pass_on()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.on_end(self._fault(reason))
        self.abort()

    def _fault(self, reason: str) -> ConnectionFault:
        return ConnectionFault(reason, sent=self._is_sent)

    def on_message_begin(self) -> None:
        """Closes a connection that says more than one answer."""
        if self._answer is None:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collects a header; of a repeated one the last counts. Those of a trailer mean nothing to us."""
        if self._answer is None or self._answer.has_head:
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Passes the head on, unless it is an interim one (1xx)."""
        answer, parser = self._answer, self._parser
        if answer is None or parser is None:
            return
        status = parser.get_status_code()
        if status < _OK:
            self._headers = {}
            return
        answer.on_head(status, self._headers)
        self._continue_writing()

    def on_body(self, body: bytes) -> None:
        """Keeps a piece until everything that arrived with it is parsed."""
        self._bare_bytes = 0
        self._arrived.append(body)

    def on_message_complete(self) -> None:
        """Ends the answer. The connection is free if both sides keep it and the request was sent whole."""
        answer, parser = self._answer, self._parser
        if answer is None or parser is None or not answer.has_head:
            return
        self._pass_on()
        self._answer = None
        may_stay = self._is_sent and parser.should_keep_alive()
        answer.on_end()
        if may_stay and self.is_open:
            self.resume()
            self._on_free(self)
        else:
            self.abort()


def _sliced(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), _SLICE_BYTES):
            yield view[start : start + _SLICE_BYTES]
