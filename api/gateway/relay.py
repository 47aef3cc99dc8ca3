"""`POST /chat`: Claude's answer as server-sent events. It knows nothing of keys, quotas or money.

The upstream is opened, and its `message_start` awaited, before our own head is sent. Then every piece of text is
passed on as it arrives, several in one write if they came in one read, never held back. What is learnt goes to the
recorder on the scope; without one it streams all the same. `done` comes after `message_stop` and only then; whatever
breaks later is `event: error`, our own stop too. When the client leaves after the head, the upstream is closed at
once. When it leaves while a request is with the provider, unanswered, the relay reads on until `message_start` names
the input, within a bound: a prompt that was processed is paid. Every way in which a stream can end, and what it comes
to: docs/endings.md.
"""

import asyncio
import contextlib
import time
from typing import Any, cast

from starlette.types import Receive, Scope, Send

from api.gateway.chat import read_chat
from api.gateway.disconnects import Disconnects
from api.gateway.idle_monitor import IdleMonitor, MonitoredStream
from api.gateway.sse import DONE, TextFramer, error_frame
from api.gateway.stream_errors import UpstreamFault, fault, fault_of_event
from api.gateway.upstream import BROKEN, ChatPrompt, Upstream, UpstreamStream
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
from api.http.request_context import PIECES
from core.clock import now_ms
from core.errors import NakaError
from core.settings import Settings
from core.spans import UNTRACED, span
from metering.journal.recorder import MAX_TEXT_CHARS, UsageRecorder
from metering.journal.records import Outcome

RECORDER = "naka.recorder"
_LAST_WORD_S = 2.0
"""How long a client that reads slowly may hold up our own stop."""
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class ChatRelay:
    """The ASGI application behind the route. One per process."""

    def __init__(self, upstream: Upstream, settings: Settings, silence: IdleMonitor) -> None:
        self._upstream = upstream
        self._settings = settings
        self._silence = silence
        self._hangups = Disconnects(wait_s=settings.hangup_wait_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Before the head, a fault is an HTTP status; after it, the error event."""
        try:
            body = await read_chat(scope, receive, max_bytes=self._settings.request_body_max_bytes)
            recorder: UsageRecorder | None = scope.get(RECORDER)
            if recorder is None:
                deadline_ms = now_ms() + self._settings.request_deadline_s * 1000
                recorder = UsageRecorder(self._settings.chat_max_tokens, deadline_ms)
            prompt = body.prompt(self._settings)
        except NakaError as error:
            await problem_response(error, scope)(scope, receive, send)
            return
        await _Exchange(self._upstream, self._silence, self._hangups, prompt, recorder, scope, receive, send).run()


class _Left(Exception):
    """The client left before the head, and what its prompt came to is known."""


class _Exchange:
    """One answer, from the question to its end."""

    def __init__(
        self,
        upstream: Upstream,
        silence: IdleMonitor,
        hangups: Disconnects,
        prompt: ChatPrompt,
        recorder: UsageRecorder,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._upstream = upstream
        self._silence = silence
        self._hangups = hangups
        self._prompt = prompt
        self._recorder = recorder
        self._scope = scope
        self._receive = receive
        self._send = send
        self._pass_on: Send = scope.get(PIECES, send)
        self._reader = EventReader()
        self._framer = TextFramer()
        self._head_sent = False
        self._ended = False
        self._last: bytes | None = None
        self._finished = False
        self._fault: BadStream | UpstreamFault | None = None
        self._client_gone = False
        self._hung_up = False
        self._spoke = False
        self._span = UNTRACED

    async def run(self) -> None:
        """Streams until the end, the deadline, the client's leaving or our own stop, and says so if that is due."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            error = await self._until_its_end(task)
        except asyncio.CancelledError:
            if self._client_gone:
                self._note(Outcome.CLIENT_GONE)
            else:
                await self._take_leave()
            if not self._hung_up or task.uncancel():
                raise  # by our own stop, or by that too
        else:
            if self._client_gone:
                self._note(Outcome.CLIENT_GONE)
            elif error is not None:
                await self._fail(error)

    async def _until_its_end(self, task: "asyncio.Task[Any]") -> UpstreamFault | None:
        """What the client is to be told of how it ended; None when it has been told all."""
        watcher = asyncio.create_task(self._watch(task))
        left_s = max(0, self._recorder.deadline_ms - now_ms()) / 1000
        try:
            async with asyncio.timeout(left_s) as deadline:
                await self._stream(deadline)
        except TimeoutError:
            self._note(Outcome.DEADLINE)
            return fault("upstream_timeout", status=504)
        except UpstreamFault as error:
            if not error.sent:
                self._note(Outcome.NOT_SENT)
            self._recorder.fault = error.code
            return error
        except BadStream:
            self._recorder.fault = "upstream_broken"
            return fault("upstream_broken")
        except _Left:
            pass
        finally:
            watcher.cancel()  # whoever leaves from here on changes nothing
        return None

    async def _stream(self, deadline: asyncio.Timeout) -> None:
        recorder = self._recorder
        recorder.outcome = Outcome.UPSTREAM_REFUSED  # until it says something else
        self._span = span("upstream")
        with self._span:
            stream = await self._upstream.open(self._prompt, recorder, lambda: not self._client_gone)
            await self._read(stream, deadline)

    async def _read(self, stream: UpstreamStream, deadline: asyncio.Timeout) -> None:
        recorder = self._recorder
        try:
            recorder.upstream_request_id = stream.request_id
            with self._silence.watch(self._comment, stream.give_up) as watched:
                await self._pump(stream, watched, deadline)
        except BROKEN as error:
            code, status = ("upstream_timeout", 504) if stream.gave_up else ("upstream_broken", 502)
            raise fault(code, status=status) from error
        finally:
            stream.close()

    async def _pump(self, stream: UpstreamStream, watched: MonitoredStream, deadline: asyncio.Timeout) -> None:
        while chunk := await stream.read():
            watched.heard = time.monotonic()
            frames = self._take(chunk)
            if self._recorder.started is not None and not self._head_sent:
                if self._client_gone:
                    raise _Left
                await self._send_head()
            if frames:
                if not self._spoke:
                    self._first_words(watched.heard)
                watched.wrote = watched.heard
                await self._pass_on({"type": "http.response.body", "body": frames, "more_body": True})
            if self._fault is not None:
                raise self._fault
            if self._ended:
                break
        if not self._ended:
            raise fault("upstream_broken")
        self._span.end()
        deadline.reschedule(None)  # the answer is whole; what is left has bounds of its own
        self._last = self._framer.rest() + DONE
        await self._finish(self._last)
        await stream.finish()

    def _first_words(self, at_s: float) -> None:
        if not self._head_sent:
            raise fault("upstream_broken")  # words before message_start: who knows what they cost
        self._spoke = True
        self._recorder.first_text_s = at_s
        self._span.event("first_token")

    def _take(self, chunk: bytes) -> bytes:
        """The frames of the text in `chunk`. Everything else is noted, also a fault that comes after the text."""
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
                pass  # taken where it is framed

    def _conclude(self) -> None:
        """The provider is at its end. A refusal without a word stays one, whatever breaks or leaves afterwards."""
        recorder = self._recorder
        recorder.finished = recorder.latest is not None and recorder.latest.output_tokens is not None
        if recorder.stop_reason == "refusal" and recorder.output_chars == 0:
            recorder.outcome = Outcome.REFUSED
            recorder.refused()

    async def _send_head(self) -> None:
        self._head_sent = True
        await self._send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})

    async def _finish(self, last: bytes) -> None:
        """The last write. Whoever stands between may hold it until the books are closed."""
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self._finished = True

    async def _fail(self, error: UpstreamFault) -> None:
        """Before the head: a status. After it: the error event."""
        if self._head_sent:
            await self._finish(self._framer.rest() + error_frame(problem_of(error, self._scope).body))
        else:
            await problem_response(error, self._scope)(self._scope, self._receive, self._send)

    async def _take_leave(self) -> None:
        """This process stops. Whoever listens is told, in a moment; a whole answer gets its `done` all the same."""
        self._note(Outcome.SHUTDOWN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                if self._last is None:
                    await self._fail(fault("shutting_down", status=503))
                elif not self._finished:
                    await self._finish(self._last)

    async def _comment(self, comment: bytes) -> None:
        if self._head_sent and not self._finished:
            await self._pass_on({"type": "http.response.body", "body": comment, "more_body": True})

    def _note(self, outcome: Outcome) -> None:
        """How it ended, unless it had ended before: a complete answer stays complete whoever leaves then."""
        if not self._ended and self._recorder.outcome is not Outcome.REFUSED:
            self._recorder.outcome = outcome

    async def _watch(self, task: "asyncio.Task[Any]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_gone = True
        if self._recorder.unanswered:
            await self._hangups.wait()  # cancelled when the answer begins
        self._hung_up = True
        task.cancel()
