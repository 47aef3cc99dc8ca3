"""The response to a request: a stream of events, or one JSON, with the scripted fault.

The entry is updated with every event handed to the server and ended before the body, so that a client that has read
the whole answer finds it in the ledger. A disconnect raises through here.
"""

import base64
import binascii
from dataclasses import dataclass

from sandbox.anthropic import frames
from sandbox.anthropic.answers.events import Events, Step, broken_delta, pauses
from sandbox.anthropic.answers.plan import Answer
from sandbox.anthropic.errors import ApiError, status_of
from sandbox.anthropic.inferences import Served
from sandbox.anthropic.ledger import State
from sandbox.anthropic.wire import ScriptedCutError, Wire

_STREAM_TYPE = b"text/event-stream; charset=utf-8"
_ERROR_MESSAGE = "Overloaded"


@dataclass(frozen=True, slots=True)
class Reply:
    """One accepted messages request, ready to be answered; `pace_ms` is the server's, per piece."""

    wire: Wire
    answer: Answer
    served: Served
    message_id: str
    pace_ms: int

    async def send(self) -> None:
        """Answer; raises `ApiError` for a scripted error before anything was sent."""
        try:
            await (self._stream() if self.served.entry.stream else self._whole())
        except ScriptedCutError as reached:
            self.served.end("cut")  # before the client can see that it is over
            await self.wire.cut(reached.frame, chunked=reached.chunked, sent=reached.sent)

    async def _stream(self) -> None:
        """Send the events of a stream."""
        script, events = self.answer.script, Events(self.answer, self.message_id)
        head = self._head(_STREAM_TYPE)
        await self.wire.start(200, [*head, (b"cache-control", b"no-cache")])
        if script.empty_body:
            await self._end("cut")
        elif script.raw is not None:
            await self._raw(script.raw)
        elif script.error_first:
            await self._end("error", self._error_frame())
        elif script.cut_first:
            self.served.end("cut")
            await self.wire.cut(events.start())
        elif await self._send_steps(events):
            if script.end_before_stop:
                await self._end("cut")
            else:
                await self._complete(events.stop())

    async def _send_steps(self, events: Events) -> bool:
        """Send every event but the last; False when a scripted fault ended the response."""
        fault, fault_at = self._fault()
        counts_events = self.answer.script.count == "events"
        pieces = paced = 0
        for sent, step in enumerate(events.steps()):
            due = sent >= fault_at if counts_events else (step.piece and pieces >= fault_at) or step.ends_pieces
            if fault is not None and due:
                await self._break(fault)
                return False
            if step.paced:
                await self._wait(first=paced == 0)
                paced += 1
            await self.wire.write(step.frame)
            pieces += step.piece
            self._count(step)
        if fault is not None:
            await self._break(fault)
            return False
        return True

    def _count(self, step: Step) -> None:
        """Enter an event that was handed to the server."""
        entry = self.served.entry
        if step.output_tokens is not None:
            entry.output_tokens = step.output_tokens
        if step.thinking_tokens is not None:
            entry.thinking_tokens = step.thinking_tokens
        if step.blocks is not None:
            self.served.blocks = step.blocks
        entry.pieces_sent += step.piece
        entry.text_sent += step.chars

    async def _wait(self, *, first: bool) -> None:
        """Keep the pace before a delta."""
        script = self.answer.script
        pace = self.pace_ms if script.piece_delay_ms is None else script.piece_delay_ms
        await self.wire.pause(pace if not first or script.first_delay_ms is None else script.first_delay_ms)

    def _fault(self) -> tuple[str | None, int]:
        """Return the fault that strikes first, and the number of pieces or events before it (-1: none)."""
        script = self.answer.script
        planned = {
            "error": script.error_after,
            "cut": script.cut_after,
            "end": script.end_after,
            "stall": script.stall_after,
            "bad_json": script.bad_json_after,
        }
        faults = [(after, name) for name, after in planned.items() if after is not None]
        after, name = min(faults, default=(-1, None))
        return name, after

    async def _break(self, fault: str) -> None:
        """Let a fault happen in the middle of a stream."""
        if fault == "error":
            await self._end("error", self._error_frame())
        elif fault == "bad_json":
            await self._end("error", frames.BAD_JSON)
        elif fault == "end":
            await self._end("cut")
        elif fault == "cut":
            self.served.end("cut")
            await self.wire.cut(broken_delta())
        else:
            await self.wire.flush()
            await self.wire.hang()

    def _error_frame(self) -> bytes:
        """Encode the scripted `error` event."""
        error = self._error()
        body = frames.error_body(self.served.entry.request_id, error)
        return frames.frame("error", body, odd=self.answer.script.unknown_events)

    def _error(self) -> ApiError:
        """Return the scripted error of an answer that had begun."""
        script = self.answer.script
        error_type = script.error_type or "overloaded_error"
        return ApiError(
            status_of(error_type),
            script.error_message or _ERROR_MESSAGE,
            error_type=error_type,
            error_code=script.error_code,
            headers=script.headers,
        )

    async def _complete(self, last: bytes) -> None:
        """Enter the final numbers and end the body."""
        self.served.complete()
        await self._end("completed", last)

    async def _end(self, state: State, last: bytes = b"") -> None:
        """Enter how it ended, send the last frame, and end the body."""
        self.served.end(state)
        if last:
            await self.wire.write(last)
        await self.wire.end()

    async def _raw(self, encoded: str) -> None:
        """Send a body as it is."""
        try:
            body = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            body = encoded.encode()
        self.served.complete()
        await self._end("completed", body)

    async def _whole(self) -> None:
        """Answer without a stream, after the time that the stream would have taken."""
        script, (fault, _) = self.answer.script, self._fault()
        if script.error_first or fault == "error":
            raise self._error()
        for number in range(pauses(self.answer)):
            await self._wait(first=number == 0)
        if fault == "stall":
            await self.wire.hang()
        if script.raw is not None:
            await self.wire.start(200, self._head(b"application/json"))
            await self._raw(script.raw)
            return
        body = b"" if script.empty_body else Events(self.answer, self.message_id).whole()
        if fault in ("end", "bad_json"):
            body = body[: len(body) // 2]
        body = self.wire.compressed(body)
        head = self._head(b"application/json")
        await self.wire.start(200, [*head, (b"content-length", b"%d" % len(body))])
        await self._send_whole(body, fault)

    async def _send_whole(self, body: bytes, fault: str | None) -> None:
        """Send the body; the model had said it all, whatever becomes of it."""
        self.served.generate()
        if fault == "cut":
            self.served.end("cut")
            await self.wire.cut(body, chunked=False)
            return
        if fault is not None or not body:
            self.served.end("cut")
            await self.wire.end(body, chunked=False)
            return
        pieces = [delta for block in self.answer.blocks for delta in block.deltas if delta.piece]
        self.served.entry.pieces_sent = len(pieces)
        self.served.entry.text_sent = sum(delta.chars for delta in pieces)
        self.served.complete()
        self.served.end("completed")
        await self.wire.end(body, chunked=False)

    def _head(self, content_type: bytes) -> frames.Headers:
        """Return the head of a 200."""
        head = frames.headers(self.served.entry.request_id, content_type, self.answer.script.headers)
        encoding = self.wire.encoding
        return [*head, (b"content-encoding", encoding.encode())] if encoding else head
