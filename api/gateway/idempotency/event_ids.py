"""Ids of the events of `/chat`, so that `Last-Event-ID` can name the place where a reader stopped. Pure.

An id is the run and the number of bytes of its answer, without ids, up to the end of the event. The answer of another
run is another text, so a place in one is none in the other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.gateway.upstream.pool import Header

_END = b"\n\n"
_ID = re.compile(r"([0-9a-f]{32})-([0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Place:
    """The end of an event."""

    run: str
    offset: int


def place_of(event_id: str) -> Place | None:
    """Returns the place that an id names; None for a text that is no id of ours."""
    match = _ID.fullmatch(event_id)
    return None if match is None else Place(match[1], int(match[2]))


def is_event_stream(headers: Sequence[Header]) -> bool:
    """Whether the headers are those of an event stream."""
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


class EventIds:
    """Adds ids to the events of one answer, of which the reader has `offset` bytes."""

    def __init__(self, run: str, offset: int = 0) -> None:
        self._run = run
        self._skip = offset
        self._offset = 0
        self._rest = b""

    def mark(self, piece: bytes, *, is_last: bool = False) -> bytes:
        """Returns the events that `piece` completes, with ids; none that the reader has. Comments get no id."""
        events = (self._rest + piece).split(_END)
        self._rest = events.pop()
        out = []
        for event in events:
            self._offset += len(event) + len(_END)
            if self._offset <= self._skip:
                continue
            if not event.startswith(b":"):
                out.append(b"id: %b-%d\n" % (self._run.encode(), self._offset))
            out += (event, _END)
        if is_last:
            out.append(self._rest)  # no whole event: an answer of `/chat` has none
        return b"".join(out)
