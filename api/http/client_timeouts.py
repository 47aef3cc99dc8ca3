"""The clocks of a client's connection: a head, a body and a reader have a time limit each.

A connection that says nothing, a head or body that drips, and a reader that does not read cost an attacker nothing and
this process memory and descriptors. `Sweeper` looks at all connections about once a second: a request costs a few
assignments and no timer. Time that passes because this process does not read is not counted.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.connection_limits import REFUSAL, ClientLimits, ConnectionLimits
from core.logs import get_logger

LINGER_S = 1.0
"""A refused connection is read this long before it is closed: closing with unread data resets it, and the reset would
overtake the answer."""
_FLOOR_AFTER_S = 5
"""A body's bytes per second are looked at from then on: a round trip and a slow start take a while."""

_BLOCKED_S = 2
"""A process that was stopped or busy for so long did not read: what its clients sent meanwhile is still to come."""

log = get_logger(__name__)


class Stage(IntEnum):
    """The part of a request that a connection waits for from its client."""

    SILENT = 0
    """The first byte since the connect."""
    HEAD = 1
    BODY = 2
    NOTHING = 3
    """The request is whole, and its answer is on its way."""
    IDLE = 4
    """A further request, for as long as uvicorn's keep-alive allows."""
    LEFTOVER = 5
    """The rest of a body whose request was answered without it."""


class ClockedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with the clocks. A subclass writes the 408 (`answer_timeout`)."""

    admittance: ConnectionLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage = Stage.SILENT
        self.is_refused = False
        self._since_s = 0.0
        self._body_bytes = 0
        self._address: str | None = None
        self._lingers = False
        self._stalled: tuple[float, int] | None = None

    def connection_made(self, transport: Any) -> None:
        """Admits the connection, or refuses it with the 503."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._address = self.admittance.admit(self.client[0] if self.client else "")
        if self._address is None:
            self.connections.discard(self)
            self.is_refused = True
            transport.write(REFUSAL)
            if self.admittance.may_linger():
                self._lingers = True
                self.loop.call_later(LINGER_S, transport.abort)
            else:
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends its count."""
        super().connection_lost(exc)
        if self._address is not None:
            self.admittance.release(self._address)
        if self._lingers:
            self.admittance.end_linger()

    def data_received(self, data: bytes) -> None:
        """The first bytes of a request start the clock of its head."""
        if self.stage is Stage.IDLE:
            self._since_s = self.loop.time()
            self.stage = Stage.HEAD
        elif self.stage is Stage.SILENT:
            self.stage = Stage.HEAD
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request that was sent before the last one was answered starts here."""
        if self.stage is not Stage.HEAD:
            self._since_s = self.loop.time()
            self.stage = Stage.HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole; a body may follow."""
        self.stage, self._since_s, self._body_bytes = Stage.BODY, self.loop.time(), 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole. It may have been answered already, without its body."""
        if self.stage is Stage.LEFTOVER:
            self._wait_for_next()
        else:
            self.stage = Stage.NOTHING
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is whole: what of the body was not read is dropped, and what follows has a clock again."""
        if self.stage is Stage.NOTHING:
            if not self.pipeline:
                self._wait_for_next()
        elif self.stage is Stage.BODY and self.cycle.response_complete:
            self.stage, self._since_s = Stage.LEFTOVER, self.loop.time()
            self.cycle.body = bytearray()
        elif self.stage is Stage.HEAD:
            self._since_s = self.loop.time()
        super().on_response_complete()

    def _wait_for_next(self) -> None:
        self.stage, self._since_s = Stage.IDLE, self.loop.time()

    def answer_timeout(self) -> None:
        """Writes a 408 and closes."""
        raise NotImplementedError

    def resume_writing(self) -> None:
        """The reader took most of what waited for it."""
        self._stalled = None
        super().resume_writing()

    def check(self, now_s: float, elapsed_s: float) -> None:
        """Ends the connection if it is over a time limit. `elapsed_s`: since the last check."""
        if self._waits_for_reader():
            self._check_reader(now_s)
        else:
            self._stalled = None
        if self.transport.is_closing() or self.is_refused:
            return
        waited_s, limits = now_s - self._since_s, self.admittance.limits
        match self.stage:
            case Stage.SILENT if waited_s >= limits.head_s:
                self.transport.close()
            case Stage.HEAD if waited_s >= limits.head_s:
                if not self._owes_answer():
                    self._end("head")
                    self.answer_timeout()
            case Stage.BODY:
                self._check_body(waited_s, elapsed_s)
            case Stage.LEFTOVER if waited_s >= LINGER_S:
                self.transport.close()
            case Stage.IDLE if waited_s >= self.timeout_keep_alive:
                self.transport.close()  # uvicorn's own timer ends with the first byte of a leftover body

    def forgive(self, elapsed_s: float) -> None:
        """Leaves out a time in which this process did nothing."""
        self._since_s += elapsed_s
        self._stalled = None

    def _owes_answer(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it without the None that it begins with
        return cycle is not None and not cycle.response_complete

    def _check_body(self, waited_s: float, elapsed_s: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._since_s += elapsed_s
            return
        limits = self.admittance.limits
        is_slow = waited_s >= _FLOOR_AFTER_S and self._body_bytes < limits.min_bytes_per_s * waited_s
        if waited_s < limits.body_s and not is_slow:
            return
        self._end("body")
        if self.cycle.response_started:
            self.transport.abort()
        else:
            self.answer_timeout()
        self.cycle.disconnected = True  # what the application still answers would follow the 408
        self.cycle.message_event.set()

    def _waits_for_reader(self) -> bool:
        """Whether nothing is written until the reader has read: a full buffer, or the rest of a whole answer."""
        if self.flow.write_paused:
            return True
        is_over = self.transport.is_closing() or not self._owes_answer()
        return is_over and self.transport.get_write_buffer_size() > 0

    def _check_reader(self, now_s: float) -> None:
        """Within each `stall_s`, the reader has to take `min_bytes_per_s` out of the write buffer."""
        limits, left = self.admittance.limits, self.transport.get_write_buffer_size()
        if self._stalled is None:
            self._stalled = now_s, left
            return
        since_s, left_then = self._stalled
        if now_s - since_s < limits.stall_s:
            return
        if left_then - left <= limits.min_bytes_per_s * (now_s - since_s):
            self._end("reader")
            self.transport.abort()
        else:
            self._stalled = now_s, left

    def _end(self, clock: str) -> None:
        log.info("client_timed_out", clock=clock, client=self.client[0] if self.client else "")


class Sweeper:
    """Checks every connection every `sweep_s`."""

    def __init__(self, limits: ClientLimits) -> None:
        self._every_s = limits.sweep_s
        self._last_s: float | None = None

    def sweep(self, connections: Iterable[ClockedProtocol], now_s: float) -> bool:
        """Checks them if it is time; whether it was. `now_s`: the loop's time."""
        elapsed_s = self._every_s if self._last_s is None else now_s - self._last_s
        if elapsed_s < self._every_s:
            return False
        self._last_s = now_s
        for connection in connections:
            if elapsed_s < self._every_s + _BLOCKED_S:
                connection.check(now_s, elapsed_s)
            else:
                connection.forgive(elapsed_s)
        return True
