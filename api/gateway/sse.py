"""Server-sent event frames of `/chat`. A piece of text is an unnamed event.

A line break inside text becomes several `data:` lines. SSE has one line break, so CR and CRLF arrive as LF, even a CRLF
split over two pieces. The space after `data:` preserves a leading space of the text.
"""

from typing import Any

import msgspec

DONE = b"event: done\ndata: \n\n"
KEEPALIVE = b": keep-alive\n\n"
STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class TextFramer:
    """Frames the text of one answer."""

    def __init__(self) -> None:
        self._held_cr = False

    def frame(self, text: str) -> bytes:
        """Returns the frame of the next piece; empty for an empty piece, or one that is half of a CRLF."""
        if not text:
            return b""  # keeps a held CR
        if self._held_cr:
            self._held_cr = False
            if not text.startswith("\n"):
                text = "\n" + text
        if "\r" in text:
            if text.endswith("\r"):
                self._held_cr = True
                text = text[:-1]
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return data_frame(text) if text else b""

    def rest(self) -> bytes:
        """Returns the frame of a CR still held when the answer ends."""
        held, self._held_cr = self._held_cr, False
        return data_frame("\n") if held else b""


def data_frame(text: str) -> bytes:
    """Returns one unnamed event; `text` has no CR."""
    if "\n" in text:
        text = text.replace("\n", "\ndata: ")
    return f"data: {text}\n\n".encode()


def done_frame(end: dict[str, Any]) -> bytes:
    """Returns `done` with what the end tells, as JSON."""
    return b"event: done\ndata: " + msgspec.json.encode(end) + b"\n\n"


def error_frame(problem: dict[str, Any]) -> bytes:
    """Returns the event that ends a failed stream: `problem` as JSON."""
    return b"event: error\ndata: " + msgspec.json.encode(problem) + b"\n\n"
