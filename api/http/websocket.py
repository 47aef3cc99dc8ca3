"""The WebSocket protocol of a client connection: uvicorn's, with our limits, timeouts, problems and shutdown.

A connection that was upgraded still counts towards the connection limits, and `Sweeper` checks it as any other: an
incomplete message, a client that does not read, one that does not say who it is, and one that asks nothing for a long
time. Pings keep proxies from closing it, and find clients that vanished. Compression is off: it saves nothing on
single words, and a small frame may become a large one.

The application finds this object on its scope (CONNECTION). Until it calls `admit`, a message may have
`STRANGER_MAX_BYTES`; a large message takes room for its bytes before they are read. Frames are bounded, too: one
without text costs as much time, and one read holds 43,000 of them.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from api.gateway.stream_errors import fault
from api.http.client_timeouts import LINGER_S, SlowReader
from api.http.protocol import Phase, State, raw_answer
from core.errors import NakaError
from core.logs import get_logger

CONNECTION = "naka.connection"
"""The scope key of a WebSocket's `NakaWebSocket`."""
STRANGER_MAX_BYTES = 16 * 1024
"""The longest message of a client that has not said who it is: room for a token."""
IDLE_S = 600.0
"""Seconds for which a connection may ask nothing."""
_FREE_BYTES = 64 * 1024
"""The part of a message that takes no room: what an HTTP connection reads ahead, too."""
MAX_EARLY = 8
"""Questions that may wait for the running answer."""
TOO_EARLY = "Ask one question at a time."
_SLICE_BYTES = 4096
"""Parsed at once. The bounds on frames are checked between slices."""
_MAX_FRAMES = 64
"""Control frames and fragments at once. `_FRAMES_PER_S` more may follow, and one for each `_BYTES_PER_FRAME`."""
_FRAMES_PER_S = 20.0
_BYTES_PER_FRAME = 1024
"""The smallest fragments that a large message may have throughout."""
_MAX_UNREAD_BYTES = 64 * 1024
"""Past so many bytes that a client does not read, its pings are not answered."""

log = get_logger(__name__)
_quiet = logging.getLogger("naka.websocket")
"""For uvicorn and websockets, which log URLs and each fault of a client."""
_quiet.setLevel(logging.CRITICAL)


class NakaWebSocket(WebSocketsSansIOProtocol):
    """One connection. `is_ending`: it is to be closed after the running answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_state: State = kwargs["server_state"]
        self.connection_limits = self.server_state.connection_limits
        self.conn = ServerProtocol(extensions=[], max_size=STRANGER_MAX_BYTES, logger=_quiet)
        self.logger = _quiet
        self.close_timeout = LINGER_S
        self.is_ending = False
        self._is_answering = False
        self._is_known = False
        self._hold: Callable[[int, int], None] | None = None
        self._address: str | None = None
        self._waits_since_s = self.loop.time()
        """When the client was last waited for: its introduction, or its next question."""
        self._message_since_s: float | None = None
        self._message_bytes = self._held_bytes = 0
        self._reader = SlowReader()
        self._frames, self._frames_at_s = 0.0, self.loop.time()
        self._is_flooded = False

    @property
    def is_over(self) -> bool:
        """Whether nothing that is sent would arrive: the client left, or the connection was closed."""
        return self.disconnected or self.close_sent or self.transport.is_closing()

    def adopt(self, address: str | None) -> None:
        """Takes over the connection's count from the HTTP connection that it was."""
        self._address = address

    def admit(self, max_bytes: int, hold: Callable[[int, int], None]) -> None:
        """Lets messages have `max_bytes`. `hold` takes room for more of one beside what it has, raising NakaError.

        Negative: gives it back.
        """
        self._is_known, self._hold = True, hold
        self.conn.max_message_size = max_bytes

    def begin_answer(self) -> None:
        """Notes that a question is being answered."""
        self._is_answering = True

    def end_answer(self) -> None:
        """Notes that the next question is waited for."""
        self._is_answering, self._waits_since_s = False, self.loop.time()

    def write_lines(self, lines: bytes) -> bool:
        """Writes each line as a text frame, and returns whether the client keeps up; drops it for one that left."""
        if self.is_over:
            return True
        try:
            for line in lines.splitlines():
                self.conn.send_text(line)
        except InvalidState:
            return True
        self._write_out()
        return self.writable.is_set()

    async def drained(self) -> None:
        """Waits until the client keeps up, or has left."""
        await self.writable.wait()

    def end(self, code: int, reason: str = "") -> None:
        """Closes the connection with a close frame, and ends the application's wait for messages."""
        if self.close_sent or not self.handshake_complete or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.stop_keepalive()
        try:
            self.conn.send_close(code, reason)
        except InvalidState:
            self.transport.close()
            return
        self.close_sent = True
        self._write_out()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    # ------------------------------------------------------------------------------- shutdown and timeouts

    def end_keep_alive(self) -> None:
        """Makes the running answer the connection's last."""
        self.is_ending = self._is_answering

    def end_if_idle(self, *, patient: bool) -> None:
        """Closes now, or after the running answer."""
        del patient
        if self._is_answering or not self.handshake_complete:
            self.is_ending = True
        else:
            self.end(CloseCode.SERVICE_RESTART)

    def check(self, now_s: float, elapsed_s: float) -> None:
        """Closes the connection if a timeout has passed. `elapsed_s`: since the last check."""
        del elapsed_s
        limits, unread = self.connection_limits.limits, self.transport.get_write_buffer_size()
        if self.writable.is_set() and not (self.transport.is_closing() and unread):
            self._reader.forget()
        elif self._reader.is_too_slow(now_s, unread, limits):
            self._log_timeout("reader")
            self.transport.abort()
        if self.close_sent or not self.handshake_complete:
            return
        waited_s = now_s - self._waits_since_s
        if not self._is_known and waited_s >= limits.head_s:  # also in the middle of a message
            self._time_out("introduction", CloseCode.POLICY_VIOLATION, "Send your key in the first message.")
        elif self._message_since_s is not None:
            if not self.read_paused and now_s - self._message_since_s >= limits.body_s:
                self._time_out("message", CloseCode.POLICY_VIOLATION, "The message took too long.")
        elif not self._is_answering and waited_s >= IDLE_S:
            self._time_out("question", CloseCode.NORMAL_CLOSURE, "No question for a long time.")

    def forgive(self, elapsed_s: float) -> None:
        """Excludes time in which this process was blocked."""
        self._waits_since_s += elapsed_s
        if self._message_since_s is not None:
            self._message_since_s += elapsed_s
        self._reader.forget()

    def _time_out(self, timeout: str, code: int, reason: str) -> None:
        self._log_timeout(timeout)
        self.end(code, reason)

    def _log_timeout(self, timeout: str) -> None:
        log.info("client_timed_out", timeout=timeout, client=self.client[0] if self.client else "")

    # --------------------------------------------------------------------------------- uvicorn's protocol

    def connection_lost(self, exc: Exception | None) -> None:
        """Releases the connection's count and the room of its message."""
        super().connection_lost(exc)
        self._free()
        if self._address is not None:
            self.connection_limits.release(self._address)
            self._address = None

    def data_received(self, data: bytes) -> None:
        """Parses; takes room for a large message, and closes the connection if there is none."""
        self._message_bytes += len(data)
        for start in range(0, len(data), _SLICE_BYTES):
            if self._is_flooded or self.transport.is_closing():
                return
            piece = data[start : start + _SLICE_BYTES]
            self._allow_frames(len(piece))
            super().data_received(piece)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse(HTTPException(HTTPStatus.BAD_REQUEST))
        elif self.handshake_complete and not self.close_sent:
            self._note_message()

    def _note_message(self) -> None:
        if not self.conn.reader.buffer and not self.frames:
            self._free()
            return
        if self._message_since_s is None:
            self._message_since_s = self.loop.time()
        wanted = self._message_bytes - self._held_bytes
        if self._hold is not None and self._message_bytes > _FREE_BYTES and wanted > 0:
            try:
                self._hold(wanted, self._held_bytes)
            except NakaError as error:
                self.end(CloseCode.TRY_AGAIN_LATER, str(error))
                self._free()  # at once: the client may need a while to close
            else:
                self._held_bytes += wanted

    def _free(self) -> None:
        self._message_since_s, self._message_bytes = None, 0
        if self._held_bytes and self._hold is not None:
            self._hold(-self._held_bytes, 0)
        self._held_bytes = 0

    def handle_events(self) -> None:
        """Handles what was parsed. Too many frames that ask nothing close the connection."""
        self._frames += sum(self.close_sent or not _is_question(event) for event in self.conn.events)
        if self._frames > _MAX_FRAMES:
            self._refuse_flood("Too many frames.")
        else:
            super().handle_events()

    def _allow_frames(self, size: int) -> None:
        """Forgets frames for the time that has passed, and for bytes."""
        now_s = self.loop.time()
        allowed = (now_s - self._frames_at_s) * _FRAMES_PER_S + size / _BYTES_PER_FRAME
        self._frames, self._frames_at_s = max(0.0, self._frames - allowed), now_s

    def _refuse_flood(self, reason: str) -> None:
        """Closes the connection. What else the client sends is read, so that it gets the close frame, and ignored."""
        self._is_flooded, self.frames = True, []
        if self.handshake_complete:
            self.end(CloseCode.POLICY_VIOLATION, reason)
        else:
            self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        """Hands over a message; its bytes are the application's now. Too many that wait close the connection."""
        if self.queue.qsize() > MAX_EARLY:  # one more than that: the next to be answered
            self._refuse_flood(TOO_EARLY)
            return
        super().send_receive_event_to_app()
        self._free()

    def handle_connect(self, event: Request) -> None:
        """Starts the application; answers a request that is no handshake, or comes too late, with a problem."""
        self.handshake_initiated = True
        if self.server_state.phase >= Phase.CLOSING:
            self._refuse(fault("shutting_down"))
        elif self.conn.accept(event).status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(HTTPException(HTTPStatus.BAD_REQUEST))
        else:
            super().handle_connect(event)
            self.scope[CONNECTION] = self  # type: ignore[literal-required]  # an extension

    def handle_ping(self) -> None:
        """Answers a ping, unless the client does not read."""
        if self.transport.get_write_buffer_size() <= _MAX_UNREAD_BYTES:
            super().handle_ping()
        else:
            self.conn.data_to_send()

    async def run_asgi(self) -> None:
        """Runs the application, and closes what it leaves open."""
        try:
            await self.app(self.scope, self.receive, self.send)
            code = CloseCode.NORMAL_CLOSURE
        except ClientDisconnected:
            return
        except asyncio.CancelledError:
            code = CloseCode.SERVICE_RESTART
        except Exception:
            log.exception("websocket_failed", path=self.scope["path"])
            code = CloseCode.INTERNAL_ERROR
        finally:
            if self.disconnected:
                self.transport.close()
        if self.handshake_complete:
            self.end(code)
        else:
            cut = code == CloseCode.SERVICE_RESTART
            self._refuse(fault("shutting_down") if cut else HTTPException(HTTPStatus.INTERNAL_SERVER_ERROR))

    def _refuse(self, error: Exception) -> None:
        """Answers the handshake with a problem and closes."""
        if not self.handshake_complete:
            self.handshake_complete = self.close_sent = True
            self.transport.write(raw_answer(error, "/chat", self.default_headers))
        self.transport.close()

    def _write_out(self) -> None:
        self.transport.write(b"".join(self.conn.data_to_send()))


def _is_question(event: Any) -> bool:
    """Whether a frame is a whole message, or the event the handshake."""
    return not isinstance(event, Frame) or (event.opcode is Opcode.TEXT and event.fin)
