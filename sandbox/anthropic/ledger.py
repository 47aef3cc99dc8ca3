"""The ledger: one entry per request, written when it is accepted and updated while it is served.

An entry never claims more than was generated, and its input is what was processed: 0 for an HTTP error. Bounded; the
oldest entries are dropped first.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Literal

import msgspec

from core.clock import now_ms

MAX_ENTRIES = 200_000
MAX_REFS = 200_000
MAX_PEERS = 200_000

State = Literal["open", "completed", "error", "cut", "client_gone"]


class Entry(msgspec.Struct, kw_only=True):
    """One accepted request. Counts are tokens, `text_sent` and `system_len` characters, `*_ms` Unix time."""

    seq: int
    kind: Literal["messages", "count_tokens"]
    request_id: str
    message_id: str | None = None
    ref: str | None
    model: str
    """The model as echoed."""
    model_asked: str
    stream: bool = False
    status: int = 200
    input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_5m: int = 0
    cache_creation_1h: int = 0
    output_tokens: int = 0
    """Generated so far; the final usage's number once completed."""
    thinking_tokens: int = 0
    """The part of `output_tokens` that is thinking."""
    stop_reason: str | None = None
    """Only of a completed answer."""
    max_tokens: int | None = None
    pieces_sent: int = 0
    text_sent: int = 0
    state: State = "open"
    system_len: int = 0
    started_ms: int
    ended_ms: int | None = None


class Stats(msgspec.Struct, kw_only=True):
    """Counters since the start or the last clearing; `active` and `served` are of messages only."""

    served: int = 0
    """Ended, in whatever state."""
    active: int = 0
    max_active: int = 0
    count_calls: int = 0
    connections: int = 0
    """Distinct client sockets (address and port) that sent a request."""


class Ledger:
    """All entries, the counters, and how often each `ref` was failed."""

    def __init__(self, last_seq: int = 0) -> None:
        """Start empty; `last_seq` is the number of the last entry of an earlier start."""
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._failed: OrderedDict[str, int] = OrderedDict()
        self._peers: set[tuple[str, int]] = set()
        self._last_seq = last_seq
        self._stats = Stats()

    def open(
        self, kind: Literal["messages", "count_tokens"], *, request_id: str, ref: str | None, model: str, asked: str
    ) -> Entry:
        """Writes the entry of an accepted request."""
        self._last_seq += 1
        entry = Entry(
            seq=self._last_seq,
            kind=kind,
            request_id=request_id,
            ref=ref,
            model=model,
            model_asked=asked,
            started_ms=now_ms(),
        )
        self._entries.append(entry)
        if kind == "messages":
            self._stats.active += 1
            self._stats.max_active = max(self._stats.max_active, self._stats.active)
        else:
            self._stats.count_calls += 1
        return entry

    def end(self, entry: Entry, state: State) -> None:
        """Ends an entry; a later call replaces the state, not the time."""
        entry.state = state
        if entry.ended_ms is None:
            entry.ended_ms = now_ms()
            if entry.kind == "messages":
                self._stats.active -= 1
                self._stats.served += 1

    def fail(self, ref: str, times: int) -> bool:
        """Counts a request of this `ref`; whether it is among the first `times`."""
        failed = self._failed.get(ref, 0)
        if failed >= times:
            return False
        self._failed[ref] = failed + 1
        if len(self._failed) > MAX_REFS:
            self._failed.popitem(last=False)
        return True

    def meet(self, peer: tuple[str, int] | None) -> None:
        """Note the socket that a request came from."""
        if peer is not None and len(self._peers) < MAX_PEERS:
            self._peers.add((peer[0], peer[1]))

    def since(self, seq: int, ref: str | None) -> Iterator[Entry]:
        """Yield the entries after `seq`, of one `ref` or of all, oldest first."""
        return (entry for entry in self._entries if entry.seq > seq and ref in (None, entry.ref))

    @property
    def last_seq(self) -> int:
        """The number of the newest entry; it keeps on growing through `clear`."""
        return self._last_seq

    def stats(self) -> Stats:
        """Return the counters of this moment."""
        self._stats.connections = len(self._peers)
        return self._stats

    def clear(self) -> None:
        """Forget the entries, the failures and the counters; requests still open stay in `active`."""
        self._entries.clear()
        self._failed.clear()
        self._peers.clear()
        active = self._stats.active
        self._stats = Stats(active=active, max_active=active)
