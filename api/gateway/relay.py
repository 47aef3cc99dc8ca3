"""The relay of metered routes: Claude's answer as it arrives, without knowledge of keys, quotas or money.

Before the response head is sent, the upstream is open and `message_start` has arrived, so earlier failures are real
HTTP statuses; later ones, and our shutdown, end the stream with an error event. Pieces are written inside the event
loop's read, without waking this task, and never buffered unless the client does not keep up: then the upstream is not
read either. The last write follows `message_stop` only. Usage goes to the recorder on the scope. A client that
disconnects after the answer began closes the upstream at once; before it, the relay waits for `message_start` within a
bound, because the provider charges for a prompt it processed. Every ending: docs/endings.md.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from api.gateway.answer_reader import AnswerReader
from api.gateway.codec import CALL, Call, Codec
from api.gateway.disconnects import Disconnects
from api.gateway.idle_monitor import IdleMonitor, MonitoredStream
from api.gateway.stream_errors import UpstreamFault, fault
from api.gateway.upstream.client import STREAM_ERRORS, Upstream, UpstreamStream
from api.gateway.upstream.events import BadStream
from api.gateway.upstream.pool import Header
from api.http.body_admission import RELEASE
from api.http.problems import problem_response
from api.http.request_context import DIRECT_WRITE, RAW_SEND
from core.clock import now_ms
from core.settings import Settings
from core.spans import UNTRACED, Span, span
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement

RECORDER = "naka.recorder"
SETTLED = "naka.settled"
"""The scope key of the usage middleware's `async () -> Settlement`, which settles a complete answer."""
_LAST_WRITE_S = 2.0
"""Seconds that a slow client may delay our shutdown."""
_MAX_HELD_BYTES = 256 * 1024
"""The bytes that may wait for the client; beyond them, reading from the provider pauses."""


class Relay:
    """The ASGI application of metered routes. One per process."""

    def __init__(self, upstream: Upstream, settings: Settings, idle_monitor: IdleMonitor) -> None:
        self._upstream = upstream
        self._idle_monitor = idle_monitor
        self._disconnects = Disconnects(wait_s=settings.hangup_wait_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. A failure is an HTTP status before the head, the error event after it."""
        call: Call = scope.pop(CALL)
        codec, recorder = call.codec(), scope[RECORDER]
        exchange = _Exchange(
            self._upstream,
            self._idle_monitor,
            self._disconnects,
            call,
            recorder,
            scope,
            receive,
            send,
            scope.get(RAW_SEND, send),
            scope.get(DIRECT_WRITE) if RAW_SEND in scope else None,
            codec,
            AnswerReader(codec, recorder),
        )
        del call  # see `_stream`
        await exchange.run()


class _Disconnected(Exception):
    """The client disconnected before the head, and its input tokens are known."""


@dataclass(slots=True, eq=False)
class _Exchange:
    """One call and its answer."""

    _upstream: Upstream
    _idle_monitor: IdleMonitor
    _disconnects: Disconnects
    _call: Call
    _recorder: UsageRecorder
    _scope: Scope
    _receive: Receive
    _send: Send
    _raw_send: Send
    _write: Callable[[bytes], bool] | None
    """Writes a piece at once; False: the client does not keep up."""
    _codec: Codec
    _reader: AnswerReader
    _headers: list[Header] = field(default_factory=list)
    """Of a 200, once the answer begins."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this task has something to do."""
    _held: list[bytes] = field(default_factory=list)
    _held_bytes: int = 0
    _flows: bool = False
    """Whether pieces are written as they arrive."""
    _head_sent: bool = False
    _is_over: bool = False
    """Whether the upstream ended, or broke."""
    _is_complete: bool = False
    _last: bytes | None = None
    """The last write of a complete answer."""
    _finished: bool = False
    _client_gone: bool = False
    _cancelled: bool = False
    """Whether the disconnect cancelled the task."""
    _span: Span = UNTRACED

    async def run(self) -> None:
        """Streams until the end, the deadline, a disconnect or our shutdown, and sends the matching last write."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            error = await self._relay(task)
        except asyncio.CancelledError:
            if self._client_gone:
                self._note(Outcome.CLIENT_GONE)
            else:
                await self._shut_down()
            if not self._cancelled or task.uncancel():
                raise  # cancelled by our shutdown
        else:
            if self._client_gone:
                self._note(Outcome.CLIENT_GONE)
            elif error is not None:
                await self._fail(error)

    async def _relay(self, task: "asyncio.Task[Any]") -> UpstreamFault | None:
        """Returns the fault that the client has yet to be told; None for a complete answer or a disconnect."""
        watcher = asyncio.create_task(self._watch(task))
        left_s = max(0, self._recorder.deadline_ms - now_ms()) / 1000
        try:
            async with asyncio.timeout(left_s) as deadline:
                await self._stream(deadline)
        except TimeoutError:
            self._note(Outcome.DEADLINE)
            return fault("upstream_timeout")
        except UpstreamFault as error:
            if not error.sent:
                self._note(Outcome.NOT_SENT)
            self._recorder.fault = error.code
            return error
        except BadStream:
            self._recorder.fault = "upstream_broken"
            return fault("upstream_broken")
        except _Disconnected:
            pass
        finally:
            watcher.cancel()  # a disconnect no longer matters
        return None

    async def _stream(self, deadline: asyncio.Timeout) -> None:
        recorder = self._recorder
        recorder.outcome = Outcome.UPSTREAM_REFUSED  # until `message_start` arrives
        self._span = self._reader.span = span("upstream")
        with self._span:
            stream = await self._upstream.open(self._call.prompt, recorder, lambda: not self._client_gone)
            # A prompt may have 32 MB: it is not kept while the answer streams. The recorder, which may have to count
            # it, lets go of it when the answer begins.
            del self._call
            await self._read(stream, deadline)

    async def _read(self, stream: UpstreamStream, deadline: asyncio.Timeout) -> None:
        recorder = self._recorder
        try:
            recorder.upstream_request_id = stream.request_id
            with self._idle_monitor.watch(self._comment, stream) as monitored:
                await self._pump(stream, monitored, deadline)
        except STREAM_ERRORS as error:
            raise fault("upstream_timeout" if stream.gave_up else "upstream_broken") from error
        finally:
            stream.close()

    async def _pump(self, stream: UpstreamStream, monitored: MonitoredStream, deadline: asyncio.Timeout) -> None:
        """Relays the stream to its end. Raises UpstreamFault, BadStream, _Disconnected, or one of STREAM_ERRORS."""
        stream.pipe(partial(self._on_piece, stream, monitored), self._on_over)
        while True:
            await self._news.wait()
            self._news.clear()
            is_last = self._reader.has_ended
            await self._catch_up(stream)
            if is_last:
                break
        self._span.end()
        deadline.reschedule(None)  # the answer is complete; the last write has its own bounds
        self._is_complete = True
        await self._conclude()
        await stream.finish()

    async def _catch_up(self, stream: UpstreamStream) -> None:
        """Sends the head once the answer begins, and what is held. Raises what ended the stream early."""
        if self._recorder.started is not None and not self._head_sent:
            if self._client_gone:
                raise _Disconnected
            self._scope[RELEASE]()  # the prompt is gone, and a whole answer's head is far off
            self._headers = self._codec.head(stream)
            if self._codec.streams:
                await self._send_head()
        if self._head_sent:
            await self._flush(stream)
        if self._reader.fault is not None:
            raise self._reader.fault
        if self._is_over and not self._reader.has_ended:
            if stream.error is None:
                raise fault("upstream_broken")
            raise stream.error

    def _on_piece(self, stream: UpstreamStream, monitored: MonitoredStream, piece: bytes) -> None:
        """Takes what arrived; runs inside the event loop's read."""
        monitored.read_s = time.monotonic()
        out = self._reader.take(piece)
        if out:
            monitored.wrote_s = monitored.read_s
            if self._flows and self._write is not None:
                if not self._write(out):
                    self._flows = False
                    stream.pause()
                    self._news.set()
            else:
                self._held.append(out)
                self._held_bytes += len(out)
                if self._held_bytes > _MAX_HELD_BYTES:
                    stream.pause()
                self._news.set()
        if self._reader.is_decided or not self._head_sent:
            self._news.set()

    def _on_over(self) -> None:
        self._is_over = True
        self._news.set()

    async def _flush(self, stream: UpstreamStream) -> None:
        """Sends what is held, at the client's pace; then pieces are written as they arrive."""
        if self._flows:
            return
        while True:
            held, self._held, self._held_bytes = b"".join(self._held), [], 0
            await self._raw_send({"type": "http.response.body", "body": held, "more_body": True})
            if not self._held:
                break
        self._flows = self._write is not None
        stream.resume()

    async def _conclude(self) -> None:
        """Sends the end of a complete answer; again, if a stop interrupted it."""
        if self._last is None:
            settled = self._scope.get(SETTLED) if self._codec.tells_usage else None
            settlement: Settlement | None = None if settled is None else await settled()
            self._last = self._codec.last(settlement)
        if not self._head_sent:
            await self._send_head(len(self._last))
        await self._finish(self._last)

    async def _send_head(self, length: int | None = None) -> None:
        """Sends the head; `length`: of a whole answer."""
        self._head_sent = True
        headers = self._headers
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _finish(self, last: bytes) -> None:
        """Sends the last write, which the usage middleware may hold until the settlement is committed."""
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self._finished = True

    async def _fail(self, error: UpstreamFault) -> None:
        """Sends the fault: an HTTP status before the head, the error event after it."""
        if self._head_sent:
            last = self._codec.failed(error, self._scope)
            if last is None:
                raise error  # the server cuts the connection
            await self._finish(last)
        else:
            await problem_response(error, self._scope)(self._scope, self._receive, self._send)

    async def _shut_down(self) -> None:
        """Tells the client that this process stops; a complete answer still gets its `done`."""
        self._note(Outcome.SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_S):
                if not self._is_complete:
                    await self._fail(fault("shutting_down"))
                elif not self._finished:
                    await self._conclude()

    async def _comment(self) -> None:
        body = self._codec.keepalive
        if body and self._head_sent and not self._finished:
            await self._raw_send({"type": "http.response.body", "body": body, "more_body": True})

    def _note(self, outcome: Outcome) -> None:
        """Records the outcome, unless the answer was complete or refused before."""
        if not self._reader.has_ended and self._recorder.outcome is not Outcome.REFUSED:
            self._recorder.outcome = outcome

    async def _watch(self, task: "asyncio.Task[Any]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_gone = True
        if self._recorder.unanswered:
            await self._disconnects.wait()  # cancelled when the answer begins
        if self._is_complete:  # the server reports a disconnect when it has sent `done`, too
            return
        self._cancelled = True
        task.cancel()
