"""Every kind of block, streamed and not; the bytes of a stream; and its faults."""

import base64

import anthropic
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.anthropic.answers.cutting import complete_members
from sandbox.anthropic.answers.json_schema import example
from tests.sandbox.anthropic.bench import Bench, Json, both, fresh
from tests.sandbox.test_anthropic import chat, chunks, events, order, raw, texts

TEXT: Json = {"type": "text", "text": "That is all there is."}
GA_BLOCKS: dict[str, list[Json]] = {
    "text": [TEXT, {"type": "text", "pieces": ["a", "", "日本"]}],
    "cited": [{"type": "web_search", "query": "q", "results": 3}, TEXT],
    "failed search": [{"type": "web_search", "error": "max_uses_exceeded"}, TEXT],
    "fetch": [{"type": "web_fetch", "url": "https://example.com/a", "text": "A page."}, TEXT],
    "code": [{"type": "code_execution", "code": "1"}, {"type": "bash_code_execution", "command": "ls"}, TEXT],
    "tool search": [{"type": "tool_search", "tools": ["f"]}, TEXT],
    "tools": [
        TEXT,
        {"type": "tool_use", "name": "f", "input": {"a": 1, "b": ["ü" * 50, {"c": None}]}},
        {"type": "tool_use", "name": "g", "input": {}},
    ],
    "thinking": [{"type": "thinking", "thinking": "So it is.", "signature": "abc"}, TEXT],
    "redacted": [{"type": "redacted_thinking", "data": "ZGF0YQ=="}, TEXT],
    "upload": [{"type": "container_upload", "file_id": "file_1"}, TEXT],
    "nothing": [],
}
BETA_BLOCKS: dict[str, list[Json]] = GA_BLOCKS | {
    "mcp": [{"type": "mcp", "server": "s", "name": "t", "input": {"q": 1}, "text": "Yes."}, TEXT],
    "compaction": [{"type": "compaction", "content": "In short."}, TEXT],
    "fallback": [
        {
            "type": "fallback",
            "from": {"model": "claude-fable-5-2"},
            "to": {"model": "claude-opus-5-5"},
            "trigger": {"type": "refusal", "category": "cyber"},
        },
        TEXT,
    ],
    "advisor": [{"type": "advisor", "model": "claude-opus-5-5", "text": "Count twice."}, TEXT],
}


@pytest.mark.parametrize("name", GA_BLOCKS)
async def test_a_stream_gathers_to_the_whole_answer(claude: anthropic.AsyncAnthropic, name: str) -> None:
    whole, gathered = await both(claude.messages, **chat(order(blocks=GA_BLOCKS[name])[1]))
    assert whole == gathered
    assert whole["stop_reason"] == ("tool_use" if name == "tools" else "end_turn")


@pytest.mark.parametrize("name", BETA_BLOCKS)
async def test_so_it_does_with_the_beta_client(claude: anthropic.AsyncAnthropic, name: str) -> None:
    betas = ["compact-2026-01-12"]
    whole, gathered = await both(claude.beta.messages, **chat(order(blocks=BETA_BLOCKS[name])[1]), betas=betas)
    assert whole == gathered
    assert whole["usage"]["iterations"]


async def test_a_tool_use_begins_with_an_empty_delta(bench: Bench) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Pune", "n": 12}}
    parsed = await bench.stream(order(blocks=[block])[1])
    started = [payload["content_block"] for name, payload in parsed if name == "content_block_start"]
    assert started == [{**block, "input": {}}]
    deltas = [payload["delta"] for name, payload in parsed if name == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"input_json_delta"}
    assert deltas[0]["partial_json"] == ""
    assert "".join(delta["partial_json"] for delta in deltas) == '{"city":"Pune","n":12}'
    assert len(deltas) == 3
    pieces = await bench.stream(order(blocks=[{**block, "pieces": ['{"city":', '"Pune","n":12}']}])[1])
    assert [p["delta"]["partial_json"] for n, p in pieces if n == "content_block_delta"] == [
        *("", '{"city":', '"Pune","n":12}'),
    ]


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-opus-5-5"])
@pytest.mark.parametrize("display", [None, "summarized", "omitted"])
async def test_thinking_shown_and_omitted(bench: Bench, model: str, display: str | None) -> None:
    ref, prompt = order(thinking=50, words=3)
    thinking = {"type": "adaptive"} | ({"display": display} if display else {})
    parsed = await bench.stream(prompt, model=model, thinking=thinking)
    kinds = [payload["delta"]["type"] for name, payload in parsed if name == "content_block_delta"]
    shown = display == "summarized" or (display is None and model == "claude-sonnet-4-6")
    assert (kinds.count("thinking_delta") > 0) == shown
    assert kinds.count("signature_delta") == 1
    assert parsed[-2][1]["usage"] == {"output_tokens": 53, "output_tokens_details": {"thinking_tokens": 50}}
    (row,) = await bench.rows(ref)
    assert (row["output_tokens"], row["thinking_tokens"]) == (53, 50)


async def test_estimated_tokens_of_thinking(bench: Bench) -> None:
    _, prompt = order(thinking=9)
    beta = "thinking-token-count-2026-05-13"
    answer = await bench.post(chat(prompt, stream=True), anthropic_beta=beta)
    found = [payload["delta"] for name, payload in events(answer.content) if name == "content_block_delta"]
    thoughts = [delta for delta in found if delta["type"] == "thinking_delta"]
    assert thoughts
    assert all(delta["estimated_tokens"] > 0 for delta in thoughts)


async def test_what_nobody_knows(bench: Bench) -> None:
    odd = {"type": "hologram", "depth": {"of": [1, None]}}
    _, prompt = order(
        blocks=[odd, {**TEXT, "glow": 1}],
        message_fields={"mood": "fine"},
        usage={"joules": 7},
        usage_delta={"watts": 8},
    )
    parsed = await bench.stream(prompt)
    assert parsed[0][1]["message"]["mood"] == "fine"
    assert parsed[0][1]["message"]["usage"]["joules"] == 7
    assert parsed[-2][1]["usage"]["watts"] == 8
    assert [p["content_block"] for n, p in parsed if n == "content_block_start"] == [
        odd,
        {"type": "text", "text": "", "glow": 1},
    ]
    whole = (await bench.post(chat(prompt))).json()
    assert whole["content"] == [odd, {**TEXT, "glow": 1}]
    assert (whole["mood"], whole["usage"]["joules"]) == ("fine", 7)


# ------------------------------------------------------------------------------------------------ bytes


@pytest.mark.slow
@given(body=st.binary(max_size=300), splits=st.lists(st.integers(1, 40), max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_raw_body_is_sent_as_it_is(url: str, body: bytes, splits: list[int]) -> None:
    _, prompt = order(raw=base64.b64encode(body).decode(), splits=splits)
    headers = {"x-api-key": "sim-key", "anthropic-version": "2023-06-01"}
    for stream in (True, False):
        answer = httpx2.post(f"{url}/v1/messages", json=chat(prompt, stream=stream), headers=headers)
        assert answer.content == body


async def test_splits_are_the_chunks(url: str) -> None:
    _, prompt = order(text="One two three four", splits=[1, 2, 3, 100])
    *found, end = chunks(await raw(url, chat(prompt, stream=True)))
    assert end == b""
    assert [len(chunk) for chunk in found[:4]] == [1, 2, 3, 100]
    assert texts(events(b"".join(found))) == ["One two three ", "four"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("stream", [True, False])
async def test_compressed_only_if_asked_and_told_to(bench: Bench, encoding: str, *, stream: bool) -> None:
    _, prompt = order(words=40, compress=encoding)
    plain = await bench.post(chat(prompt, stream=stream), accept_encoding="identity")
    packed = await bench.post(chat(prompt, stream=stream), accept_encoding=f"br, {encoding};q=1.0")
    untold = await bench.post(chat(order(words=40)[1], stream=stream), accept_encoding=encoding)
    assert [answer.headers.get("content-encoding") for answer in (plain, packed, untold)] == [None, encoding, None]
    if stream:
        assert texts(events(plain.content)) == texts(events(packed.content))
    else:
        assert plain.json()["content"] == packed.json()["content"]


async def test_the_script_in_the_header(bench: Bench) -> None:
    ref = fresh()
    answer = await bench.post(chat("hi"), x_sandbox_script=f'{{"ref": "{ref}", "text": "From the head."}}')
    assert answer.json()["content"][0]["text"] == "From the head."
    both_given = await bench.post(chat(order(text="From the text.")[1]), x_sandbox_script='{"text": "no"}')
    assert both_given.json()["content"][0]["text"] == "From the text."
    assert (await bench.post(chat("hi"), x_sandbox_script="{")).status_code == 400
    (kept,) = (await bench.http.get("/_sim/requests", params={"ref": ref})).json()["items"]
    assert base64.b64decode(kept["body"]) == answer.request.content
    assert ["anthropic-version", "2026-10-21"] in kept["headers"]


async def test_headers_of_an_answer(bench: Bench) -> None:
    _, prompt = order(headers={"Anthropic-Ratelimit-Unified-Status": "rejected", "request-id": "req_mine"})
    answer = await bench.http.post("/v1/messages?beta=true", json=chat(prompt))
    assert answer.headers["anthropic-ratelimit-unified-status"] == "rejected"
    assert answer.headers.get_list("request-id") == ["req_mine"]
    assert answer.headers["anthropic-organization-id"]


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_after_n_bytes(url: str, bench: Bench, *, stream: bool) -> None:
    whole = await raw(url, chat(order(words=50)[1], stream=stream))
    size = len(b"".join(chunks(whole))) if stream else len(whole.partition(b"\r\n\r\n")[2])
    for cut in (0, 1, size // 2, size - 1):
        ref, prompt = order(words=50, cut_bytes=cut)
        answer = await raw(url, chat(prompt, stream=stream))
        body = b"".join(chunks(answer)) if stream else answer.partition(b"\r\n\r\n")[2]
        assert len(body) == cut
        (entry,) = await bench.entries(ref)
        assert entry["state"] == "cut"
        (row,) = await bench.rows(ref)
        assert (row["state"], row["output_tokens"]) == ("cut", entry["output_tokens"])
    _, prompt = order(words=50, cut_bytes=size + 500)
    assert (await bench.post(chat(prompt, stream=stream))).status_code == 200


@pytest.mark.parametrize("after", range(9))
async def test_faults_counted_in_events(bench: Bench, after: int) -> None:
    ref, prompt = order(thinking=2, text="One", end_after=after, count="events")
    answer = await bench.post(chat(prompt, stream=True))
    names = [block.split(b"\n")[0] for block in answer.content.split(b"\n\n")[:-1]]
    assert len(names) == after
    (entry,) = await bench.entries(ref)
    assert (entry["state"], entry["output_tokens"]) == ("cut", 0 if after < 4 else 2 if after < 8 else 3)


async def test_an_error_with_words_and_a_code(claude: anthropic.AsyncAnthropic) -> None:
    _, prompt = order(status=429, error_code="ramp_limit_exceeded", error_message="Slower.", retry_after=9)
    with pytest.raises(anthropic.RateLimitError, match=r"Slower\.") as refused:
        await claude.messages.create(**chat(prompt))
    assert refused.value.response.json()["error"]["details"] == {"error_code": "ramp_limit_exceeded"}
    _, prompt = order(text="a b c d e f", error_after=1, error_type="api_error", error_message="Broke.")
    with pytest.raises(anthropic.APIStatusError, match=r"Broke\."):
        async with claude.messages.stream(**chat(prompt)) as stream:
            await stream.get_final_message()


# --------------------------------------------------------------------------------------------- max_tokens


@pytest.mark.parametrize("tokens", range(1, 30))
async def test_an_input_that_breaks_off(claude: anthropic.AsyncAnthropic, tokens: int) -> None:
    blocks = [TEXT, {"type": "tool_use", "name": "f", "input": {"a": [1, 2], "b": {"c": "ünd, so}"}, "d": True}}]
    _, prompt = order(blocks=blocks)
    enough = (await claude.messages.create(**chat(prompt))).usage.output_tokens
    cut = await claude.messages.create(**chat(prompt, max_tokens=tokens))
    assert tokens - 1 <= cut.usage.output_tokens <= tokens or tokens > enough
    assert cut.stop_reason == ("max_tokens" if tokens < enough else "tool_use")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("{", {}),
        ('{"a": 1', {}),
        ('{"a": 1,', {"a": 1}),
        ('{"a": {"b": [1, 2', {"a": {"b": [1]}}),
        ('{"a": "x, y", "b": "z', {"a": "x, y"}),
        ('{"a": "\\", ', {}),
        ('{"a": [1]}', {"a": [1]}),
    ],
)
def test_complete_members(text: str, found: Json) -> None:
    assert complete_members(text) == found


def test_examples_of_schemas() -> None:
    schema = {
        "type": "object",
        "$defs": {"Point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
        "properties": {
            "at": {"$ref": "#/$defs/Point"},
            "kind": {"enum": ["b", "a"]},
            "many": {"type": "array", "items": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}},
            "n": {"type": "integer", "exclusiveMinimum": 4},
            "no": {"type": "integer", "maximum": -3},
            "yes": {"type": ["boolean", "null"]},
            "left out": {"type": "string"},
        },
        "required": ["at", "kind", "many", "n", "no", "yes"],
    }
    assert example(schema) == {"at": {"x": 1}, "kind": "b", "many": ["2026-11-30"], "n": 5, "no": -3, "yes": True}
    loop = {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]}
    assert example(loop) is not None
