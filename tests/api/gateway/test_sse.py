"""Server-sent event framing: all text arrives unchanged at a conforming parser, however it was split."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sse_starlette import ServerSentEvent

from api.gateway.sse import DONE, KEEPALIVE, TextFramer, data_frame, error_frame
from tests.answers import parse_sse

AWKWARD = "\r\n :\t\ufeff\x00\x0b\x0c\x1c\x85\u2028\u2029d"  # also what Python, but not SSE, takes for a line end
CHARACTERS = st.one_of(st.sampled_from(AWKWARD), st.sampled_from("\r\n"), st.characters(exclude_categories=["Cs"]))
TEXTS = st.text(CHARACTERS, max_size=20)


def normal(text: str) -> str:
    """Returns the text with LF line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def framed(pieces: list[str]) -> bytes:
    """Returns the frames of a complete answer."""
    framer = TextFramer()
    return b"".join(map(framer.frame, pieces)) + framer.rest()


@pytest.mark.slow
@given(st.lists(TEXTS, max_size=12))
@example(["a\r", "\nb"])
@example(["\r", "\r", "\n"])
@example(["a\r", "", "\nb"])
@example(["ends with\r"])
@example(["\ufeff", " leading", "data: x", ": comment", "event: done"])
def test_any_text_arrives_whole(pieces: list[str]) -> None:
    events = parse_sse(framed(pieces))

    assert {name for name, _ in events} <= {"message"}
    assert "".join(data for _, data in events) == normal("".join(pieces))


@pytest.mark.slow
@given(st.lists(TEXTS.filter(lambda text: "\r" not in text), max_size=12))
def test_a_piece_is_an_event_of_its_own(pieces: list[str]) -> None:
    assert [data for _, data in parse_sse(framed(pieces))] == [piece for piece in pieces if piece]


@given(TEXTS.filter(lambda text: text != "" and not text.endswith("\r")))
@example("\n")
@example("\r\n\rx")
def test_a_frame_is_what_the_reference_encodes(text: str) -> None:
    assert TextFramer().frame(text) == ServerSentEvent(data=text, sep="\n").encode()


@given(TEXTS.filter(lambda text: "\r" not in text))
def test_a_data_frame_is_what_the_reference_encodes(text: str) -> None:
    assert data_frame(text) == ServerSentEvent(data=text, sep="\n").encode()


def test_half_a_line_end_waits_for_the_other() -> None:
    framer = TextFramer()

    assert framer.frame("a\r") == b"data: a\n\n"
    assert framer.frame("\n") == b"data: \ndata: \n\n"
    assert framer.frame("b\r") == b"data: b\n\n"
    assert framer.rest() == b"data: \ndata: \n\n"
    assert framer.rest() == b""


def test_an_empty_piece_is_no_frame() -> None:
    assert framed(["", ""]) == b""


def test_done_is_an_event_with_empty_data() -> None:
    assert ServerSentEvent(data="", event="done", sep="\n").encode() == DONE
    assert parse_sse(DONE) == [("done", "")]


def test_a_comment_is_no_event() -> None:
    assert ServerSentEvent(comment="keep-alive", sep="\n").encode() == KEEPALIVE
    assert parse_sse(data_frame("a") + KEEPALIVE + data_frame("b")) == [("message", "a"), ("message", "b")]


@pytest.mark.parametrize("problem", [{"code": "x", "status": 503}, {"detail": "two\r\nlines\nand \u2028 é \x00"}])
def test_an_error_is_one_line_of_json(problem: dict[str, Any]) -> None:
    ((name, data),) = parse_sse(error_frame(problem))

    assert name == "error"
    assert json.loads(data) == problem
    assert error_frame(problem) == ServerSentEvent(data=data, event="error", sep="\n").encode()
