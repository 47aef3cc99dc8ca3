"""Which form an answer of `/chat` has, and what each form's codec makes of one stream."""

import json
from typing import Any

import pytest

from api.gateway.chat.codecs import ChatCodec, JsonCodec, LinesCodec, PlainCodec, TextCodec
from api.gateway.chat.forms import IN_SOCKET, accepted, chat_codec, ui_codec, wants_usage
from api.gateway.chat.ui_codec import UiCodec
from api.gateway.codec import Codec
from api.gateway.stream_errors import fault
from api.gateway.upstream.events import BadStream
from api.http.body import InvalidBody
from api.http.problems import REQUEST_ID
from core.ids import uuid7
from metering.journal.records import Outcome, Settlement, Source
from metering.pricing.tokens import Usage

EVENTS, JSON, TEXT = "text/event-stream", "application/json", "text/plain"
SETTLED = Settlement(
    uuid7(),
    uuid7(),
    uuid7(),
    Outcome.COMPLETED,
    Source.FINAL,
    "claude-sonnet-4-6",
    model_known=True,
    usage=Usage(7, 20, 1, 2, 3),
    stop_reason="max_tokens",
)
END = {
    "request_id": "r-1",
    "model": "claude-sonnet-4-6",
    "stop_reason": "max_tokens",
    "usage": {
        "input_tokens": 7,
        "output_tokens": 20,
        "cache_read_tokens": 1,
        "cache_write_5m_tokens": 2,
        "cache_write_1h_tokens": 3,
        "source": "final",
    },
}


def request(*accept: str, query: str = "") -> dict[str, Any]:
    headers = [(b"accept", value.encode("latin-1")) for value in accept]
    return {"headers": headers, "query_string": query.encode(), REQUEST_ID: "r-1"}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ((), EVENTS),
        (("*/*",), EVENTS),
        (("text/event-stream",), EVENTS),
        (("application/json",), JSON),
        (("text/plain",), TEXT),
        (("Text/Plain; charset=utf-8",), TEXT),
        (("application/json, text/plain, */*",), EVENTS),  # axios, which has always got events
        (("application/json, text/event-stream",), EVENTS),
        (("application/json;q=0.9, text/event-stream;q=0.8",), JSON),
        (("text/plain;q=0.5, application/json;q=0.5",), JSON),
        (("text/*",), EVENTS),
        (("text/*, text/event-stream;q=0",), TEXT),
        (("application/*",), JSON),
        (("*/*, text/event-stream;q=0.1",), JSON),
        (("text/html, application/xhtml+xml",), EVENTS),
        (("text/html,application/xml;q=0.9,*/*;q=0.8",), EVENTS),
        (("text/plain", "application/json"), JSON),
        (("text/plain;q=nan",), EVENTS),
        (("application/json;q=x",), EVENTS),
        ((",;=,,\xff",), EVENTS),
        (("",), EVENTS),
    ],
)
def test_the_client_weighs_and_events_are_the_first_choice(accept: tuple[str, ...], form: str) -> None:
    assert accepted(request(*accept)) == form


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", False),
        ("usage=1", True),
        ("usage=true", True),
        ("usage=0", False),
        ("usages=1", False),
        ("a=b&usage=1&c", True),
        ("usage=0&usage=1", True),
    ],
)
def test_usage_is_told_if_asked_for(query: str, *, wanted: bool) -> None:
    assert wants_usage(request(query=query)) is wanted


@pytest.mark.parametrize("query", ["usage=yes", "usage=", "usage", "usage=%ff"])
def test_an_unreadable_wish_is_refused(query: str) -> None:
    for codec in (chat_codec, ui_codec):
        with pytest.raises(InvalidBody, match=r"usage: must be 0 or 1"):
            codec(request(query=query))


def test_a_form_has_its_codec() -> None:
    assert type(chat_codec(request())()) is ChatCodec
    assert type(chat_codec(request(TEXT, query="usage=1"))()) is PlainCodec
    assert type(chat_codec(request(JSON))()) is JsonCodec
    assert type(chat_codec({**request(JSON), IN_SOCKET: True})()) is LinesCodec
    assert type(ui_codec(request(JSON))()) is UiCodec


def frame(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def stream(*texts: str, stop_reason: str = "end_turn") -> list[bytes]:
    start = {"id": "m", "model": "claude-sonnet-4-6", "usage": {"input_tokens": 7, "output_tokens": 1}}
    return [
        frame({"type": "message_start", "message": start}),
        *(frame({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}) for text in texts),
        frame({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 20}}),
        frame({"type": "message_stop"}),
    ]


def relayed(codec: TextCodec, pieces: list[bytes]) -> bytes:
    """The bytes of the text, as the answer reader takes them: the first piece of text is always read whole."""
    out, begun = b"", False
    for piece in pieces:
        one = codec.one_text(piece) if begun else None
        if one is None:
            begun = any(type(event).__name__ == "Text" for event in codec.read(piece)) or begun
            out += codec.taken()
        else:
            out += one[1]
    return out


TEXTS = ("  a\r", "\nनाका 😀", "", '"\\x', "\x00\x7f end ")


def ended(codec: Codec, settlement: Settlement | None) -> bytes:
    return codec.last(settlement if codec.tells_usage else None)


def test_text_is_itself() -> None:
    codec = PlainCodec()
    assert relayed(codec, stream(*TEXTS)).decode() + ended(codec, SETTLED).decode() == "".join(TEXTS)
    as_codec: Codec = codec
    assert as_codec.failed(fault("upstream_broken"), {}) is None


def test_json_has_the_text_and_its_usage() -> None:
    codec = JsonCodec("r-1")
    assert relayed(codec, stream(*TEXTS)) == b""
    assert json.loads(codec.last(SETTLED)) == {"text": "".join(TEXTS), **END}
    assert json.loads(JsonCodec("r-1").last(None))["usage"] is None


def test_json_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gateway.chat.codecs.MAX_ANSWER_BYTES", 1000)
    with pytest.raises(BadStream):
        relayed(JsonCodec("r-1"), stream("x" * 500, "y" * 500))


def test_a_line_is_a_frame_of_the_socket() -> None:
    codec = LinesCodec(tells_usage=False, request_id="r-1")
    lines = (relayed(codec, stream(*TEXTS)) + ended(codec, SETTLED)).splitlines()
    assert [json.loads(line) for line in lines] == [*({"text": text} for text in TEXTS if text), {"done": True}]
    assert b"\r" not in b"".join(lines)
    told = LinesCodec(tells_usage=True, request_id="r-1").last(SETTLED)
    assert json.loads(told) == {"done": True, **END}
    error = json.loads(codec.failed(fault("upstream_broken"), {REQUEST_ID: "r-1"}))["error"]
    assert (error["code"], error["request_id"]) == ("upstream_broken", "r-1")


def test_usage_is_the_data_of_done() -> None:
    codec = ChatCodec(tells_usage=True, request_id="r-1")
    name, data = codec.last(SETTLED).decode().removesuffix("\n\n").split("\n")
    assert name == "event: done"
    assert json.loads(data.removeprefix("data: ")) == END
    assert ChatCodec().last(None) == b"event: done\ndata: \n\n"


@pytest.mark.parametrize(
    ("stop_reason", "finish"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("refusal", "content-filter"), ("pause_turn", "other")],
)
def test_a_ui_message_has_the_parts_of_the_sdk(stop_reason: str, finish: str) -> None:
    codec = UiCodec(tells_usage=False, request_id="r-1")
    said = relayed(codec, stream(*TEXTS, stop_reason=stop_reason)) + ended(codec, SETTLED)
    blocks = said.decode().removesuffix("\n\n").split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    assert [json.loads(block.removeprefix("data: ")) for block in blocks] == [
        {"type": "start", "messageId": "r-1"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text"},
        *({"type": "text-delta", "id": "text", "delta": text} for text in TEXTS if text),
        {"type": "text-end", "id": "text"},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": finish},
    ]


def test_a_ui_message_without_text_has_no_text_part() -> None:
    codec = UiCodec(tells_usage=True, request_id="r-1")
    said = (relayed(codec, stream(stop_reason="refusal")) + codec.last(SETTLED)).decode()
    assert "text-" not in said
    finish = json.loads(said.split("data: ")[-2])
    assert finish == {"type": "finish", "finishReason": "content-filter", "messageMetadata": END}


def test_a_ui_message_ends_its_text_before_an_error() -> None:
    codec = UiCodec(tells_usage=False, request_id="r-1")
    relayed(codec, stream("a")[:2])
    end, error, done = codec.failed(fault("upstream_broken"), {REQUEST_ID: "r-1"}).decode().split("\n\n")[:3]
    assert json.loads(end[6:]) == {"type": "text-end", "id": "text"}
    assert json.loads(json.loads(error[6:])["errorText"])["code"] == "upstream_broken"
    assert done == "data: [DONE]"
