"""Timeouts of client connections: request head, request body, and a client that does not read.

`Sweeper` checks all connections about once a second, so a request costs a few assignments and no timer. Time in which
this process does not read is not counted.
"""

import select
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.http.connection_limits import REFUSAL, ClientLimits, ConnectionLimits
from core.logs import get_logger

LINGER_S = 1.0
"""Seconds that a refused connection is still read: closing one with unread data resets it and drops the answer."""
_RATE_AFTER_S = 5
"""Seconds before a body's rate is checked: a round trip and TCP slow start take a while."""
BODY_BYTES_PER_S = 250_000
"""A large body has a second more for each of these bytes: the upload of a usual line, 2 Mbit/s."""
_BLOCKED_S = 2
"""A process blocked for longer did not read; what its clients sent meanwhile is not counted as silence."""
_LEFT = getattr(select, "POLLRDHUP", select.POLLHUP)  # the former is Linux's

log = get_logger(__name__)


class Stage(IntEnum):
    """The part of a request that a connection is waiting for."""

    SILENT = 0
    """The first byte of the connection."""
    HEAD = 1
    BODY = 2
    NOTHING = 3
    """The request is complete and being answered."""
    IDLE = 4
    """The next request, within uvicorn's keep-alive."""
    LEFTOVER = 5
    """The rest of a body that was answered unread."""


class SlowReader:
    """The progress of a client that is being waited for."""

    def __init__(self) -> None:
        self._since: tuple[float, int] | None = None

    def forget(self) -> None:
        """Notes that the client is not waited for any more, or was not given its time."""
        self._since = None

    def is_too_slow(self, now_s: float, unread: int, limits: ClientLimits) -> bool:
        """Whether it reads less than `min_bytes_per_s` within a `stall_s`. `unread`: bytes that wait for it."""
        if self._since is None:
            self._since = now_s, unread
            return False
        since_s, unread_then = self._since
        if now_s - since_s < limits.stall_s:
            return False
        self._since = now_s, unread
        return unread_then - unread <= limits.min_bytes_per_s * (now_s - since_s)


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with timeouts. A subclass writes the 408 (`answer_timeout`)."""

    connection_limits: ConnectionLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stage = Stage.SILENT
        self.is_refused = False
        self._since_s = 0.0
        self._body_bytes = 0
        self._address: str | None = None
        self._lingers = False
        self._reader = SlowReader()

    def connection_made(self, transport: Any) -> None:
        """Admits the connection, or refuses it with a 503."""
        super().connection_made(transport)
        self._since_s = self.loop.time()
        self._address = self.connection_limits.admit(self.client[0] if self.client else "")
        if self._address is None:
            self.connections.discard(self)
            self.is_refused = True
            transport.write(REFUSAL)
            if self.connection_limits.may_linger():
                self._lingers = True
                self.loop.call_later(LINGER_S, transport.abort)
            else:
                transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Releases the connection's count."""
        super().connection_lost(exc)
        if self._address is not None:
            self.connection_limits.release(self._address)
        if self._lingers:
            self.connection_limits.end_linger()

    def data_received(self, data: bytes) -> None:
        """Starts the timeout of a head with its first bytes."""
        if self.stage is Stage.IDLE:
            self._since_s = self.loop.time()
            self.stage = Stage.HEAD
        elif self.stage is Stage.SILENT:
            self.stage = Stage.HEAD
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Starts the timeout of a pipelined request."""
        if self.stage is not Stage.HEAD:
            self._since_s = self.loop.time()
            self.stage = Stage.HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Starts the timeout of the body."""
        self.stage, self._since_s, self._body_bytes = Stage.BODY, self.loop.time(), 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Counts the body's bytes."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stops the timeout: the request is complete, and may have been answered without its body."""
        if self.stage is Stage.LEFTOVER:
            self._wait_for_next()
        else:
            self.stage = Stage.NOTHING
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Drops the unread rest of a body, and starts the timeout of the next request."""
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
        """Resets the timeout of a client that does not read."""
        self._reader.forget()
        super().resume_writing()

    def check(self, now_s: float, elapsed_s: float) -> None:
        """Closes the connection if a timeout has passed. `elapsed_s`: since the last check."""
        if self._waits_for_reader():
            self._check_reader(now_s)
        else:
            self._reader.forget()
        if self.transport.is_closing() or self.is_refused:
            return
        if self.pipeline and self._has_left():
            self.transport.abort()
            return
        waited_s, limits = now_s - self._since_s, self.connection_limits.limits
        match self.stage:
            case Stage.SILENT if waited_s >= limits.head_s:
                self.transport.close()
            case Stage.HEAD if waited_s >= limits.head_s:
                if not self._owes_answer():
                    self._log_timeout("head")
                    self.answer_timeout()
            case Stage.BODY:
                self._check_body(waited_s, elapsed_s)
            case Stage.LEFTOVER if waited_s >= LINGER_S:
                self.transport.close()
            case Stage.IDLE if waited_s >= self.timeout_keep_alive:
                self.transport.close()  # the first byte of a leftover body stops uvicorn's own timer

    def _has_left(self) -> bool:
        """Whether the client has closed: uvicorn reads nothing, not even that, while another request waits."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _LEFT)
        return bool(poll.poll(0))

    def forgive(self, elapsed_s: float) -> None:
        """Excludes time in which this process was blocked."""
        self._since_s += elapsed_s
        self._reader.forget()

    def _owes_answer(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation lacks the initial None
        return cycle is not None and not cycle.response_complete

    def _check_body(self, waited_s: float, elapsed_s: float) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._since_s += elapsed_s
            return
        limits = self.connection_limits.limits
        is_slow = waited_s >= _RATE_AFTER_S and self._body_bytes < limits.min_bytes_per_s * waited_s
        if waited_s < limits.body_s + self._expected_bytes() / BODY_BYTES_PER_S and not is_slow:
            return
        self._log_timeout("body")
        if self.cycle.response_started:
            self.transport.abort()
        else:
            self.answer_timeout()
        self.cycle.disconnected = True  # else the application's answer would follow the 408
        self.cycle.message_event.set()

    def _expected_bytes(self) -> int:
        """The size of the body, as declared; of a chunked one, what has arrived."""
        declared = next((value for name, value in self.headers if name == b"content-length"), b"")
        return int(declared) if declared.isdigit() else self._body_bytes

    def _waits_for_reader(self) -> bool:
        """Whether writing waits for the client to read: the buffer is full, or holds the rest of a complete answer."""
        if self.flow.write_paused:
            return True
        is_over = self.transport.is_closing() or not self._owes_answer()
        return is_over and self.transport.get_write_buffer_size() > 0

    def _check_reader(self, now_s: float) -> None:
        unread = self.transport.get_write_buffer_size()
        if self._reader.is_too_slow(now_s, unread, self.connection_limits.limits):
            self._log_timeout("reader")
            self.transport.abort()

    def _log_timeout(self, timeout: str) -> None:
        log.info("client_timed_out", timeout=timeout, client=self.client[0] if self.client else "")


class Timed(Protocol):
    """A connection with timeouts."""

    def check(self, now_s: float, elapsed_s: float) -> None:
        """Closes the connection if a timeout has passed. `elapsed_s`: since the last check."""

    def forgive(self, elapsed_s: float) -> None:
        """Excludes time in which this process was blocked."""


class Sweeper:
    """Checks all connections every `sweep_s`."""

    def __init__(self, limits: ClientLimits) -> None:
        self._every_s = limits.sweep_s
        self._last_s: float | None = None

    def sweep(self, connections: Callable[[], Iterable[Timed]], now_s: float) -> bool:
        """Checks the connections if `sweep_s` have passed, and returns whether it did. `now_s`: the loop's time."""
        elapsed_s = self._every_s if self._last_s is None else now_s - self._last_s
        if elapsed_s < self._every_s:
            return False
        self._last_s = now_s
        for connection in connections():
            if elapsed_s < self._every_s + _BLOCKED_S:
                connection.check(now_s, elapsed_s)
            else:
                connection.forgive(elapsed_s)
        return True
