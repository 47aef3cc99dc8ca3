"""The response to a request: a stream of events, or one JSON, with the scripted fault.

The entry is updated with every piece handed to the server and ended before the body, so that a client that has read
the whole answer finds it in the ledger. A disconnect raises through here.
"""

from dataclasses import dataclass

from sandbox.anthropic import frames
from sandbox.anthropic.answer import Answer
from sandbox.anthropic.ledger import Entry, Ledger, State
from sandbox.anthropic.request import ApiError, status_of
from sandbox.anthropic.script import Script
from sandbox.anthropic.wire import Wire

_STREAM_TYPE = b"text/event-stream; charset=utf-8"
_ERROR_MESSAGE = "Overloaded"


@dataclass(frozen=True, slots=True)
class Reply:
    """One accepted messages request, ready to be answered; `pace_ms` is the server's, per piece."""

    wire: Wire
    script: Script
    answer: Answer
    entry: Entry
    ledger: Ledger
    message_id: str
    pace_ms: int

    async def send(self) -> None:
        """Answer; raises `ApiError` for a scripted HTTP error, before anything was sent."""
        script = self.script
        await self.wire.pause(script.head_delay_ms)
        if script.status is not None and (
            script.fail_times is None or self.ledger.fail(script.ref or "", script.fail_times)
        ):
            raise ApiError(
                script.status,
                "The simulator was told to fail.",
                error_type=script.error_type,
                retry_after=script.retry_after,
            )
        await (self._stream() if self.entry.stream else self._whole())

    async def _stream(self) -> None:
        """Send the events of a stream."""
        head = frames.headers(self.entry.request_id, _STREAM_TYPE)
        await self.wire.start(200, [*head, (b"cache-control", b"no-cache")])
        if self.script.empty_body:
            await self._end("cut")
            return
        if self.script.error_first:
            await self._end("error", self._error_frame())
            return
        odd, answer = self.script.unknown_events, self.answer
        placeholder = self.script.start_output_tokens
        start = frames.message_start(self.message_id, answer, placeholder=placeholder, odd=odd)
        if self.script.cut_first:
            self.ledger.end(self.entry, "cut")
            await self.wire.cut(start)
            return
        await self.wire.write(start)
        await self._think()
        if not await self._speak():
            return
        delta, stop = frames.message_end(answer, repeat_input=self.script.usage_delta_input, odd=odd)
        await self.wire.write(delta)
        if self.script.end_before_stop:
            self.entry.output_tokens = answer.output_tokens
            await self._end("cut")
            return
        await self._complete(stop)

    async def _think(self) -> None:
        """Send the thinking block, if there is thinking."""
        if not self.answer.thinking:
            return
        odd = self.script.unknown_events
        await self._open_block(0, {"type": "thinking", "thinking": "", "signature": ""})
        for number, piece in enumerate(self.answer.thinking):
            await self._wait(first=number == 0)
            await self.wire.write(frames.block_delta(0, {"type": "thinking_delta", "thinking": piece}, odd=odd))
            self.entry.output_tokens = self.answer.thought_after[number + 1]
        self.entry.thinking_tokens = self.answer.thinking_tokens
        await self.wire.write(
            frames.block_delta(0, {"type": "signature_delta", "signature": frames.signature()}, odd=odd)
        )
        await self.wire.write(frames.block_stop(0, odd=odd))

    async def _speak(self) -> bool:
        """Send the text block; False when a scripted fault ended the response."""
        answer, script = self.answer, self.script
        index, odd = int(bool(answer.thinking)), script.unknown_events
        fault, fault_at = self._fault()
        if answer.has_text:
            await self._open_block(index, {"type": "text", "text": ""})
        for number, piece in enumerate(answer.pieces):
            if number == fault_at:
                break
            await self._wait(first=number == 0 and not answer.thinking)
            if script.pings:
                await self.wire.write(frames.PING)
            if odd:
                await self.wire.write(frames.unknown_delta(index))
            await self.wire.write(frames.text_delta(index, piece, odd=odd))
            self._count(number + 1, piece)
        if fault is not None:
            await self._break(fault)
            return False
        if answer.has_text:
            await self.wire.write(frames.block_stop(index, odd=odd))
        return True

    async def _open_block(self, index: int, block: frames.Json) -> None:
        """Start a block, after the first one the customary ping."""
        if self.script.unknown_events:
            await self.wire.write(frames.unknown_event())
        await self.wire.write(frames.block_start(index, block, odd=self.script.unknown_events))
        if index == 0:
            await self.wire.write(frames.PING)

    async def _wait(self, *, first: bool) -> None:
        """Keep the pace before a delta."""
        script = self.script
        pace = self.pace_ms if script.piece_delay_ms is None else script.piece_delay_ms
        await self.wire.pause(pace if not first or script.first_delay_ms is None else script.first_delay_ms)

    def _count(self, number: int, piece: str) -> None:
        """Enter a piece that was handed to the server."""
        self.entry.output_tokens = self.answer.tokens_after[number]
        self.entry.pieces_sent = number
        self.entry.text_sent += len(piece)

    def _fault(self) -> tuple[str | None, int]:
        """Return the fault that strikes first, and the number of pieces before it (-1: none)."""
        script = self.script
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
            self.ledger.end(self.entry, "cut")
            await self.wire.cut(frames.text_delta(0, "this never arrives in full", odd=False))
        else:
            await self.wire.flush()
            await self.wire.hang()

    def _error_frame(self) -> bytes:
        """Encode the scripted `error` event."""
        error_type = self.script.error_type or "overloaded_error"
        body = frames.error_body(self.entry.request_id, error_type, _ERROR_MESSAGE)
        return frames.frame("error", body, odd=self.script.unknown_events)

    async def _complete(self, last: bytes) -> None:
        """Enter the final numbers and end the body."""
        self.entry.output_tokens = self.answer.output_tokens
        self.entry.stop_reason = self.answer.stop_reason
        await self._end("completed", last)

    async def _end(self, state: State, last: bytes = b"") -> None:
        """Enter how it ended, send the last frame, and end the body."""
        self.ledger.end(self.entry, state)
        if last:
            await self.wire.write(last)
        await self.wire.end()

    async def _whole(self) -> None:
        """Answer without a stream, after the time that the stream would have taken."""
        fault, _ = self._fault()
        if self.script.error_first or fault == "error":
            error_type = self.script.error_type or "overloaded_error"
            raise ApiError(status_of(error_type), _ERROR_MESSAGE, error_type=error_type)
        for number in range(len(self.answer.thinking) + len(self.answer.pieces)):
            await self._wait(first=number == 0)
        if fault == "stall":
            await self.wire.hang()
        body = b"" if self.script.empty_body else frames.whole_message(self.message_id, self.answer)
        if fault in ("end", "bad_json"):
            body = body[: len(body) // 2]
        head = frames.headers(self.entry.request_id, b"application/json")
        await self.wire.start(200, [*head, (b"content-length", b"%d" % len(body))])
        # The model had said it all, whatever becomes of the body.
        self.entry.thinking_tokens = self.answer.thinking_tokens
        self.entry.output_tokens = self.answer.output_tokens
        if fault == "cut":
            self.ledger.end(self.entry, "cut")
            await self.wire.cut(body, chunked=False)
            return
        if fault is not None or not body:
            self.ledger.end(self.entry, "cut")
            await self.wire.end(body)
            return
        self.entry.pieces_sent = len(self.answer.pieces)
        self.entry.text_sent = sum(map(len, self.answer.pieces))
        self.entry.stop_reason = self.answer.stop_reason
        self.ledger.end(self.entry, "completed")
        await self.wire.end(body)
