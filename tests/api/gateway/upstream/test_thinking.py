"""Blocks of thinking in the stream: their begin and end are told, shown or hidden."""

import json

from api.gateway.upstream.event_reader import EventReader
from api.gateway.upstream.events import Event, Text, Thinking, ThinkingClosed, ThinkingOpened


def read(*events: dict[str, object]) -> list[Event]:
    """The events of a stream."""
    frames = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
    return list(EventReader().feed(b"".join(frames)))


def block(kind: str, *deltas: dict[str, object]) -> list[dict[str, object]]:
    """A block of this type."""
    return [
        {"type": "content_block_start", "index": 0, "content_block": {"type": kind}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
    ]


def test_only_blocks_of_thinking_are_told() -> None:
    text: dict[str, object] = {"type": "text_delta", "text": "x"}
    assert read(*block("text", text)) == [Text("x")]
    signature: dict[str, object] = {"type": "signature_delta", "signature": "s"}
    hidden = read(*block("thinking", signature), *block("redacted_thinking"), *block("text", text))
    assert hidden == [ThinkingOpened(), ThinkingClosed(), ThinkingOpened(), ThinkingClosed(), Text("x")]


def test_the_providers_estimate_goes_along() -> None:
    delta: dict[str, object] = {"type": "thinking_delta", "thinking": "", "estimated_tokens": 50}
    assert read(*block("thinking", delta)) == [ThinkingOpened(), Thinking("", 50), ThinkingClosed()]


def test_a_block_that_cannot_be_read_is_ignored() -> None:
    assert read({"type": "content_block_start", "index": 0, "content_block": 5}) == []
