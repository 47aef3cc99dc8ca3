"""The answer of `POST /chat`: the text alone, as unnamed events; `done` or `error` at the end."""

from collections.abc import Iterator

from starlette.types import Scope

from api.gateway.sse import DONE, KEEPALIVE, STREAM_HEADERS, TextFramer, error_frame
from api.gateway.upstream.client import UpstreamStream
from api.gateway.upstream.event_reader import EventReader
from api.gateway.upstream.events import Event, Text
from api.gateway.upstream.pool import Header
from api.http.problems import problem_of


class ChatCodec:
    """The codec of one answer."""

    streams = True
    keepalive = KEEPALIVE

    def __init__(self) -> None:
        self._reader = EventReader()
        self._framer = TextFramer()
        self._out = b""

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        del stream
        return list(STREAM_HEADERS)

    def one_text(self, piece: bytes) -> tuple[str, bytes] | None:
        """The text of a piece that is one delta of text, and its frame."""
        text = self._reader.one_text(piece)
        return None if text is None else (text, self._framer.frame(text))

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events of `piece`; its text is framed as they are read."""
        for event in self._reader.feed(piece):
            if type(event) is Text:
                self._out += self._framer.frame(event.text)
            yield event

    def taken(self) -> bytes:
        """The frames of the text."""
        out, self._out = self._out, b""
        return out

    def last(self) -> bytes:
        """The rest of the text, and `done`."""
        return self._framer.rest() + DONE

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """The rest of the text, and `error`."""
        return self._framer.rest() + error_frame(problem_of(error, scope).body)
