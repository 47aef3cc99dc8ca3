"""The frames that `/chat` sends: a piece of text is an unnamed event, and arrives whole at any conforming parser.

A line break inside a text is several `data:` lines. SSE knows one line break only, so CR and CRLF arrive as LF, also
a CRLF whose halves came in two pieces. The blank after `data:` keeps a leading blank of the text.
"""

from typing import Any

import msgspec

DONE = b"event: done\ndata: \n\n"
KEEPALIVE = b": keep-alive\n\n"


class TextFramer:
    """Frames the pieces of one answer."""

    def __init__(self) -> None:
        self._held_cr = False

    def frame(self, text: str) -> bytes:
        """The frame of the next piece; nothing when it is empty (or only half of a CRLF)."""
        if not text:
            return b""  # decides nothing about a CR that waits
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
        """What is still held back when the answer ends."""
        held, self._held_cr = self._held_cr, False
        return data_frame("\n") if held else b""


def data_frame(text: str) -> bytes:
    """One unnamed event; `text` has no CR."""
    if "\n" in text:
        text = text.replace("\n", "\ndata: ")
    return f"data: {text}\n\n".encode()


def error_frame(problem: dict[str, Any]) -> bytes:
    """The event that ends a stream that broke: `problem` as JSON."""
    return b"event: error\ndata: " + msgspec.json.encode(problem) + b"\n\n"
