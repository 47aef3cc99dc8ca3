"""The answers of `POST /v1/messages`: the provider's events byte for byte, or one message assembled from them.

Nothing is added to a stream but `ping` events, which every client skips. `message_stop` is the last write, so it waits
for the settlement, and so does the end of an assembled message.
"""

from collections.abc import Iterator

from starlette.types import Scope

from api.gateway.messages.assembly import Assembly
from api.gateway.messages.errors import error_event
from api.gateway.messages.headers import returned
from api.gateway.sse import STREAM_HEADERS
from api.gateway.upstream.client import UpstreamStream
from api.gateway.upstream.event_reader import EventReader, data_of
from api.gateway.upstream.events import BadStream, Event, MessageStop, UpstreamErrorEvent
from api.gateway.upstream.pool import Header
from api.http.problems import anthropic_error_of
from metering.journal.records import Settlement

MAX_FRAME_BYTES = 16 << 20
"""The results of a server tool come whole in one event."""
_MAX_MESSAGE_BYTES = 64 << 20
"""The events of an answer that is assembled: several times what the largest output takes."""
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class StreamCodec:
    """The codec of a streamed answer."""

    streams = True
    tells_usage = False
    keepalive = _PING

    def __init__(self) -> None:
        self._reader = EventReader(max_frame_bytes=MAX_FRAME_BYTES)
        self._out: list[bytes] = []
        self._last = b""

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        return [*STREAM_HEADERS, *returned(stream.headers)]

    def one_text(self, piece: bytes) -> tuple[str, bytes] | None:
        """The text of a piece that is one delta of text, and the piece."""
        text = self._reader.one_text(piece)
        return None if text is None else (text, piece)

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events of `piece`; their bytes are kept as they are read."""
        for frame, events in self._reader.frames(piece):
            for event in events:
                if type(event) is MessageStop:
                    self._last = frame
                    yield event
                    return
                if type(event) is UpstreamErrorEvent:
                    yield event  # its words may name the operator's account
                    return
            self._out.append(frame)
            yield from events

    def taken(self) -> bytes:
        """The bytes of complete events."""
        out = self._out
        if len(out) == 1:
            self._out = []
            return out[0]
        if not out:
            return b""
        self._out = []
        return b"".join(out)

    def last(self, settlement: Settlement | None) -> bytes:
        """`message_stop`."""
        del settlement
        return self._last

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """An error event."""
        return error_event(anthropic_error_of(error, scope))


class WholeCodec:
    """The codec of an answer that was not streamed."""

    streams = False
    tells_usage = False
    keepalive = b""

    def __init__(self) -> None:
        self._reader = EventReader(max_frame_bytes=MAX_FRAME_BYTES)
        self._assembly = Assembly()
        self._bytes = 0

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        return [(b"content-type", b"application/json"), *returned(stream.headers)]

    def one_text(self, piece: bytes) -> None:
        """None: every event is assembled."""

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events of `piece`, which are assembled as they are read."""
        self._bytes += len(piece)
        if self._bytes > _MAX_MESSAGE_BYTES:
            raise BadStream("answer too long")
        for frame, events in self._reader.frames(piece):
            try:
                self._assembly.take(data_of(frame))
            except (ValueError, TypeError, RecursionError) as error:
                raise BadStream("event is not JSON in UTF-8") from error
            yield from events

    def taken(self) -> bytes:
        """Nothing before the end."""
        return b""

    def last(self, settlement: Settlement | None) -> bytes:
        """The message."""
        del settlement
        return self._assembly.encoded()

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """Never called: the head is sent with the message."""
        del error, scope
        return b""
