"""The relay of `POST /chat`: Claude's answer as server-sent events, without knowledge of keys, quotas or money.

Before the response head is sent, the upstream is open and `message_start` has arrived, so earlier failures are real
HTTP statuses; later ones, and our shutdown, are `event: error`. Text is sent as it arrives and never buffered; `done`
follows `message_stop` only. The usage middleware puts the prompt and the recorder of its usage on the scope. A client
that disconnects after the head closes the upstream at once; before it, the relay waits for `message_start` within a
bound, because the provider charges for a prompt it processed. Every ending: docs/endings.md.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from api.gateway.disconnects import Disconnects
from api.gateway.idle_monitor import IdleMonitor, MonitoredStream
from api.gateway.sse import DONE, TextFramer, error_frame
from api.gateway.stream_errors import UpstreamFault, fault, fault_of_event
from api.gateway.upstream import STREAM_ERRORS, ChatPrompt, Upstream, UpstreamStream
from api.gateway.upstream_events import (
    BadStream,
    Event,
    EventReader,
    MessageDelta,
    MessageStart,
    MessageStop,
    Text,
    Thinking,
    UpstreamErrorEvent,
)
from api.http.problems import problem_of, problem_response
from api.http.request_context import RAW_SEND
from core.clock import now_ms
from core.settings import Settings
from core.spans import UNTRACED, Span, span
from metering.journal.recorder import MAX_TEXT_CHARS, UsageRecorder
from metering.journal.records import Outcome

PROMPT = "naka.prompt"
RECORDER = "naka.recorder"
_LAST_WRITE_S = 2.0
"""Seconds that a slow client may delay our shutdown."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class ChatRelay:
    """The ASGI application of the route. One per process."""

    def __init__(self, upstream: Upstream, settings: Settings, idle_monitor: IdleMonitor) -> None:
        self._upstream = upstream
        self._idle_monitor = idle_monitor
        self._disconnects = Disconnects(wait_s=settings.hangup_wait_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. A failure is an HTTP status before the head, the error event after it."""
        raw_send = scope.get(RAW_SEND, send)
        parts = self._upstream, self._idle_monitor, self._disconnects
        await _Exchange(*parts, scope[PROMPT], scope[RECORDER], scope, receive, send, raw_send).run()


class _Disconnected(Exception):
    """The client disconnected before the head, and its input tokens are known."""


@dataclass(slots=True, eq=False)
class _Exchange:
    """One prompt and its answer."""

    _upstream: Upstream
    _idle_monitor: IdleMonitor
    _disconnects: Disconnects
    _prompt: ChatPrompt
    _recorder: UsageRecorder
    _scope: Scope
    _receive: Receive
    _send: Send
    _raw_send: Send
    _reader: EventReader = field(default_factory=EventReader)
    _framer: TextFramer = field(default_factory=TextFramer)
    _head_sent: bool = False
    _text_sent: bool = False
    _ended: bool = False
    """Whether `message_stop` arrived."""
    _last: bytes | None = None
    _finished: bool = False
    _fault: BadStream | UpstreamFault | None = None
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
        self._span = span("upstream")
        with self._span:
            stream = await self._upstream.open(self._prompt, recorder, lambda: not self._client_gone)
            await self._read(stream, deadline)

    async def _read(self, stream: UpstreamStream, deadline: asyncio.Timeout) -> None:
        recorder = self._recorder
        try:
            recorder.upstream_request_id = stream.request_id
            with self._idle_monitor.watch(self._comment, stream.give_up) as monitored:
                await self._pump(stream, monitored, deadline)
        except STREAM_ERRORS as error:
            raise fault("upstream_timeout" if stream.gave_up else "upstream_broken") from error
        finally:
            stream.close()

    async def _pump(self, stream: UpstreamStream, monitored: MonitoredStream, deadline: asyncio.Timeout) -> None:
        """Relays the stream to its end. Raises UpstreamFault, BadStream, _Disconnected, or one of STREAM_ERRORS."""
        while chunk := await stream.read():
            monitored.read_s = time.monotonic()
            frames = self._take(chunk)
            if self._recorder.started is not None and not self._head_sent:
                if self._client_gone:
                    raise _Disconnected
                await self._send_head()
            if frames:
                if not self._text_sent:
                    self._note_first_text(monitored.read_s)
                monitored.wrote_s = monitored.read_s
                await self._raw_send({"type": "http.response.body", "body": frames, "more_body": True})
            if self._fault is not None:
                raise self._fault
            if self._ended:
                break
        if not self._ended:
            raise fault("upstream_broken")
        self._span.end()
        deadline.reschedule(None)  # the answer is complete; the last write has its own bounds
        self._last = self._framer.rest() + DONE
        await self._finish(self._last)
        await stream.finish()

    def _note_first_text(self, at_s: float) -> None:
        if not self._head_sent:
            raise fault("upstream_broken")  # text before message_start: its input tokens are unknown
        self._text_sent = True
        self._recorder.first_text_s = at_s
        self._span.event("first_token")

    def _take(self, chunk: bytes) -> bytes:
        """Returns the frames of the text in `chunk` and records all else, including a fault that follows the text."""
        recorder, frames = self._recorder, b""
        try:
            for event in self._reader.feed(chunk):
                if type(event) is Text:
                    recorder.took(event.text)
                    frames += self._framer.frame(event.text)
                else:
                    self._note_event(event)
                    if self._ended:
                        break
        except (BadStream, UpstreamFault) as error:
            self._fault = error
        if recorder.output_chars > MAX_TEXT_CHARS:
            recorder.forget_text()
        return frames

    def _note_event(self, event: Event) -> None:
        recorder = self._recorder
        match event:
            case Thinking():
                recorder.took(event.text)
            case MessageStart():
                recorder.outcome = Outcome.UPSTREAM_BROKE
                recorder.answered(event.usage)
                recorder.model = event.model
                recorder.upstream_message_id = event.id
            case MessageDelta():
                recorder.latest = event.usage if recorder.latest is None else recorder.latest.then(event.usage)
                if event.stop_reason is not None:
                    recorder.stop_reason = event.stop_reason
                    self._conclude()
            case MessageStop():
                if recorder.started is None:
                    raise fault("upstream_broken")
                self._ended = True
                recorder.outcome = Outcome.COMPLETED
                self._conclude()
            case UpstreamErrorEvent():
                recorder.refused()
                raise fault_of_event(event.type)
            case Text():
                pass  # recorded where it is framed

    def _conclude(self) -> None:
        """Records the stop reason. A refusal without text stays a refusal, whatever fails afterwards."""
        recorder = self._recorder
        recorder.finished = recorder.latest is not None and recorder.latest.output_tokens is not None
        if recorder.stop_reason == "refusal" and recorder.output_chars == 0:
            recorder.outcome = Outcome.REFUSED
            recorder.refused()

    async def _send_head(self) -> None:
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})

    async def _finish(self, last: bytes) -> None:
        """Sends the last write, which the usage middleware may hold until the settlement is committed."""
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self._finished = True

    async def _fail(self, error: UpstreamFault) -> None:
        """Sends the fault: an HTTP status before the head, the error event after it."""
        if self._head_sent:
            await self._finish(self._framer.rest() + error_frame(problem_of(error, self._scope).body))
        else:
            await problem_response(error, self._scope)(self._scope, self._receive, self._send)

    async def _shut_down(self) -> None:
        """Tells the client that this process stops; a complete answer still gets its `done`."""
        self._note(Outcome.SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE_S):
                if self._last is None:
                    await self._fail(fault("shutting_down"))
                elif not self._finished:
                    await self._finish(self._last)

    async def _comment(self, comment: bytes) -> None:
        if self._head_sent and not self._finished:
            await self._raw_send({"type": "http.response.body", "body": comment, "more_body": True})

    def _note(self, outcome: Outcome) -> None:
        """Records the outcome, unless the answer was complete or refused before."""
        if not self._ended and self._recorder.outcome is not Outcome.REFUSED:
            self._recorder.outcome = outcome

    async def _watch(self, task: "asyncio.Task[Any]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_gone = True
        if self._recorder.unanswered:
            await self._disconnects.wait()  # cancelled when the answer begins
        if self._last is not None:  # complete; the server reports a disconnect when it has sent `done`, too
            return
        self._cancelled = True
        task.cancel()
