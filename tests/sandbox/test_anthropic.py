"""The Anthropic simulator, driven by the real SDK, and byte by byte through sockets of our own."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import anthropic
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.anthropic import MODELS, REQUEST_OVERHEAD_TOKENS, count_text
from sandbox.anthropic.tokens import cut_text, filler, split_pieces
from tests import fork_server

KEY = "sim-key"
MODEL = "claude-sonnet-4-6"
HEADERS = {"authorization": f"Bearer {KEY}", "anthropic-version": "2026-10-21"}
Json = dict[str, Any]


@contextmanager
def server(*options: str) -> Iterator[tuple[fork_server.Program, str]]:
    process, address = fork_server.listening("sandbox.anthropic", "--port", "0", "--api-key", KEY, *options)
    try:
        yield process, address
    finally:
        fork_server.stop(process)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server("--pace-ms", "0") as (_, address):
        yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=10) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


def order(**script: object) -> tuple[str, str]:
    """Return a fresh ref, and a prompt that carries the script."""
    ref = uuid4().hex
    return ref, f"Tell me, [[sim {json.dumps({'ref': ref, **script})}]] please."


def chat(prompt: str, **fields: object) -> Json:
    return {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": prompt}], **fields}


async def entries(http: httpx2.AsyncClient, ref: str) -> list[Json]:
    answer = await http.get("/_sim/ledger", params={"ref": ref})
    items: list[Json] = answer.json()["items"]
    return items


async def entry(http: httpx2.AsyncClient, ref: str, *, state: str | None = None) -> Json:
    """Return the only entry of a ref, once it is in that state."""
    for _ in range(200):
        (only,) = await entries(http, ref)
        if state is None or only["state"] == state:
            return only
        await asyncio.sleep(0.01)
    pytest.fail(f"never {state}: {only}")


async def raw(url: str, body: Json) -> bytes:
    """Send one request through a socket, and return all bytes of the answer up to the end of the connection."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    data = json.dumps(body).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    writer.write(f"POST /v1/messages HTTP/1.1\r\nhost: x\r\n{head}connection: close\r\n".encode())
    writer.write(b"content-length: %d\r\n\r\n%b" % (len(data), data))
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


def chunks(answer: bytes) -> list[bytes]:
    """Take a chunked body apart; a body that was cut ends in its half chunk."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    found = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return found


def events(body: bytes) -> list[tuple[str, Json]]:
    """Parse LF-framed SSE, strictly."""
    assert body.endswith(b"\n\n")
    parsed = []
    for block in body[:-2].split(b"\n\n"):
        name, data = block.split(b"\n")
        payload = json.loads(data.removeprefix(b"data: "))
        assert payload["type"] == name.removeprefix(b"event: ").decode()
        parsed.append((payload["type"], payload))
    return parsed


def texts(parsed: list[tuple[str, Json]]) -> list[str]:
    deltas = [payload["delta"] for name, payload in parsed if name == "content_block_delta"]
    return [delta["text"] for delta in deltas if delta["type"] == "text_delta"]


# ------------------------------------------------------------------------------------------- tokens


@given(st.text(), st.text())
def test_tokens_keep_their_bounds(a: str, b: str) -> None:
    assert count_text(a) <= len(a.encode())
    assert count_text(a) <= count_text(a + b)
    assert count_text(a) + count_text(b) - 1 <= count_text(a + b) <= count_text(a) + count_text(b)
    assert "".join(split_pieces(a)) == a


@given(st.text(), st.integers(0, 10))
def test_a_cut_text_is_the_longest_prefix(text: str, tokens: int) -> None:
    cut = cut_text(text, tokens)
    assert text.startswith(cut)
    assert count_text(cut) <= tokens
    assert cut == text or count_text(text[: len(cut) + 1]) > tokens


def test_counts_are_known() -> None:
    assert [count_text(text) for text in ("", "a", "abcd", "abcde", "12", "é", "日本", "😀", "\x00")] == [
        *(0, 1, 1, 2, 1, 1, 3, 2, 1),
    ]
    assert [count_text(filler(n)) for n in (0, 1, 7, 5000)] == [0, 1, 7, 5000]


# ------------------------------------------------------------------------------- the agreeable answer


async def test_stream_by_the_sdk(claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order()
    async with claude.messages.stream(**chat(prompt, system="Be brief.")) as stream:
        said = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
        request_id = stream.response.headers["request-id"]
    answer = "".join(said)
    assert "This is the simulator" in answer
    assert "You wrote: “Tell me, please.”" in answer
    assert max(len(piece.split()) for piece in said) == 3
    assert final.stop_reason == "end_turn"
    assert final.usage.input_tokens == count_text("Be brief.") + count_text(prompt) + REQUEST_OVERHEAD_TOKENS
    assert final.usage.output_tokens == count_text(answer)
    served = await entry(http, ref)
    started, ended = served.pop("started_ms"), served.pop("ended_ms")
    assert 0 <= time.time() * 1000 - started < 10_000
    assert 0 <= ended - started < 10_000
    assert served.pop("seq") > 0
    assert served == {
        "kind": "messages",
        "request_id": request_id,
        "message_id": final.id,
        "ref": ref,
        "model": MODEL,
        "model_asked": MODEL,
        "stream": True,
        "status": 200,
        "input_tokens": final.usage.input_tokens,
        "cache_read_input_tokens": 0,
        "cache_creation_5m": 0,
        "cache_creation_1h": 0,
        "output_tokens": final.usage.output_tokens,
        "thinking_tokens": 0,
        "stop_reason": "end_turn",
        "max_tokens": 1000,
        "pieces_sent": len(said),
        "text_sent": len(answer),
        "state": "completed",
        "system_len": len("Be brief."),
    }


async def test_create_says_the_same_as_stream(claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(words=40, thinking=5, cache_read_input_tokens=3)
    whole = await claude.messages.create(**chat(prompt))
    async with claude.messages.stream(**chat(prompt)) as stream:
        streamed = await stream.get_final_message()
    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in streamed.content]
    assert [block.type for block in whole.content] == ["thinking", "text"]
    first, second = await entries(http, ref)
    for served, message in ((first, whole), (second, streamed)):
        assert message.usage.output_tokens == served["output_tokens"] == 45
        assert message.usage.cache_read_input_tokens == served["cache_read_input_tokens"] == 3
        assert message.usage.output_tokens_details is not None
        assert message.usage.output_tokens_details.thinking_tokens == served["thinking_tokens"] == 5
    assert (first["stream"], second["stream"]) == (False, True)
    assert first["text_sent"] == second["text_sent"] == 160


async def test_count_tokens(claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(count_skew=-2)
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Grüße"}, {"type": "text", "text": prompt}]},
        {"role": "assistant", "content": "so"},
    ]
    system: list[Any] = [{"type": "text", "text": "abc"}]
    counted = await claude.messages.count_tokens(model=MODEL, messages=messages, system=system)
    answered = await claude.messages.create(model=MODEL, messages=messages, system=system, max_tokens=5)
    truth = REQUEST_OVERHEAD_TOKENS + sum(map(count_text, ("Grüße", prompt, "so", "abc")))
    assert counted.input_tokens == truth - 2
    assert answered.usage.input_tokens == truth
    first, second = await entries(http, ref)
    assert (first["kind"], first["input_tokens"], first["state"]) == ("count_tokens", truth - 2, "completed")
    assert (second["kind"], second["input_tokens"]) == ("messages", truth)
    ref, prompt = order(count_status=529, retry_after=3, count_delay_ms=60)
    with pytest.raises(anthropic.APIStatusError) as failure:
        await claude.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": prompt}])
    assert failure.value.status_code == 529
    assert failure.value.response.headers["retry-after"] == "3"
    served = await entry(http, ref)
    assert (served["status"], served["state"], served["input_tokens"]) == (529, "error", 0)
    assert served["ended_ms"] - served["started_ms"] >= 59


# ------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("script", "fields", "said", "tokens", "reason"),
    [
        ({"words": 100}, {"max_tokens": 10}, filler(10), 10, "max_tokens"),
        ({"words": 10}, {"max_tokens": 10}, filler(10), 10, "end_turn"),
        ({"text": 'a}b{c]] "日本" 😀'}, {}, 'a}b{c]] "日本" 😀', 10, "end_turn"),
        ({"text": ""}, {}, "", 0, "end_turn"),
        ({"pieces": ["abcd", "efgh", "ijkl"]}, {"max_tokens": 2}, "abcdefgh", 2, "max_tokens"),
        ({"pieces": ["ab", "cd", "ef"]}, {"max_tokens": 1}, "abcd", 1, "max_tokens"),
        ({"text": "one STOP two"}, {"stop_sequences": ["two", "STOP"]}, "one ", 1, "stop_sequence"),
        ({"text": "abcd", "output_tokens": 5000}, {}, "abcd", 5000, "end_turn"),
        ({"text": "abcd", "output_tokens": 0}, {}, "abcd", 0, "end_turn"),
        ({"text": "abcd", "stop_reason": "pause_turn"}, {}, "abcd", 1, "pause_turn"),
        ({"words": 8, "refusal": "partial"}, {}, filler(8), 8, "refusal"),
        ({"words": 8, "refusal": "empty", "thinking": 4}, {}, "", 0, "refusal"),
        ({"words": 8, "thinking": 4}, {"max_tokens": 9}, filler(5), 9, "max_tokens"),
        ({"words": 8, "thinking": 40}, {"max_tokens": 9}, "", 9, "max_tokens"),
        ({"words": 5000}, {"max_tokens": 20_000}, filler(5000), 5000, "end_turn"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_text_tokens_and_stop_reason(
    claude: anthropic.AsyncAnthropic,
    http: httpx2.AsyncClient,
    script: Json,
    fields: Json,
    said: str,
    tokens: int,
    reason: str,
    *,
    stream: bool,
) -> None:
    ref, prompt = order(**script)
    if stream:
        async with claude.messages.stream(**chat(prompt, **fields)) as opened:
            message: Any = await opened.get_final_message()
    else:
        message = await claude.messages.create(**chat(prompt, **fields))
    assert "".join(block.text for block in message.content if block.type == "text") == said
    assert (message.usage.output_tokens, message.stop_reason) == (tokens, reason)
    assert message.stop_sequence == ("STOP" if reason == "stop_sequence" else None)
    assert (message.stop_details is not None) == (reason == "refusal")
    served = await entry(http, ref)
    assert (served["output_tokens"], served["text_sent"], served["stop_reason"]) == (tokens, len(said), reason)
    assert served["state"] == "completed"


async def test_usage_and_model_as_scripted(http: httpx2.AsyncClient) -> None:
    tokens = {"input_tokens": 5, "cache_read_input_tokens": 6, "cache_creation_5m": 7, "cache_creation_1h": 8}
    ref, prompt = order(
        **tokens, model="claude-opus-9", start_output_tokens=3, thinking=2, words=1, usage_delta_input=True
    )
    parsed = events((await http.post("/v1/messages", json=chat(prompt, stream=True))).content)
    assert [name for name, _ in parsed] == [
        *("message_start", "content_block_start", "ping", "content_block_delta", "content_block_delta"),
        *("content_block_stop", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    message = parsed[0][1]["message"]
    assert message["model"] == "claude-opus-9"
    assert message["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 15,
        "cache_read_input_tokens": 6,
        "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 8},
        "output_tokens": 3,
        "service_tier": "standard",
        "inference_geo": "global",
        "speed": "standard",
        "server_tool_use": None,
        "output_tokens_details": None,
    }
    assert parsed[-2][1]["usage"] == {
        "output_tokens": 3,
        "input_tokens": 5,
        "cache_creation_input_tokens": 15,
        "cache_read_input_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    served = await entry(http, ref)
    assert {name: served[name] for name in tokens} == tokens
    assert (served["model"], served["model_asked"], served["output_tokens"]) == ("claude-opus-9", MODEL, 3)


async def test_the_last_marker_counts_and_an_answer_may_hold_one(http: httpx2.AsyncClient) -> None:
    inner = '[[sim {"count_status": 500}]]'
    ref, prompt = order(text=f"not an order: {inner}")
    turns = [
        {"role": "user", "content": 'x [[sim{"ref": "first", "text": "first"}]]'},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": prompt},
        {"role": "user", "content": "and so on"},
    ]
    message = (await http.post("/v1/messages", json=chat("", messages=turns))).json()
    assert message["content"][0]["text"] == f"not an order: {inner}"
    assert (await entry(http, ref))["state"] == "completed"


# ------------------------------------------------------------------------------------ in what shape

PIECES = ["Grüße, ", "\n\n日本 ", "", "😀 \r\n", "data: x"]


async def test_frames_byte_by_byte(url: str) -> None:
    _, prompt = order(pieces=PIECES[:2])
    answer = await raw(url, chat(prompt, stream=True))
    assert b"content-type: text/event-stream; charset=utf-8\r\n" in answer
    assert b"anthropic-ratelimit-output-tokens-remaining: 400000\r\n" in answer
    assert b"anthropic-organization-id: " in answer
    *frames, last = chunks(answer)
    assert last == b""
    assert frames[1:] == [
        (
            b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
            b'"content_block":{"type":"text","text":""}}\n\n'
        ),
        b'event: ping\ndata: {"type":"ping"}\n\n',
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            b'"delta":{"type":"text_delta","text":"Gr\xc3\xbc\xc3\x9fe, "}}\n\n'
        ),
        (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            b'"delta":{"type":"text_delta","text":"\\n\\n\xe6\x97\xa5\xe6\x9c\xac "}}\n\n'
        ),
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        (
            b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
            b'"stop_sequence":null,"stop_details":null,"container":null},"usage":{"output_tokens":8}}\n\n'
        ),
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_chunks_of_n_bytes(url: str, size: int) -> None:
    _, prompt = order(pieces=PIECES, chunk_bytes=size)
    *found, last, end = chunks(await raw(url, chat(prompt, stream=True)))
    assert end == b""
    assert {len(chunk) for chunk in found} == {size}
    assert 1 <= len(last) <= size
    assert texts(events(b"".join(found) + last)) == PIECES


async def test_coalesced_pinged_and_crlf(url: str) -> None:
    _, prompt = order(pieces=PIECES, coalesce=True, pings=True, crlf=True, piece_delay_ms=1)
    body, end = chunks(await raw(url, chat(prompt, stream=True)))
    assert end == b""
    assert body.count(b"\n") == body.count(b"\r\n") > 0
    parsed = events(body.replace(b"\r\n", b"\n"))
    assert texts(parsed) == PIECES
    names = [name for name, _ in parsed[2:-3]]
    assert names == ["ping", *(name for _ in PIECES for name in ("ping", "content_block_delta"))]


async def test_unknown_things_are_legal(url: str, claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(pieces=PIECES, unknown_events=True, thinking=3)
    body = b"".join(chunks(await raw(url, chat(prompt, stream=True))))
    parsed = events(body)
    assert texts(parsed) == PIECES
    assert [name for name, _ in parsed].count("future_event") == 2
    kinds = [payload["delta"]["type"] for name, payload in parsed if name == "content_block_delta"]
    assert kinds.count("shimmer_delta") == len(PIECES)
    assert all("unknown_field" in payload for name, payload in parsed if name != "ping")
    assert b"              }\n\n" in body
    async with claude.messages.stream(**chat(prompt)) as stream:
        assert "".join([text async for text in stream.text_stream]) == "".join(PIECES)
    assert [served["state"] for served in await entries(http, ref)] == ["completed", "completed"]


async def test_delays(claude: anthropic.AsyncAnthropic, url: str) -> None:
    _, prompt = order(pieces=["a", "b", "c"], head_delay_ms=150, first_delay_ms=100, piece_delay_ms=50)
    begun = time.monotonic()
    async with claude.messages.stream(**chat(prompt)) as stream:
        times = [time.monotonic() - begun] + [time.monotonic() - begun async for _ in stream.text_stream]
    assert times[0] >= 0.15
    assert times[1] >= 0.25
    assert times[3] >= 0.35
    begun = time.monotonic()
    await raw(url, chat(prompt))
    assert time.monotonic() - begun >= 0.35


# ------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("script", "error_type", "retry_after"),
    [
        ({"status": 429, "retry_after": 2}, "rate_limit_error", "2"),
        ({"status": 429}, "rate_limit_error", None),
        ({"status": 529, "retry_after": 0.5, "head_delay_ms": 5}, "overloaded_error", "0.5"),
        ({"status": 400, "error_type": "billing_error"}, "billing_error", None),
        ({"status": 503}, "api_error", None),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_http_errors(
    http: httpx2.AsyncClient, script: Json, error_type: str, retry_after: str | None, *, stream: bool
) -> None:
    ref, prompt = order(**script)
    answer = await http.post("/v1/messages", json=chat(prompt, stream=stream))
    assert answer.status_code == script["status"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get("retry-after") == retry_after
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", error_type)
    assert body["request_id"] == answer.headers["request-id"]
    served = await entry(http, ref)
    assert (served["status"], served["state"]) == (script["status"], "error")
    assert (served["input_tokens"], served["output_tokens"]) == (0, 0)


@pytest.mark.slow
async def test_failing_some_times(url: str, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(status=529, fail_times=2, retry_after=0, words=3)
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=2) as claude:
        message = await claude.messages.create(**chat(prompt))
    assert message.usage.output_tokens == 3
    assert [served["status"] for served in await entries(http, ref)] == [529, 529, 200]


async def test_stalling_some_times(claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(stall_after=1, fail_times=1, pieces=["one ", "two ", "three"])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await claude.messages.create(**chat(prompt))
    (block,) = (await claude.messages.create(**chat(prompt))).content
    assert isinstance(block, anthropic.types.TextBlock)
    assert block.text == "one two three"
    assert [served["state"] for served in await entries(http, ref)] == ["client_gone", "completed"]


@pytest.mark.parametrize(("script", "pieces"), [({"error_first": True}, 0), ({"error_after": 2}, 2)])
async def test_error_events(
    claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient, script: Json, pieces: int
) -> None:
    ref, prompt = order(pieces=["abcd", "efgh", "ijkl"], error_type="api_error", **script)
    said: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as failure:
        async with claude.messages.stream(**chat(prompt)) as stream:
            said.extend([text async for text in stream.text_stream])
    assert (failure.value.status_code, failure.value.type) == (200, "api_error")
    served = await entry(http, ref)
    assert (served["state"], served["status"]) == ("error", 200)
    assert (served["pieces_sent"], served["output_tokens"], served["text_sent"]) == (pieces, pieces, 4 * pieces)


async def test_a_cut_is_inside_a_chunk(url: str, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(pieces=["abcd", "efgh", "ijkl"], cut_after=2, output_tokens=30, thinking=2)
    answer = await raw(url, chat(prompt, stream=True))
    *whole, half = chunks(answer)
    assert texts(events(b"".join(whole))) == ["abcd", "efgh"]
    announced = int(answer.rpartition(b"event: ")[0].rpartition(b"\r\n")[0].rpartition(b"\r\n")[2], 16)
    assert len(half) == announced // 2
    served = await entry(http, ref)
    assert (served["state"], served["pieces_sent"]) == ("cut", 2)
    assert served["output_tokens"] == 30 * 4 // 5  # 4 of 5 real tokens had been generated
    assert served["ended_ms"] is not None
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.post("/v1/messages", json=chat(prompt, stream=True))


@pytest.mark.parametrize("after", [0, 1, 3, 99])
async def test_an_end_without_message_stop(http: httpx2.AsyncClient, after: int) -> None:
    ref, prompt = order(pieces=["abcd", "efgh", "ijkl"], end_after=after)
    parsed = events((await http.post("/v1/messages", json=chat(prompt, stream=True))).content)
    said = min(after, 3)
    assert texts(parsed) == ["abcd", "efgh", "ijkl"][:said]
    assert parsed[-1][0] == ("content_block_delta" if said else "ping")
    served = await entry(http, ref)
    assert (served["state"], served["output_tokens"], served["stop_reason"]) == ("cut", said, None)


async def test_bad_json_and_empty_body(claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(pieces=["abcd", "efgh"], bad_json_after=1)
    with pytest.raises(json.JSONDecodeError):
        async with claude.messages.stream(**chat(prompt)) as stream:
            await stream.get_final_message()
    served = await entry(http, ref)
    assert (served["state"], served["output_tokens"]) == ("error", 1)
    ref, prompt = order(empty_body=True)
    answer = await http.post("/v1/messages", json=chat(prompt, stream=True))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (await entry(http, ref))["state"] == "cut"


@pytest.mark.parametrize(
    ("script", "state"),
    [({"end_after": 1}, "cut"), ({"bad_json_after": 1}, "cut"), ({"empty_body": True}, "cut")],
)
async def test_bodies_that_are_not_json(http: httpx2.AsyncClient, script: Json, state: str) -> None:
    ref, prompt = order(words=5, **script)
    answer = await http.post("/v1/messages", json=chat(prompt))
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    served = await entry(http, ref)
    assert (served["state"], served["output_tokens"], served["pieces_sent"]) == (state, 5, 0)


async def test_faults_of_create(http: httpx2.AsyncClient) -> None:
    ref, prompt = order(words=5, cut_after=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.post("/v1/messages", json=chat(prompt))
    assert (await entry(http, ref))["state"] == "cut"
    ref, prompt = order(error_after=1, error_type="timeout_error")
    assert (await http.post("/v1/messages", json=chat(prompt))).status_code == 504
    ref, prompt = order(stall_after=0)
    with pytest.raises(httpx2.ReadTimeout):
        await http.post("/v1/messages", json=chat(prompt), timeout=0.1)
    served = await entry(http, ref, state="client_gone")
    assert served["output_tokens"] == 0


# ------------------------------------------------------------------------------- a client that leaves


async def test_leaving_a_stalled_stream(http: httpx2.AsyncClient) -> None:
    ref, prompt = order(pieces=["abcd", "efgh"], stall_after=1)
    async with http.stream("POST", "/v1/messages", json=chat(prompt, stream=True)) as answer:
        received, parts = b"", answer.aiter_raw()
        while b"abcd" not in received:
            received += await anext(parts)
        assert (await entry(http, ref))["state"] == "open"
        left_ms = time.time() * 1000
    served = await entry(http, ref, state="client_gone")
    assert -1 <= served["ended_ms"] - left_ms < 5_000
    assert (served["pieces_sent"], served["output_tokens"]) == (1, 1)


async def test_leaving_between_pieces(claude: anthropic.AsyncAnthropic, http: httpx2.AsyncClient) -> None:
    ref, prompt = order(words=100, piece_delay_ms=60_000, first_delay_ms=0)
    async with claude.messages.stream(**chat(prompt)) as stream:
        said = await anext(aiter(stream.text_stream))
    served = await entry(http, ref, state="client_gone")
    assert (served["pieces_sent"], served["text_sent"]) == (1, len(said))
    assert served["output_tokens"] == count_text(said)
    assert served["ended_ms"] - served["started_ms"] < 5_000


async def test_leaving_before_the_head(http: httpx2.AsyncClient) -> None:
    ref, prompt = order(head_delay_ms=60_000)
    with pytest.raises(httpx2.ReadTimeout):
        await http.post("/v1/messages", json=chat(prompt, stream=True), timeout=0.1)
    served = await entry(http, ref, state="client_gone")
    assert (served["output_tokens"], served["pieces_sent"]) == (0, 0)


# --------------------------------------------------------------------------------------- who is let in


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("headers", "status", "error_type"),
    [
        ({}, 401, "authentication_error"),
        ({"x-api-key": "other"}, 401, "authentication_error"),
        ({"authorization": "Bearer other"}, 401, "authentication_error"),
        ({"authorization": f"Basic {KEY}"}, 401, "authentication_error"),
        ({"x-api-key": KEY, "anthropic-version": ""}, 400, "invalid_request_error"),
        ({"x-api-key": KEY, "anthropic-version": "2024-02-30"}, 400, "invalid_request_error"),
        ({"x-api-key": KEY, "anthropic-version": "2023-06-01"}, 200, None),
        ({"authorization": f"bearer {KEY}"}, 200, None),
    ],
)
async def test_credentials(url: str, path: str, headers: Json, status: int, error_type: str | None) -> None:
    sent = {"anthropic-version": "2026-10-21"} | headers
    if not sent["anthropic-version"]:
        del sent["anthropic-version"]
    body = chat("hello")
    if path.endswith("count_tokens"):
        del body["max_tokens"]
    async with httpx2.AsyncClient(base_url=url, headers=sent) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == status
    assert answer.json().get("error", {}).get("type") == error_type
    assert answer.headers["request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"model": "claude-2"}, 404, "claude-2"),
        ({"model": None}, 400, "model"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"max_tokens": "9"}, 400, "max_tokens"),
        ({"temperature": 1.0}, 400, "temperature"),
        ({"top_p": 1}, 400, "top_p"),
        ({"top_k": 1}, 400, "top_k"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "role"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "non-empty"),
        ({"messages": [{"role": "user", "content": []}]}, 400, "non-empty"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": "x"}]}]}, 400, "source"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "citations": [1]}]}]}, 400, "cit"),
        ({"messages": [{"role": "user", "content": " \n"}]}, 400, "non-whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\t"}]}]}, 400, "non-whitespace"),
        ({"system": 5}, 400, "system"),
        ({"system": ""}, 400, "system"),
        ({"system": " \n"}, 400, "system"),
        ({"system": [{"type": "text", "text": " "}]}, 400, "system"),
        ({"tools": [{}]}, 400, "tools"),
        ({"messages": [{"role": "user", "content": '[[sim {"txt": "typo"}]]'}]}, 400, "txt"),
        ({"messages": [{"role": "user", "content": "[[sim nonsense]]"}]}, 400, "[[sim"),
        ({"messages": [{"role": "user", "content": '[[sim {"words": 3} ]'}]}, 400, "]]"),
        ({"messages": [{"role": "user", "content": '[[sim {"words": -3}]]'}]}, 400, "words"),
        ({"messages": [{"role": "user", "content": '[[sim {"fail_times": 3}]]'}]}, 400, "fail_times"),
        ({"messages": [{"role": "user", "content": r'[[sim {"text": "\ud800"}]]'}]}, 400, "[[sim"),
    ],
)
async def test_refused_bodies(http: httpx2.AsyncClient, change: Json, status: int, word: str) -> None:
    before = (await http.get("/_sim/ledger")).json()["next"]
    answer = await http.post("/v1/messages", json=chat("hello") | change)
    error = answer.json()["error"]
    assert answer.status_code == status
    assert error["type"] == {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert word in error["message"]
    assert (await http.get("/_sim/ledger")).json()["next"] == before


async def test_no_json_no_route_no_end(http: httpx2.AsyncClient) -> None:
    for content in (b"", b"{", b"[1]", b'{"a": "\xff"}'):
        answer = await http.post("/v1/messages", content=content)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    for method, path, status in (
        ("GET", "/v1/messages", 404),
        ("POST", "/v1/complete", 404),
        ("PUT", "/_sim/stats", 405),
    ):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "not_found_error")
    missing = chat("hello")
    del missing["max_tokens"]
    assert "max_tokens" in (await http.post("/v1/messages", json=missing)).json()["error"]["message"]
    answer = await http.post("/v1/messages", content=b" " * (33 * 1024 * 1024))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


async def test_every_model_of_the_sdk_is_known(http: httpx2.AsyncClient) -> None:
    literals = anthropic.types.model.Model.__args__[0].__args__  # type: ignore[attr-defined]
    assert set(literals) == MODELS
    for model in literals:
        answer = await http.post("/v1/messages", json=chat("hello", model=model))
        assert answer.json()["model"] == model


# ------------------------------------------------------------------------------------ ledger and server


async def test_ledger_pages_and_is_cleared(http: httpx2.AsyncClient) -> None:
    start = (await http.get("/_sim/ledger")).json()["next"]
    for words in (1, 2, 3):
        await http.post("/v1/messages", json=chat(order(words=words)[1]))
    page = (await http.get("/_sim/ledger", params={"since": start + 1})).json()
    assert [item["output_tokens"] for item in page["items"]] == [2, 3]
    assert page["next"] == start + 3
    assert (await http.get("/_sim/ledger", params={"since": "x"})).status_code == 400
    assert (await http.delete("/_sim/ledger")).status_code == 204
    assert (await http.get("/_sim/ledger")).json() == {"items": [], "next": start + 3}
    assert (await http.get("/_sim/stats")).json() == {
        "served": 0,
        "active": 0,
        "max_active": 0,
        "count_calls": 0,
        "connections": 0,
    }


@pytest.mark.slow
async def test_side_by_side_each_gets_its_own(url: str, http: httpx2.AsyncClient) -> None:
    await http.delete("/_sim/ledger")
    orders = [order(words=n, thinking=n % 3, head_delay_ms=1500, chunk_bytes=n % 5) for n in range(1, 41)]
    limits = httpx2.Limits(max_connections=40)
    async with httpx2.AsyncClient(base_url=url, headers=HEADERS, limits=limits, timeout=30) as many:
        answers = await asyncio.gather(
            *(many.post("/v1/messages", json=chat(prompt, stream=True)) for _, prompt in orders)
        )
    for n, ((ref, _), answer) in enumerate(zip(orders, answers, strict=True), start=1):
        parsed = events(answer.content)
        assert "".join(texts(parsed)) == filler(n)
        assert parsed[-2][1]["usage"]["output_tokens"] == n + n % 3
        assert (await entry(http, ref))["output_tokens"] == n + n % 3
    await http.post("/v1/messages", json=chat("one more, alone"))
    stats = (await http.get("/_sim/stats")).json()
    assert stats == {"served": 41, "active": 0, "max_active": 40, "count_calls": 0, "connections": 41}


async def test_sigterm_ends_it_cleanly_in_the_middle_of_streams() -> None:
    with server() as (process, address):
        _, stalled = order(stall_after=1)
        _, paced = order(words=20)
        begun = time.monotonic()
        await raw(address, chat(paced, stream=True))
        assert time.monotonic() - begun >= 0.025 * len(split_pieces(filler(20)))  # paced for a person by default
        waiting = asyncio.create_task(raw(address, chat(stalled, stream=True)))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert b"text_delta" in await waiting
        assert await asyncio.to_thread(process.wait, 5) == 0
        assert time.monotonic() - begun < 3
