"""The bytes of an answer: its events in order, or the whole message.

A step is one event with what the ledger has to know when it was sent. With `unknown_events` there are events, deltas
and fields of unknown type, and blanks before the closing brace of each JSON.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from sandbox.anthropic.answers.blocks import Block
from sandbox.anthropic.answers.plan import Answer
from sandbox.anthropic.answers.usage import Counts, iterations_json, tools_json
from sandbox.anthropic.frames import PING, frame

Json = dict[str, Any]


@dataclass(slots=True)  # frozen would cost as much as encoding the event
class Step:
    """One event. `output_tokens` and `thinking_tokens` are the totals once it was sent; None: as before."""

    frame: bytes
    paced: bool = False
    piece: bool = False
    chars: int = 0
    output_tokens: int | None = None
    thinking_tokens: int | None = None
    blocks: int | None = None
    """Blocks complete with this event."""
    ends_pieces: bool = False
    """Follows the last piece: a fault that waits for one more strikes before it."""


class Events:
    """The events of one answer."""

    def __init__(self, answer: Answer, message_id: str) -> None:
        """Take the answer."""
        self._answer = answer
        self._message_id = message_id
        self._odd = answer.script.unknown_events

    def steps(self) -> Iterator[Step]:
        """Yield all events but `message_stop`, encoded one at a time."""
        yield Step(self.start())
        answer = self._answer
        speaks = [number for number, block in enumerate(answer.blocks) if any(d.piece for d in block.deltas)]
        texts = [number for number, block in enumerate(answer.blocks) if block.kind == "text"]
        last = max(speaks or texts, default=-1)
        generated = thought = 0
        for number, block in enumerate(answer.blocks):
            yield from self._open(number, block)
            yield from self._deltas(number, block, generated, thought)
            if block.counted:
                generated += block.tokens
            if block.kind == "fallback":
                generated = 0
            thought += block.thinking_tokens
            stop = self._frame("content_block_stop", {"type": "content_block_stop", "index": number})
            tokens = answer.reported(generated)
            yield Step(
                stop, output_tokens=tokens, thinking_tokens=thought, blocks=number + 1, ends_pieces=number == last
            )
        yield Step(self._message_delta(), output_tokens=answer.output_tokens, ends_pieces=last < 0)

    def start(self) -> bytes:
        """Encode `message_start`; its output tokens are only a placeholder."""
        answer, script = self._answer, self._answer.script
        usage = _usage(answer, answer.usage.start, script.start_output_tokens, None)
        if self._odd:
            usage |= {"unknown_tokens": 7}
        message: Json = {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": usage | script.usage,
        }
        message |= script.message_fields
        return self._frame("message_start", {"type": "message_start", "message": message})

    def stop(self) -> bytes:
        """Encode `message_stop`."""
        return self._frame("message_stop", {"type": "message_stop"})

    def whole(self) -> bytes:
        """Encode the answer that is not streamed."""
        answer, script = self._answer, self._answer.script
        final = answer.usage.final
        usage = _usage(answer, final, final.output_tokens, final.thinking_tokens or None)
        if answer.usage.shown:
            usage["iterations"] = iterations_json(answer.usage.inferences)
        message: Json = {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [block.whole for block in answer.blocks],
        }
        message |= _stop(answer) | _context(answer) | {"usage": usage | script.usage} | script.message_fields
        return msgspec.json.encode(message)

    def _open(self, number: int, block: Block) -> Iterator[Step]:
        """Start a block, after the first one the customary ping."""
        if self._odd:
            event = {"type": "future_event", "index": 0, "delta": {"text": "not yours"}}
            yield Step(self._frame("future_event", event))
        start = {"type": "content_block_start", "index": number, "content_block": block.start}
        yield Step(self._frame("content_block_start", start))
        if number == 0:
            yield Step(PING)

    def _deltas(self, number: int, block: Block, generated: int, thought: int) -> Iterator[Step]:
        """Yield the deltas of a block, after `generated` output tokens and `thought` tokens of thinking."""
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % number
        for delta, tokens in zip(block.deltas, block.tokens_after, strict=True):
            if delta.piece and self._answer.script.pings:
                yield Step(PING, paced=True)
            if delta.piece and self._odd:
                odd = {"type": "shimmer_delta", "text": "not yours", "shimmer": 3}
                yield Step(self._delta(number, odd), paced=not self._answer.script.pings)
            first = not (delta.piece and (self._odd or self._answer.script.pings))
            if self._odd:
                encoded = self._delta(number, delta.payload)
            else:
                encoded = b"%b%b}\n\n" % (head, msgspec.json.encode(delta.payload))
            yield Step(
                encoded,
                paced=first and (delta.piece or delta.thinking),
                piece=delta.piece,
                chars=delta.chars,
                output_tokens=self._answer.reported(generated + tokens) if block.counted else None,
                thinking_tokens=thought + tokens if delta.thinking else None,
            )

    def _delta(self, number: int, delta: Json) -> bytes:
        return self._frame("content_block_delta", {"type": "content_block_delta", "index": number, "delta": delta})

    def _message_delta(self) -> bytes:
        """Encode `message_delta`; its usage is cumulative and has no 5m/1h split."""
        answer, script = self._answer, self._answer.script
        final, start = answer.usage.final, answer.usage.start
        usage: Json = {"output_tokens": answer.output_tokens}
        if script.usage_delta_input or answer.usage.shown or final.without_output() != start:
            usage["input_tokens"] = final.input_tokens
            usage["cache_creation_input_tokens"] = final.cache_creation_5m + final.cache_creation_1h
            usage["cache_read_input_tokens"] = final.cache_read_input_tokens
        tools = tools_json(final)
        if tools is not None:
            usage["server_tool_use"] = tools
        if final.thinking_tokens:
            usage["output_tokens_details"] = {"thinking_tokens": final.thinking_tokens}
        if answer.usage.shown:
            usage["iterations"] = iterations_json(answer.usage.inferences)
        delta = {"type": "message_delta", "delta": _stop(answer), "usage": usage | script.usage_delta} | _context(
            answer
        )
        return self._frame("message_delta", delta)

    def _frame(self, name: str, payload: Json) -> bytes:
        return frame(name, payload, odd=self._odd)


def pauses(answer: Answer) -> int:
    """Count the pauses that a stream of this answer makes."""
    return sum(delta.piece or delta.thinking for block in answer.blocks for delta in block.deltas)


def broken_delta() -> bytes:
    """Encode a delta that is only sent in part."""
    delta = {"type": "text_delta", "text": "this never arrives in full"}
    return frame("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta})


def _usage(answer: Answer, counts: Counts, output_tokens: int, thinking_tokens: int | None) -> Json:
    """Return the full usage, as in `message_start` and in an answer that is not streamed."""
    return {
        "input_tokens": counts.input_tokens,
        "cache_creation_input_tokens": counts.cache_creation_5m + counts.cache_creation_1h,
        "cache_read_input_tokens": counts.cache_read_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.cache_creation_5m,
            "ephemeral_1h_input_tokens": counts.cache_creation_1h,
        },
        "output_tokens": output_tokens,
        "service_tier": answer.service_tier,
        "inference_geo": answer.inference_geo,
        "speed": answer.speed,
        "server_tool_use": tools_json(counts),
        "output_tokens_details": None if thinking_tokens is None else {"thinking_tokens": thinking_tokens},
    }


def _context(answer: Answer) -> Json:
    """Return the field that says which edits of the context were applied."""
    return {} if answer.context_management is None else {"context_management": answer.context_management}


def _stop(answer: Answer) -> Json:
    """Return the fields that say why the answer ended."""
    return {
        "stop_reason": answer.stop_reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": answer.stop_details,
        "container": answer.container,
    }
