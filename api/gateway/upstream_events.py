"""A parser of Anthropic's event stream: bytes in, typed events out.

Chunks may be cut anywhere, even inside a character or a line end. A frame ends with a blank line and is decoded by
msgspec into the type of its event name. Unknown events, delta types and fields are ignored, since Anthropic's
versioning policy lets it add them. The buffer is bounded.

A delta may be cut inside a character: JSON then has one half of a surrogate pair in each of two texts. The halves are
joined; a lone one becomes U+FFFD. All text that leaves this module can be encoded in UTF-8.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Annotated, Any

import msgspec

from metering.pricing.tokens import ReportedUsage

MAX_FRAME_BYTES = 1 << 20
_DELTA = b"event: content_block_delta\ndata: "
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_REPLACEMENT = "\ufffd"


class BadStream(Exception):
    """The bytes are no valid event stream: bad JSON, or a frame without end."""


class Text(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str


class Thinking(msgspec.Struct, frozen=True):
    """A piece of thinking: generated and paid for, not relayed."""

    text: str


Word = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z", max_length=200)]
"""A name that is stored: Postgres text has no NUL, so a stream with one is invalid."""


class MessageStart(msgspec.Struct, frozen=True):
    """The answer begins; every input count is known."""

    id: Word
    model: Word
    usage: ReportedUsage


class MessageDelta(msgspec.Struct, frozen=True):
    """Cumulative counts; with a stop reason they are final."""

    stop_reason: str | None
    usage: ReportedUsage


class MessageStop(msgspec.Struct, frozen=True):
    """The end of the answer."""


class UpstreamErrorEvent(msgspec.Struct, frozen=True):
    """The stream ended with an error."""

    type: str


Event = Text | Thinking | MessageStart | MessageDelta | MessageStop | UpstreamErrorEvent


class _Halves(msgspec.Struct, frozen=True):
    """A piece of the answer that contains half a surrogate pair."""

    text: str


class _Delta(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class _BlockDelta(msgspec.Struct):
    delta: _Delta


class _Named(msgspec.Struct):
    type: str


class _NamedDelta(msgspec.Struct):
    delta: _Named


class _Start(msgspec.Struct):
    message: MessageStart


class _Stop(msgspec.Struct):
    stop_reason: Word | None = None


class _MessageDelta(msgspec.Struct):
    delta: _Stop
    usage: ReportedUsage | None = None


class _ErrorBody(msgspec.Struct):
    type: str = "api_error"


class _Error(msgspec.Struct):
    error: _ErrorBody


_KNOWN_DELTAS = frozenset({"text_delta", "thinking_delta", "input_json_delta"})
_block_delta = msgspec.json.Decoder(_BlockDelta).decode
_named_delta = msgspec.json.Decoder(_NamedDelta).decode
_message_start = msgspec.json.Decoder(_Start).decode
_message_delta = msgspec.json.Decoder(_MessageDelta).decode
_error = msgspec.json.Decoder(_Error).decode
_loose_delta = partial(msgspec.convert, type=_BlockDelta)
_loose_named = partial(msgspec.convert, type=_NamedDelta)


class EventReader:
    """The parser of one stream."""

    def __init__(self) -> None:
        self._rest = b""
        self._half = ""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Returns the events that `chunk` completes, in order. Raises BadStream."""
        if not self._rest and _is_one_delta(chunk):  # nearly every read at Claude's usual pace
            event = _read(b"content_block_delta", chunk[len(_DELTA) : -2])
            if self._half or isinstance(event, _Halves):
                return () if event is None else self._joined(event)
            return () if event is None else (event,)
        return self._feed(chunk)

    def _feed(self, chunk: bytes) -> Iterator[Event]:
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            if data.endswith(b"\r"):  # possibly half of a CRLF: the next chunk decides
                self._rest = data
                self._check()
                return
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *frames, self._rest = data.split(b"\n\n")
        self._check()
        for frame in frames:
            event = _read(*_fields(frame))
            if event is None:
                continue
            if self._half or isinstance(event, _Halves):
                yield from self._joined(event)
            else:
                yield event

    def _joined(self, event: "Event | _Halves") -> Iterator[Event]:
        """Joins the held half with the event's text; holds a half at the end of that text."""
        half, self._half = self._half, ""
        if not isinstance(event, Text | _Halves):
            yield Text(_REPLACEMENT)
            yield event
            return
        text = half + event.text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._half, text = text[-1], text[:-1]
        if text:
            yield Text(whole(text))

    def _check(self) -> None:
        if len(self._rest) > MAX_FRAME_BYTES:
            raise BadStream("frame too long")


def _is_one_delta(chunk: bytes) -> bool:
    """Whether the chunk is one complete frame of two lines, which is how Anthropic writes a delta."""
    return (
        chunk.startswith(_DELTA)
        and chunk.endswith(b"\n\n")
        and chunk.find(b"\n", len(_DELTA)) == len(chunk) - 2
        and b"\r" not in chunk
    )


def whole(text: str) -> str:
    """Returns the text with adjacent halves of surrogate pairs joined and lone ones replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read(name: bytes, data: bytes) -> "Event | _Halves | None":
    try:
        try:
            return _typed(name, data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # msgspec rejects half a surrogate pair, which JSON allows
            if not _HALF.search(data):
                raise
            return _with_halves(name, data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadStream(f"cannot decode event {name.decode(errors='replace')}") from error
    except ValueError as error:
        raise BadStream("event is not JSON in UTF-8") from error


def _typed(name: bytes, data: bytes) -> Event | None:
    match name:
        case b"content_block_delta":
            return _of_delta(_block_delta, _named_delta, data)
        case b"message_start":
            return _message_start(data).message
        case b"message_delta":
            decoded = _message_delta(data)
            return MessageDelta(decoded.delta.stop_reason, decoded.usage or ReportedUsage())
        case b"message_stop":
            return MessageStop()
        case b"error":
            return UpstreamErrorEvent(_error(data).error.type)
        case _:
            return None


def _with_halves(name: bytes, data: bytes) -> "Event | _Halves | None":
    """Decodes with Python's json, which accepts lone surrogates."""
    value = json.loads(data.decode())
    if name != b"content_block_delta":
        return _typed(name, whole(json.dumps(value, ensure_ascii=False)).encode())
    event = _of_delta(_loose_delta, _loose_named, value)
    match event:
        case Text():
            return _Halves(event.text)
        case Thinking():
            return Thinking(whole(event.text))
        case _:
            return event


def _of_delta(decode: Callable[[Any], _BlockDelta], named: Callable[[Any], _NamedDelta], given: Any) -> Event | None:
    try:
        delta = decode(given).delta
    except msgspec.ValidationError:
        if named(given).delta.type in _KNOWN_DELTAS:
            raise
        return None  # an unknown type may use these field names differently
    match delta.type:
        case "text_delta":
            return Text(delta.text)
        case "thinking_delta":
            return Thinking(delta.thinking)
        case "input_json_delta":
            return Thinking(delta.partial_json)
        case _:
            return None


def _fields(frame: bytes) -> tuple[bytes, bytes]:
    """Returns the event name and data of a frame, by the rules of server-sent events."""
    name, data = b"", []
    for line in frame.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].removeprefix(b" ")
    return name, data[0] if len(data) == 1 else b"\n".join(data)
