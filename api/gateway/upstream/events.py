"""The events of Anthropic's stream, and how each is decoded. Pure.

Unknown events, delta types and fields are ignored, since Anthropic's versioning policy lets it add them. A delta may be
cut inside a character: JSON then has one half of a surrogate pair in each of two texts (`Halves`).
"""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec

from metering.pricing.tokens import Count, ReportedUsage

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class BadStream(Exception):
    """The bytes are no valid event stream: bad JSON, or a frame without end."""


class Text(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str


class Thinking(msgspec.Struct, frozen=True):
    """A piece of thinking, or of a tool's input. `estimated_tokens`: of hidden thinking, where the provider says."""

    text: str
    estimated_tokens: int = 0


class ThinkingOpened(msgspec.Struct, frozen=True):
    """A block of thinking begins; its text may never be sent."""


class ThinkingClosed(msgspec.Struct, frozen=True):
    """The block of thinking ends."""


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


Event = (
    Text | Thinking | ThinkingOpened | ThinkingClosed | MessageStart | MessageDelta | MessageStop | UpstreamErrorEvent
)


class Halves(msgspec.Struct, frozen=True):
    """A piece of the answer that contains half a surrogate pair."""

    text: str


class _Delta(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    estimated_tokens: Count | None = None
    partial_json: str = ""


class _BlockDelta(msgspec.Struct):
    delta: _Delta


class _Named(msgspec.Struct):
    type: str


class _NamedDelta(msgspec.Struct):
    delta: _Named


class _BlockStart(msgspec.Struct):
    content_block: _Named


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


def text_delta(data: bytes) -> str | None:
    """The text of a delta of text; None for any other delta."""
    try:
        delta = _block_delta(data).delta
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return delta.text if delta.type == "text_delta" else None


_block_delta = msgspec.json.Decoder(_BlockDelta).decode
_named_delta = msgspec.json.Decoder(_NamedDelta).decode
_block_start = msgspec.json.Decoder(_BlockStart).decode
_message_start = msgspec.json.Decoder(_Start).decode
_message_delta = msgspec.json.Decoder(_MessageDelta).decode
_error = msgspec.json.Decoder(_Error).decode
_loose_delta = partial(msgspec.convert, type=_BlockDelta)
_loose_named = partial(msgspec.convert, type=_NamedDelta)


def whole(text: str) -> str:
    """Returns the text with adjacent halves of surrogate pairs joined and lone ones replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_event(name: bytes, data: bytes) -> "Event | Halves | None":
    """The event of this name; None for one that is not known. Raises BadStream."""
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
    decode = _DECODERS.get(name)
    return None if decode is None else decode(data)


def _with_halves(name: bytes, data: bytes) -> "Event | Halves | None":
    """Decodes with Python's json, which accepts lone surrogates."""
    value = json.loads(data.decode())
    if name != b"content_block_delta":
        return _typed(name, whole(json.dumps(value, ensure_ascii=False)).encode())
    event = _of_delta(_loose_delta, _loose_named, value)
    match event:
        case Text():
            return Halves(event.text)
        case Thinking():
            return Thinking(whole(event.text), event.estimated_tokens)
        case _:
            return event


def _of_block(data: bytes) -> Event | None:
    try:
        kind = _block_start(data).content_block.type
    except msgspec.ValidationError:
        return None
    return ThinkingOpened() if kind in {"thinking", "redacted_thinking"} else None


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
            return Thinking(delta.thinking, delta.estimated_tokens or 0)
        case "input_json_delta":
            return Thinking(delta.partial_json)
        case _:
            return None


def _of_message_delta(data: bytes) -> MessageDelta:
    decoded = _message_delta(data)
    return MessageDelta(decoded.delta.stop_reason, decoded.usage or ReportedUsage())


_DECODERS: dict[bytes, Callable[[bytes], Event | None]] = {
    b"content_block_delta": partial(_of_delta, _block_delta, _named_delta),
    b"content_block_start": _of_block,
    b"content_block_stop": lambda _: ThinkingClosed(),  # if one is open: `EventReader` knows
    b"message_start": lambda data: _message_start(data).message,
    b"message_delta": _of_message_delta,
    b"message_stop": lambda _: MessageStop(),
    b"error": lambda data: UpstreamErrorEvent(_error(data).error.type),
}
