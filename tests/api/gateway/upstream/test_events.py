"""The parser of Anthropic's stream: independent of chunk borders; any other input raises BadStream."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.upstream.event_reader import MAX_FRAME_BYTES, EventReader
from api.gateway.upstream.events import (
    BadStream,
    Event,
    MessageDelta,
    MessageStart,
    MessageStop,
    Text,
    Thinking,
    UpstreamErrorEvent,
)
from metering.pricing.tokens import CacheCreation, OutputDetails, ReportedUsage, ServerToolUse, Usage, overlay

Sent = tuple[str, dict[str, Any], Event | None]
"""An event's name and payload, and the event expected from it."""
TEXTS = st.text(st.one_of(st.sampled_from("\r\n {}\u2028"), st.characters(exclude_categories=["Cs"])), max_size=12)
COUNTS = st.one_of(st.none(), st.integers(0, 10**12))
JSONS = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=3))


@st.composite
def usages(draw: st.DrawFn) -> tuple[dict[str, Any], ReportedUsage]:
    """A `usage` with some counts absent, null or zero, and its expected value."""
    given: dict[str, Any] = {name: draw(COUNTS) for name in ReportedUsage.__struct_fields__[:4] if draw(st.booleans())}
    parts: dict[str, Any] = {}
    split = draw(st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)))
    if split is not None:
        given["cache_creation"] = {"ephemeral_5m_input_tokens": split[0], "ephemeral_1h_input_tokens": split[1]}
        parts["cache_creation"] = CacheCreation(*split)
    if draw(st.booleans()):
        given["output_tokens_details"] = {"thinking_tokens": (thinking := draw(COUNTS))}
        parts["output_tokens_details"] = OutputDetails(thinking)
    if draw(st.booleans()):
        given["server_tool_use"] = {"web_fetch_requests": 3, "web_search_requests": (searches := draw(COUNTS))}
        parts["server_tool_use"] = ServerToolUse(searches)
    return given, ReportedUsage(**given | parts)


@st.composite
def sent_events(draw: st.DrawFn) -> Sent:
    """One event of a stream."""
    text, (usage, read) = draw(TEXTS), draw(usages())
    name = text.replace("\0", "")  # what Postgres cannot keep is refused
    deltas: list[tuple[dict[str, Any], Event | None]] = [
        ({"type": "text_delta", "text": text}, Text(text)),
        ({"type": "thinking_delta", "thinking": text}, Thinking(text)),
        ({"type": "input_json_delta", "partial_json": text}, Thinking(text)),
        ({"type": "signature_delta", "signature": text}, None),
        ({"type": "shimmer_delta", "text": draw(JSONS), "thinking": draw(JSONS)}, None),
    ]
    events: list[Sent] = [
        *(("content_block_delta", {"index": 0, "delta": delta}, event) for delta, event in deltas),
        (
            "message_start",
            {"message": {"id": name, "model": "m", "content": [], "usage": usage}},
            MessageStart(name, "m", read),
        ),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": usage}, MessageDelta("end_turn", read)),
        ("message_delta", {"delta": {"stop_reason": None}}, MessageDelta(None, ReportedUsage())),
        ("message_stop", {}, MessageStop()),
        ("error", {"error": {"type": text, "message": "no"}}, UpstreamErrorEvent(text)),
        ("ping", {}, None),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": text}}, None),
        ("future_event", {"delta": {"type": "text_delta", "text": "not yours"}}, None),
    ]
    name, payload, event = draw(st.sampled_from(events))
    return name, {"type": name, **payload, "extra": draw(JSONS)}, event


@st.composite
def encoded(draw: st.DrawFn, name: str, payload: dict[str, Any]) -> str:
    """One frame, in any form that server-sent events and JSON allow."""
    data = json.dumps(payload, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])))
    data = data[:-1] + " " * draw(st.integers(0, 14)) + "}"
    blank = draw(st.sampled_from(["", " "]))
    lines = [f"event:{blank}{name}", *(f"data:{blank}{line}" for line in data.split("\n"))]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from([": comment", "id: 7", ":"])))
    return "".join(f"{line}\n" for line in lines) + "\n" * draw(st.integers(1, 3))


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[Event]]:
    """The frames of a stream, and the expected events."""
    sent = draw(st.lists(sent_events(), min_size=1, max_size=6))
    texts = [draw(encoded(name, payload)) for name, payload, _ in sent]
    if draw(st.booleans()):
        texts = [text.replace("\n", "\r\n") for text in texts]
    return [text.encode() for text in texts], [event for *_, event in sent if event is not None]


def read(chunks: Iterable[bytes]) -> list[Event]:
    """Returns the events of a stream that arrives in chunks."""
    reader = EventReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


def frame(name: str, data: str | bytes) -> bytes:
    """Returns one frame."""
    return f"event: {name}\ndata: ".encode() + (data if isinstance(data, bytes) else data.encode()) + b"\n\n"


@pytest.mark.slow
@given(streams(), st.data())
def test_the_cut_does_not_matter(stream: tuple[list[bytes], list[Event]], data: st.DataObject) -> None:
    frames, events = stream
    body = b"".join(frames)
    borders = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=20)))

    assert read([body]) == events
    assert read(frames) == events
    assert read(bytes([byte]) for byte in body) == events
    assert read(body[i:j] for i, j in zip([0, *borders], [*borders, len(body)], strict=True)) == events


@pytest.mark.slow
@given(streams(), st.data())
def test_damage_is_a_bad_stream_and_nothing_else(stream: tuple[list[bytes], list[Event]], data: st.DataObject) -> None:
    body = b"".join(stream[0])
    at = data.draw(st.integers(0, len(body)))
    damaged = body[:at] + data.draw(st.binary(max_size=8)) + body[at + data.draw(st.integers(0, 8)) :]

    with suppress(BadStream):  # any other exception fails the test
        assert all(isinstance(event, Event) for event in read([damaged[:at], damaged[at:]]))


@given(st.binary(max_size=200))
def test_noise_is_not_read_as_events(noise: bytes) -> None:
    assert read([noise]) == []


@pytest.mark.parametrize("name", ["message_start", "content_block_delta", "message_delta", "error"])
@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"delta":{"type":',
        '{"delta":null,"message":null,"error":null}',
        '{"delta":{"type":"text_delta","text":null,"stop_reason":7},"message":{"id":"m"},"error":[]}',
        '{"delta":{"type":7,"stop_reason":["\\udfff"]},"error":{"type":["\\ud800"]}}',
        b'{"delta":{"type":"text_delta","text":"\xff","stop_reason":"\xff"},"error":{"type":"\xff"},"message":{"id":"\xff"}}',
        b'{"a":' * 20_000,
        b'{"delta":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"unknown":' + b"[" * 50_000 + b"]" * 50_000 + b',"delta":{"type":"x"}}',
    ],
    ids=lambda data: str(data[:24]),
)
def test_an_event_that_cannot_be_read_is_a_bad_stream(name: str, data: str | bytes) -> None:
    with pytest.raises(BadStream):
        read([frame(name, data)])


def test_message_stop_needs_no_data() -> None:
    assert read([b"event: message_stop\n\n"]) == [MessageStop()]


def test_a_frame_without_end_is_a_bad_stream() -> None:
    reader = EventReader()
    part = b"data: " + b"x" * (MAX_FRAME_BYTES // 4)
    for _ in range(3):
        assert list(reader.feed(part)) == []

    with pytest.raises(BadStream):
        list(reader.feed(part))


def test_a_frame_may_be_large() -> None:
    text = "x" * (MAX_FRAME_BYTES // 2)
    body = frame("content_block_delta", json.dumps({"delta": {"type": "text_delta", "text": text}}))

    assert read([body[: MAX_FRAME_BYTES // 2], body[MAX_FRAME_BYTES // 2 :]]) == [Text(text)]


def test_what_came_before_the_damage_is_read() -> None:
    good = frame("content_block_delta", '{"delta":{"type":"text_delta","text":"words"}}')
    reader = iter(EventReader().feed(good + frame("error", "{")))

    assert next(reader) == Text("words")
    with pytest.raises(BadStream):
        next(reader)


START = {
    "input_tokens": 25,
    "output_tokens": 1,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 5,
    "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
}
FULL = Usage(25, 1, 5, 4, 6)


@pytest.mark.parametrize(
    ("start", "delta", "usage"),
    [
        (START, None, FULL),
        (START, {"output_tokens": 90}, replace(FULL, output_tokens=90)),
        (START, {"output_tokens": 0}, replace(FULL, output_tokens=0)),
        (START, {"output_tokens": None}, FULL),
        (START, {"output_tokens": 9, "input_tokens": None, "cache_read_input_tokens": None}, Usage(25, 9, 5, 4, 6)),
        (START, {"output_tokens": 9, "input_tokens": 0, "cache_read_input_tokens": 0}, Usage(0, 9, 0, 4, 6)),
        (START, {"input_tokens": 30, "cache_read_input_tokens": 7}, Usage(30, 1, 7, 4, 6)),
        (START, {"cache_creation_input_tokens": 10}, FULL),
        (START, {"cache_creation_input_tokens": None}, FULL),
        (START, {"cache_creation_input_tokens": 0}, Usage(25, 1, 5, 0, 0)),
        (START, {"cache_creation_input_tokens": 15}, Usage(25, 1, 5, 4, 11)),
        (START, {"cache_creation_input_tokens": 3}, Usage(25, 1, 5, 3, 0)),
        ({"cache_creation_input_tokens": 10}, None, Usage(0, 0, 0, 0, 10)),
        ({"cache_creation_input_tokens": 10, "cache_creation": None}, None, Usage(0, 0, 0, 0, 10)),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 4}}, None, Usage(0, 0, 0, 4, 0)),
        ({"cache_creation_input_tokens": None, "cache_creation": START["cache_creation"]}, {}, Usage(0, 0, 0, 4, 6)),
        ({}, {}, Usage()),
    ],
)
def test_later_counts_overwrite_what_they_name(
    start: dict[str, Any], delta: dict[str, Any] | None, usage: Usage
) -> None:
    message = {"message": {"id": "m", "model": "m", "usage": start}}
    body = frame("message_start", json.dumps(message))
    body += frame("message_delta", json.dumps({"delta": {}} if delta is None else {"delta": {}, "usage": delta}))

    started, told = read([body])

    assert isinstance(started, MessageStart)
    assert isinstance(told, MessageDelta)
    assert overlay(started.usage, told.usage) == usage
    assert delta is not None or overlay(started.usage, None) == usage


@pytest.mark.slow
@given(usages(), st.lists(usages(), max_size=4))
def test_several_reports_are_one(start: tuple[Any, ReportedUsage], deltas: list[tuple[Any, ReportedUsage]]) -> None:
    reports = [report for _, report in deltas]
    merged = ReportedUsage()
    for report in reports:
        merged = merged.then(report)
    told = overlay(start[1], merged)

    def last(name: str) -> Any:
        unsaid = (None, OutputDetails(), ServerToolUse())
        said = [value for report in (start[1], *reports) if (value := getattr(report, name)) not in unsaid]
        return said[-1] if said else None

    split = last("cache_creation") or CacheCreation()
    writes = last("cache_creation_input_tokens")
    sums = split.ephemeral_5m_input_tokens + split.ephemeral_1h_input_tokens
    assert told.input_tokens == (last("input_tokens") or 0)
    assert told.output_tokens == (last("output_tokens") or 0)
    assert told.cache_read_tokens == (last("cache_read_input_tokens") or 0)
    assert told.cache_write_5m_tokens + told.cache_write_1h_tokens == (sums if writes is None else writes)
    only_short = bool(split.ephemeral_5m_input_tokens) and not split.ephemeral_1h_input_tokens
    assert only_short or told.cache_write_5m_tokens <= split.ephemeral_5m_input_tokens
    assert not (only_short and told.cache_write_1h_tokens)
    assert told.thinking_tokens == ((last("output_tokens_details") or OutputDetails()).thinking_tokens or 0)
    assert told.web_searches == ((last("server_tool_use") or ServerToolUse()).web_search_requests or 0)


@pytest.mark.parametrize("count", [-1, 10**12 + 1, 2**63, 2**64, 1.5, "7"])
def test_a_count_that_is_none_breaks_the_stream(count: object) -> None:
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    parts = {"output_tokens_details": "thinking_tokens", "server_tool_use": "web_search_requests"}
    for usage in [{name: count} for name in names] + [{part: {name: count}} for part, name in parts.items()]:
        body = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
        with pytest.raises(BadStream):
            list(EventReader().feed(f"event: message_delta\ndata: {json.dumps(body)}\n\n".encode()))


@pytest.mark.parametrize("word", ["a\\u0000b", "\\u0000", "x" * 201])
@pytest.mark.parametrize("field", ["id", "model"])
def test_a_name_that_the_books_cannot_take_breaks_the_stream(word: str, field: str) -> None:
    message = json.dumps({"id": "m", "model": "m", "usage": {}}).replace(f'"{field}": "m"', f'"{field}": "{word}"')
    with pytest.raises(BadStream):
        list(EventReader().feed(f'event: message_start\ndata: {{"message": {message}}}\n\n'.encode()))


def delta(text: str) -> bytes:
    """Returns a delta with unescaped text."""
    return frame("content_block_delta", f'{{"delta":{{"type":"text_delta","text":"{text}"}}}}')


HIGH, LOW = "\\ud83e", "\\uddfe"
PING = frame("ping", "{}")
STOP = frame("message_stop", "{}")


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([delta(f"a{HIGH}"), delta(f"{LOW}b")], "a🧾b"),
        ([delta(f"a{HIGH}"), PING, delta(""), delta(f"{LOW}b"), delta("c")], "a🧾bc"),
        ([delta(HIGH), delta(f"{LOW}{HIGH}"), delta(LOW)], "🧾🧾"),
        ([delta(f"a{HIGH}"), delta("b")], "a\ufffdb"),
        ([delta(f"a{HIGH}"), delta(f"{HIGH}{LOW}")], "a\ufffd🧾"),
        ([delta(f"a{LOW}{HIGH}b"), delta(LOW)], "a\ufffd\ufffdb\ufffd"),
        ([delta(f"a{HIGH}"), STOP], "a\ufffd"),
        ([delta(f"a{HIGH}"), frame("message_delta", '{"delta":{"stop_reason":"end_turn"}}'), STOP], "a\ufffd"),
    ],
)
def test_half_a_character_is_joined_with_the_other_half_or_replaced(frames: list[bytes], text: str) -> None:
    body = b"".join(frames)
    for chunks in (frames, [body], [bytes([byte]) for byte in body]):
        events = read(chunks)
        assert "".join(event.text for event in events if isinstance(event, Text)) == text
        "".join(event.text for event in events if isinstance(event, Text)).encode()
        assert [type(event) for event in events if not isinstance(event, Text)] == [
            type(event) for event in read(each for each in frames if each != PING and b"block_delta" not in each)
        ]


def test_half_a_character_elsewhere_is_replaced() -> None:
    thinking = frame("content_block_delta", f'{{"delta":{{"type":"thinking_delta","thinking":"a{HIGH}"}}}}')
    stop = frame("message_delta", f'{{"delta":{{"stop_reason":"{LOW}"}}}}')
    start = frame("message_start", f'{{"message":{{"id":"{LOW}","model":"m{HIGH}","usage":{{"input_tokens":7}}}}}}')
    future = frame("content_block_delta", f'{{"delta":{{"type":"x{HIGH}","text":[]}}}}')

    assert read([thinking, stop, start, future]) == [
        Thinking("a\ufffd"),
        MessageDelta("\ufffd", ReportedUsage()),
        MessageStart("\ufffd", "m\ufffd", ReportedUsage(input_tokens=7)),
    ]
