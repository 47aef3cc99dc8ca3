"""Bodies of `/v1/messages`: what is refused, and that `splice` changes two values and no other byte."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from api.gateway.messages.body import InvalidRequest, only, read_body, read_count_body, splice
from api.gateway.messages.fields import Block, Fields, Tool

PLAIN = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}

_blank = st.text(alphabet=" \t\r\n", max_size=3)
_names = st.text(min_size=1, max_size=8).filter(lambda name: name not in Fields.__struct_fields__)
_leaves = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12) | st.sampled_from(["}", '"', "\\"])
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def written(draw: st.DrawFn, items: list[tuple[str, Any]]) -> bytes:
    """Returns the object as some client would write it: blanks anywhere, text escaped or not."""
    parts = []
    for name, value in items:
        escapes = draw(st.booleans())
        key, text = json.dumps(name, ensure_ascii=escapes), json.dumps(value, ensure_ascii=escapes)
        if draw(st.booleans()) and name.isascii() and name.isalnum():
            key = f'"\\u{ord(name[0]):04x}{name[1:]}"'
        parts.append(f"{draw(_blank)}{key}{draw(_blank)}:{draw(_blank)}{text}{draw(_blank)}")
    return f"{draw(_blank)}{{{','.join(parts)}}}{draw(_blank)}".encode()


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bodies with the fields in any order, among others that nobody knows."""
    more = draw(st.dictionaries(_names, _values, max_size=4))
    text = draw(st.text(max_size=20))
    fields = PLAIN | {"max_tokens": draw(st.integers(0, 10_000_000)), "messages": [{"role": "user", "content": text}]}
    if draw(st.booleans()):
        fields["stream"] = draw(st.sampled_from([True, False, None]))
    return written(draw, draw(st.permutations([*fields.items(), *more.items()])))


@pytest.mark.slow
@given(raw=bodies(), max_tokens=st.integers(0, 10_000_000))
def test_only_two_values_change(raw: bytes, max_tokens: int) -> None:
    body = read_body(raw)
    parts = splice(body, max_tokens=max_tokens)
    sent = b"".join(parts)

    before, after = json.loads(raw), json.loads(sent)
    assert after == before | {"max_tokens": max_tokens, "stream": True}
    assert (body.max_tokens, body.stream) == (before["max_tokens"], bool(before.get("stream")))
    kept = [part for part in parts if isinstance(part, memoryview)]
    assert all(part.obj is raw for part in kept), "nothing was copied"
    at = 0
    for part in kept:  # the same bytes, in the same order
        at = raw.index(bytes(part), at) + len(part)
    replaced = len(str(before["max_tokens"])) + (len(json.dumps(before["stream"])) if "stream" in before else 0)
    assert sum(map(len, kept)) == len(raw) - replaced


@pytest.mark.slow
@given(raw=bodies(), names=st.sets(st.sampled_from(["model", "messages", "stream"])))
def test_some_of_the_fields(raw: bytes, names: set[str]) -> None:
    names.add("model")
    parts = only(read_body(raw), names)

    assert json.loads(b"".join(parts)) == {name: value for name, value in json.loads(raw).items() if name in names}
    assert all(part.obj is raw for part in parts if isinstance(part, memoryview)), "nothing was copied"


@pytest.mark.slow
@given(raw=bodies(), again=st.sampled_from(["model", "max_tokens", "messages", "stream"]), value=_values)
def test_a_field_that_is_given_twice(raw: bytes, again: str, value: object) -> None:
    fields = json.loads(raw)
    twice = raw.rstrip()[:-1] + f',"{again}":{json.dumps(value)}}}'.encode()
    assume(again in fields)
    with pytest.raises(InvalidRequest):
        read_body(twice)


@pytest.mark.parametrize(
    "fields",
    [
        # The second value's length would lead a careless reader from the first into a string.
        '"max_tokens": 1, "system": ", \\"max_tokens\\": 999999, ", "max_tokens": 2',
        '"max_tokens": 1, "max_tokens": 1',
        '"max_tokens": 1, "max\\u005ftokens": 1',
        '"max_tokens": [1, 2], "max_tokens": 1',
    ],
)
def test_two_values_of_one_name(fields: str) -> None:
    raw = f'{{"model": "m", "messages": [], {fields}}}'.encode()

    with pytest.raises(InvalidRequest, match=r"^max_tokens: Field given more than once$"):
        read_body(raw)


def test_an_unknown_field_that_is_given_twice_is_not_named() -> None:
    raw = b'{"model": "m", "messages": [], "max_tokens": 1, "xylophone": 1, "xylophone": 2}'

    with pytest.raises(InvalidRequest, match=r"^body: Field given more than once$"):
        read_body(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model: Expected `str`, got `null`"),
        ({"model": ""}, "model: Expected `str` of length >= 1"),
        ({"model": "xylophone" * 12}, "model: Expected `str` of length <= 100"),
        ({"max_tokens": "xylophone"}, "max_tokens: Expected `int | null`, got `str`"),
        ({"max_tokens": -1}, "max_tokens: Expected `int` >= 0"),
        ({"max_tokens": 10**7 + 1}, "max_tokens: Expected `int` <= 10000000"),
        ({"max_tokens": 1.5}, "max_tokens: Expected `int | null`, got `float`"),
        ({"max_tokens": True}, "max_tokens: Expected `int | null`, got `bool`"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"stream": "xylophone"}, "stream: Expected `bool | null`, got `str`"),
        ({"messages": "xylophone"}, "messages: Expected `array`, got `str`"),
        ({"messages": [{"content": ["xylophone"]}]}, "messages.0.content.0: Expected `object`, got `str`"),
        ({"tools": ["xylophone"]}, "tools.0: Expected `object`, got `str`"),
        ({"tools": [{"max_uses": 1_001}]}, "tools.0.max_uses: Expected `int` <= 1000"),
        ({"tools": [{"max_tokens": 10**7 + 1}]}, "tools.0.max_tokens: Expected `int` <= 10000000"),
        ({"fallbacks": [{}]}, "fallbacks.0.model: Field required"),
        ({"diagnostics": {"previous_message_id": 1}, "thinking": 1}, "thinking: Expected `object | null`, got `int`"),
    ],
)
def test_what_is_refused_is_named_without_its_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_body(json.dumps(PLAIN | change).encode())

    assert str(refused.value) == message


@pytest.mark.parametrize("missing", ["model", "messages", "max_tokens"])
def test_a_field_that_is_missing(missing: str) -> None:
    raw = json.dumps({name: value for name, value in PLAIN.items() if name != missing}).encode()

    with pytest.raises(InvalidRequest, match=f"^{missing}: Field required$"):
        read_body(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"xylophone",
        b'{"model": "xylophone"} {}',
        b'\xef\xbb\xbf{"model": "xylophone"}',
        b'{"model": "xylophone \xff"}',
        b'{"model": "xylophone", "n": NaN}',
        b'{"deep": ' + b"[" * 100_000,
        b'{"model": "m", "max_tokens": 1, "messages": ' + b'[{"content": ' * 5000 + b"1",
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_what_is_not_json(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_body(raw)

    assert "xylophone" not in str(refused.value)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"xylophone"', b"7", b"{}", b" { } "])
def test_what_is_no_body(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_body(raw)


def test_a_token_count_needs_no_max_tokens() -> None:
    body = read_count_body(b'{"model": "m", "messages": []}')

    assert (body.max_tokens, body.stream, body.places.get("max_tokens")) == (0, False, None)


def test_zero_tokens_of_output_are_a_valid_request() -> None:
    body = read_body(json.dumps(PLAIN | {"max_tokens": 0}).encode())

    assert b"".join(splice(body, max_tokens=0)) == body.raw.replace(b's": 0', b's": 0,"stream":true')


def with_content(content: bytes, more: bytes = b"") -> bytes:
    return b'{"model":"m","max_tokens":1,"messages":[{"content":[' + content + b"]}]" + more + b"}"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (with_content(b",".join([b"{}"] * 500_000)), "body: may have at most 500000 opening braces"),
        (with_content(b",".join([b"{}"] * 200_001)), "messages: may have at most 200000 content blocks"),
        (with_content(b"", b"".join(b',"a%d":1' % n for n in range(400_000))), "body: may have at most 256 fields"),
        (
            with_content(b"", b',"mcp_servers":[' + b"1," * 400_000 + b"1]"),
            "mcp_servers.0: Expected `object`, got `int`",
        ),
    ],
    ids=["objects", "blocks", "fields", "servers"],
)
def test_a_body_of_many_small_things_is_refused_before_they_are_built(raw: bytes, message: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest) as refused:
            read_body(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert str(refused.value) == message
    assert peak < 60_000_000


def test_the_blocks_and_tools_are_collected_once() -> None:
    inner = {"type": "tool_result", "content": [{"type": "text"}]}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": "bash_1"}}}
    fields = {"messages": [{"role": "user", "content": [inner, added]}], "tools": [{"type": "custom"}]}

    body = read_body(json.dumps(PLAIN | fields).encode())

    assert sorted(block.type for block in body.blocks) == ["text", "tool_addition", "tool_result"]
    assert all(isinstance(block, Block) for block in body.blocks)
    assert body.tools == (Tool("custom"), Tool("bash_1"))
    body = read_body(with_content(b",".join([b"{}"] * 1000)))
    assert len(body.blocks) == 1000


def test_large_data_is_not_copied() -> None:
    data = "A" * 8_000_000
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    raw = json.dumps(PLAIN | {"messages": [{"role": "user", "content": [block]}]}).encode()

    tracemalloc.start()
    try:
        parts = splice(read_body(raw), max_tokens=7)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 100_000
    assert sum(map(len, parts)) > len(data)
