"""The forms of an answer of `/chat`: the text as events, as itself, as one JSON object, or as lines of JSON.

What a person may see of an answer is alike in all of them; `api.gateway.chat.forms` chooses. The end of a complete
answer is the last write, which waits for the settlement, and names its usage where the form or the client asks for it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from starlette.types import Scope

from api.gateway.sse import DONE, KEEPALIVE, STREAM_HEADERS, TextFramer, done_frame, error_frame
from api.gateway.upstream.client import UpstreamStream
from api.gateway.upstream.event_reader import EventReader
from api.gateway.upstream.events import BadStream, Event, Text
from api.gateway.upstream.pool import Header
from api.http.problems import problem_of
from metering.journal.records import Settlement

MAX_ANSWER_BYTES = 64 << 20
"""The events of an answer that is sent as a whole: several times what the largest output takes."""
_TEXT_HEADERS = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),  # a browser that guesses the type waits for the first kilobyte
)
encode = msgspec.json.encode


class TextCodec:
    """The common part of all forms. `frame`: the bytes that the client receives of a piece of text.

    `tells_usage`: whether the end of the answer names what it used.
    """

    streams = True
    keepalive = b""
    tells_usage = False

    def __init__(self, frame: Callable[[str], bytes]) -> None:
        self._reader = EventReader()
        self._frame = frame
        self._out = b""

    def one_text(self, piece: bytes) -> tuple[str, bytes] | None:
        """The text of a piece that is one delta of text, and its frame."""
        text = self._reader.one_text(piece)
        return None if text is None else (text, self._frame(text))

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events of `piece`; its text is framed as they are read."""
        for event in self._reader.feed(piece):
            if type(event) is Text:
                self._out += self._frame(event.text)
            yield event

    def taken(self) -> bytes:
        """The frames of the text."""
        out, self._out = self._out, b""
        return out


class ChatCodec(TextCodec):
    """Server-sent events: the text alone, as unnamed events; `done` or `error` at the end."""

    keepalive = KEEPALIVE

    def __init__(self, *, tells_usage: bool = False, request_id: str = "") -> None:
        self._framer = TextFramer()
        super().__init__(self._framer.frame)
        self.tells_usage = tells_usage
        self._request_id = request_id

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        del stream
        return list(STREAM_HEADERS)

    def last(self, settlement: Settlement | None) -> bytes:
        """The rest of the text, and `done`."""
        done = DONE if settlement is None else done_frame(end_of(settlement, self._request_id))
        return self._framer.rest() + done

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """The rest of the text, and `error`."""
        return self._framer.rest() + error_frame(problem_of(error, scope).body)


class PlainCodec(TextCodec):
    """The text as it is, in UTF-8. An answer that fails has no last chunk, since text has no words for it."""

    def __init__(self) -> None:
        super().__init__(str.encode)

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        del stream
        return list(_TEXT_HEADERS)

    def last(self, settlement: Settlement | None) -> bytes:
        """Nothing: the end of the body is the end of the text."""
        del settlement
        return b""

    def failed(self, error: Exception, scope: Scope) -> None:
        """None: the connection is cut."""
        del error, scope


class JsonCodec(TextCodec):
    """One JSON object: the text, and what `end_of` tells."""

    streams = False
    tells_usage = True

    def __init__(self, request_id: str) -> None:
        super().__init__(self._keep)
        self._request_id = request_id
        self._texts: list[str] = []
        self._bytes = 0

    def _keep(self, text: str) -> bytes:
        self._texts.append(text)
        return b""

    def one_text(self, piece: bytes) -> None:
        """None: every piece counts towards the bound."""

    def read(self, piece: bytes) -> Iterator[Event]:
        """The events of `piece`. Raises BadStream past `MAX_ANSWER_BYTES`."""
        self._bytes += len(piece)
        if self._bytes > MAX_ANSWER_BYTES:
            raise BadStream("answer too long")
        yield from super().read(piece)

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200."""
        del stream
        return [(b"content-type", b"application/json")]

    def last(self, settlement: Settlement | None) -> bytes:
        """The whole answer."""
        return encode({"text": "".join(self._texts), **end_of(settlement, self._request_id)})

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """Never called: the head is sent with the answer."""
        del error, scope
        return b""


class LinesCodec(TextCodec):
    """Lines of JSON, each a text frame of the WebSocket: `{"text": ...}`, then `{"done": true}` or `{"error": ...}`."""

    def __init__(self, *, tells_usage: bool, request_id: str) -> None:
        super().__init__(_line)
        self.tells_usage = tells_usage
        self._request_id = request_id

    def head(self, stream: UpstreamStream) -> list[Header]:
        """The headers of a 200, which the WebSocket does not send."""
        del stream
        return [(b"content-type", b"application/x-ndjson")]

    def last(self, settlement: Settlement | None) -> bytes:
        """`done`."""
        end = {} if settlement is None else end_of(settlement, self._request_id)
        return encode({"done": True, **end}) + b"\n"

    def failed(self, error: Exception, scope: Scope) -> bytes:
        """`error`, with a problem."""
        return encode({"error": problem_of(error, scope).body}) + b"\n"


def _line(text: str) -> bytes:
    return encode({"text": text}) + b"\n" if text else b""


def end_of(settlement: Settlement | None, request_id: str) -> dict[str, Any]:
    """The end of an answer: the model, why it stopped, and the usage as it was committed."""
    if settlement is None:
        return {"request_id": request_id, "model": None, "stop_reason": None, "usage": None}
    usage = settlement.usage
    return {
        "request_id": request_id,
        "model": settlement.model,
        "stop_reason": settlement.stop_reason,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_write_5m_tokens": usage.cache_write_5m_tokens,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens,
            "source": settlement.source.value,
        },
    }
