"""The codecs of `/v1/messages`: streams come out byte for byte, and assembled messages are what the SDK accumulates."""

import json
from copy import deepcopy
from itertools import pairwise
from typing import Any, cast

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.messages import codecs
from api.gateway.messages.codecs import StreamCodec, WholeCodec
from api.gateway.stream_errors import fault
from api.gateway.upstream.events import BadStream, MessageStop

START: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 3}},
}
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def frame(event: dict[str, Any]) -> bytes:
    """An event as the provider writes it."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def of_blocks(*blocks: "Block", **end: Any) -> list[dict[str, Any]]:
    """The events of a message, without its stop."""
    events: list[dict[str, Any]] = [{"type": "message_start", "message": START}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": "end_turn", "stop_sequence": None, **end}
    return [*events, {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 20}}]


Block = tuple[dict[str, Any], list[dict[str, Any]]]
TEXT = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "Hel"}, {"type": "text_delta", "text": "lo"}])
CITED: Block = (
    {"type": "text", "text": "", "citations": []},
    [
        {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "x", "document_index": 0}},
        {"type": "text_delta", "text": "cited"},
    ],
)
THINKING = (
    {"type": "thinking", "thinking": "", "signature": ""},
    [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "sig"}],
)
HIDDEN = ({"type": "thinking", "thinking": "", "signature": ""}, [{"type": "signature_delta", "signature": "sig"}])
REDACTED: Block = ({"type": "redacted_thinking", "data": "abc"}, [])
TOOL = (
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"city": "P', 'une", "n": 12}')],
)
CUT_TOOL = (
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    [{"type": "input_json_delta", "partial_json": '{"city": "Pune", "days": [1, 2'}],
)
EMPTY_TOOL = (
    {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
    [{"type": "input_json_delta", "partial_json": ""}],
)
SEARCH: Block = (
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [{"type": "web_search_result", "title": "t", "url": "u", "encrypted_content": "e"}],
    },
    [],
)
SERVER_TOOL = (
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
    [{"type": "input_json_delta", "partial_json": '{"query": "x"}'}],
)
MESSAGES = {
    "text": of_blocks(TEXT),
    "citations": of_blocks(CITED),
    "thinking": of_blocks(THINKING, TEXT),
    "hidden thinking": of_blocks(HIDDEN, TEXT),
    "redacted thinking": of_blocks(REDACTED, TEXT),
    "tools": of_blocks(TEXT, TOOL, EMPTY_TOOL, stop_reason="tool_use"),
    "a cut tool": of_blocks(CUT_TOOL, stop_reason="max_tokens"),
    "server tools": of_blocks(SERVER_TOOL, SEARCH, TEXT),
    "nothing": of_blocks(stop_reason="max_tokens"),
    "a stop sequence": of_blocks(TEXT, stop_reason="stop_sequence", stop_sequence="END"),
}


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client gets who did not ask for a stream."""
    codec = WholeCodec()
    for event in [*map(frame, events), STOP]:
        list(codec.read(event))
        assert codec.taken() == b""
    message: dict[str, Any] = json.loads(codec.last(None))
    return message


@pytest.mark.parametrize("events", MESSAGES.values(), ids=MESSAGES)
def test_an_assembled_message_is_what_the_sdk_accumulates(events: list[dict[str, Any]]) -> None:
    snapshot, bufs = None, dict[int, bytes]()
    for event in events:
        snapshot = accumulate_event(event=cast("Any", deepcopy(event)), current_snapshot=snapshot, json_bufs=bufs)
    assert snapshot is not None
    expected = json.loads(snapshot.to_json(exclude_unset=True, exclude_none=False))
    message = assembled(events)
    for block in expected["content"]:
        block.pop("parsed_output", None)
    assert message["content"] == expected["content"]
    assert message["usage"] == {**START["usage"], "output_tokens": 20}
    for name in ("id", "model", "role", "type", "stop_reason", "stop_sequence"):
        assert message[name] == expected[name], name


def test_what_is_unknown_is_kept() -> None:
    block = ({"type": "song", "notes": "a", "bars": [1]}, [{"type": "song_delta", "notes": "b", "bars": [2], "key": 3}])
    events = of_blocks(block, mood="merry")
    events[-1]["context_management"] = {"applied_edits": []}
    message = assembled(events)
    assert message["content"] == [{"type": "song", "notes": "ab", "bars": [1, 2], "key": 3}]
    assert (message["mood"], message["context_management"]) == ("merry", {"applied_edits": []})


def test_halves_of_a_character_are_joined() -> None:
    block = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "x"}, {"type": "text_delta", "text": "y"}])
    events = of_blocks(block)
    data = (
        b"".join(map(frame, events))
        .replace(b'"text": "x"', rb'"text": "\ud83d"')
        .replace(b'"text": "y"', rb'"text": "\ude00"')
    )
    codec = WholeCodec()
    list(codec.read(data))
    assert json.loads(codec.last(None))["content"][0]["text"] == "\U0001f600"


names = st.sampled_from(
    ["ping", "message_start", "content_block_start", "content_block_delta", "content_block_stop", "song", "message_x"]
)
texts = st.text(max_size=20)
fields = st.dictionaries(st.text(min_size=1, max_size=6), texts | st.integers() | st.none(), max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream as the provider, or a later version of it, could write it."""
    out = [frame({"type": "message_start", "message": START, **draw(fields)})]
    newline = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.integers(0, 4))
        extra = draw(fields)
        if kind == 0:
            out.append(b": " + draw(texts).encode().replace(b"\n", b"").replace(b"\r", b"") + b"\n\n")
        elif kind == 1:
            delta = {**extra, "type": draw(st.sampled_from(["text_delta", "song_delta"])), "text": draw(texts)}
            out.append(frame({"type": "content_block_delta", "index": 0, "delta": delta}))
        elif kind == 2:
            out.append(frame({**extra, "type": "ping"}))
        elif kind == 3:
            out.append(frame({**extra, "type": "song"}))
        else:
            out.append(frame({**extra, "type": "content_block_start", "index": 0, "content_block": {"type": "text"}}))
    out.append(frame({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}))
    return b"".join([*out, STOP]).replace(b"\n", newline)


@pytest.mark.slow
@given(streams(), st.lists(st.integers(0, 2000), max_size=12))
def test_a_stream_comes_out_byte_for_byte(stream: bytes, cuts: list[int]) -> None:
    codec, out, ends = StreamCodec(), b"", 0
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        for event in codec.read(stream[start:end]):
            ends += isinstance(event, MessageStop)
        out += codec.taken()
    assert out + codec.last(None) == stream
    assert ends == 1
    assert codec.last(None).startswith(b"event: message_stop"), "the end waits for the settlement"


def test_the_providers_own_words_do_not_end_a_stream() -> None:
    said = {"type": "error", "error": {"type": "rate_limit_error", "message": "organization 1234 is over its limit"}}
    codec = StreamCodec()
    before = b"".join(map(frame, of_blocks(TEXT)[:3]))
    assert len(list(codec.read(before + frame(said) + STOP))) == 3
    out = codec.taken() + codec.failed(fault("upstream_rate_limited"), {"path": "/v1/messages", "naka.request_id": "r"})
    assert out.startswith(before)
    told = json.loads(out.removeprefix(before).removeprefix(b"event: error\ndata: "))
    assert (told["error"]["type"], told["request_id"]) == ("overloaded_error", "r")
    assert b"1234" not in out


@pytest.mark.parametrize("content", [5, {"a": 1}, True])
def test_a_message_whose_content_is_no_list_is_a_bad_stream(content: object) -> None:
    start = {"type": "message_start", "message": {**START, "content": content}}
    codec = WholeCodec()
    try:
        list(codec.read(frame(start)))
    except BadStream:
        return
    json.loads(codec.last(None))


def test_an_assembled_message_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "_MAX_MESSAGE_BYTES", 10_000)
    codec = WholeCodec()
    delta = frame({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}})
    for _ in range(10_000 // len(delta)):
        list(codec.read(delta))
    with pytest.raises(BadStream):
        list(codec.read(delta))


def test_a_text_after_its_stop_and_a_changed_kind_are_kept() -> None:
    sung = [{"type": "song_delta", "notes": notes} for notes in ("b", 5, "c", "d")]
    block = ({"type": "song", "notes": "a"}, sung)
    events = of_blocks(block)
    events.insert(-1, {"type": "content_block_delta", "index": 0, "delta": {"type": "song_delta", "notes": "e"}})
    assert assembled(events)["content"] == [{"type": "song", "notes": "cde"}]
