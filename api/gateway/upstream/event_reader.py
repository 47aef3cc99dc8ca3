"""Splits Anthropic's event stream into frames, and reads the event of each: bytes in, typed events out.

Chunks may be cut anywhere, even inside a character or a line end. A frame ends with a blank line; the buffer is
bounded. Halves of a character that two deltas share are joined; a lone one becomes U+FFFD. All text that leaves this
module can be encoded in UTF-8.
"""

import re
from collections.abc import Iterable, Iterator

from api.gateway.upstream.events import (
    BadStream,
    Event,
    Halves,
    Text,
    ThinkingClosed,
    ThinkingOpened,
    read_event,
    text_delta,
    whole,
)

MAX_FRAME_BYTES = 1 << 20
_PLAIN = re.compile(rb"event: ([^\r\n]*+)\ndata: ([^\r\n]*+)\n\n")
"""A frame of two lines, which is how Anthropic writes all of them."""
_ONE_DELTA = re.compile(rb"event: content_block_delta\ndata: ([^\r\n]*+)\n\n")
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_BLANK_LINE_BYTES = 4
_REPLACEMENT = "\ufffd"


class EventReader:
    """The parser of one stream."""

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._rest = bytearray()
        """A frame that has not ended. It grows in place and is searched once: a large frame comes in many chunks."""
        self._half = ""
        self._thinks = False
        """Whether a block of thinking is open."""

    def feed(self, chunk: bytes) -> Iterable[Event]:
        """Returns the events that `chunk` completes, in order. Raises BadStream."""
        if not self._rest and (delta := _ONE_DELTA.fullmatch(chunk)):
            return self._events(read_event(b"content_block_delta", delta[1]))
        return (event for _, events in self._frames(chunk) for event in events)

    def one_text(self, chunk: bytes) -> str | None:
        """Returns the text of a chunk that is one delta of text; None for any other, which `feed` reads.

        Nearly every read at Claude's usual pace is one: its cost is that of a relayed word.
        """
        delta = None if self._rest or self._half else _ONE_DELTA.fullmatch(chunk)
        return None if delta is None else text_delta(delta[1])

    def frames(self, chunk: bytes) -> Iterable[tuple[bytes, Iterable[Event]]]:
        """Returns the frames that `chunk` completes, byte for byte, each with its events. Raises BadStream."""
        if not self._rest and (delta := _ONE_DELTA.fullmatch(chunk)):
            return ((chunk, self._events(read_event(b"content_block_delta", delta[1]))),)
        return self._frames(chunk)

    def _frames(self, chunk: bytes) -> Iterator[tuple[bytes, Iterable[Event]]]:
        data, rest = chunk, self._rest
        if rest:
            new = max(0, len(rest) - _BLANK_LINE_BYTES)
            rest += chunk
            if rest.find(b"\n\n", new) < 0 and (rest.find(b"\r", new) < 0 or not _BLANK_LINE.search(rest, new)):
                self._check_length()
                return
            data = bytes(rest)
        start = 0
        while data.find(b"\n\n", start) >= 0 and (plain := _PLAIN.match(data, start)):
            start = plain.end()
            yield plain[0], self._events(read_event(plain[1], plain[2]))
        for end in _frame_ends(data, start):
            frame, start = data[start:end], end
            yield frame, self._events(read_event(*_fields(frame)))
        self._rest = bytearray(data[start:])
        self._check_length()

    def _check_length(self) -> None:
        if len(self._rest) > self._max_frame_bytes:
            raise BadStream("frame too long")

    def _events(self, event: "Event | Halves | None") -> Iterable[Event]:
        if event is None:
            return ()
        if isinstance(event, ThinkingClosed):
            closes, self._thinks = self._thinks, False
            return (event,) if closes else ()
        self._thinks = self._thinks or isinstance(event, ThinkingOpened)
        if self._half or isinstance(event, Halves):
            return tuple(self._joined(event))
        return (event,)

    def _joined(self, event: "Event | Halves") -> Iterator[Event]:
        """Joins the held half with the event's text; holds a half at the end of that text."""
        half, self._half = self._half, ""
        if not isinstance(event, Text | Halves):
            yield Text(_REPLACEMENT)
            yield event
            return
        text = half + event.text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._half, text = text[-1], text[:-1]
        if text:
            yield Text(whole(text))


def _frame_ends(data: bytes, start: int) -> Iterator[int]:
    """The ends of the complete frames from `start` on.

    A CR at the very end may be half of a CRLF: the next chunk decides.
    """
    if b"\r" not in data:
        at = data.find(b"\n\n", start)
        while at >= 0:
            yield at + 2
            at = data.find(b"\n\n", at + 2)
        return
    for blank in _BLANK_LINE.finditer(data, start):
        if blank.end() < len(data) or data[-1:] != b"\r":
            yield blank.end()


def data_of(frame: bytes) -> bytes:
    """The data of a frame."""
    return _fields(frame)[1]


def _fields(frame: bytes) -> tuple[bytes, bytes]:
    """Returns the event name and data of a frame, by the rules of server-sent events."""
    name, data = b"", []
    if b"\r" in frame:
        frame = frame.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for line in frame.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].removeprefix(b" ")
    return name, data[0] if len(data) == 1 else b"\n".join(data)
