"""What is refused, with the status, type and words of Anthropic; and which exception the SDK raises."""

import base64
import gzip
import json
import zlib
from typing import Any

import anthropic
import httpx2
import pytest

from sandbox.anthropic.requests.body import MAX_BODY_BYTES
from tests.sandbox.anthropic.bench import TOOL, Bench, Json, png, turns
from tests.sandbox.test_anthropic import KEY, chat, order

USE = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}
MARK = {"type": "ephemeral"}
PDF = base64.b64encode(b"%PDF-1.4 /Type /Page /Type /Pages").decode()


def user(*blocks: Json) -> Json:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def marked(ttl: str | None = None) -> Json:
    return {"type": "text", "text": "x", "cache_control": MARK | ({"ttl": ttl} if ttl else {})}


def image(**source: Any) -> Json:
    return {"type": "image", "source": source}


def document(**source: Any) -> Json:
    return {"type": "document", "source": source}


OPUS_4_5 = {"model": "claude-opus-4-5"}
REFUSED: list[tuple[Json, int, str]] = [
    ({"model": "claude-3"}, 404, "claude-3"),
    ({"max_tokens": 128_001}, 400, "128001 > 128000"),
    ({**OPUS_4_5, "max_tokens": 64_001}, 400, "64001 > 64000"),
    ({"never": 1}, 400, "never: Extra inputs"),
    ({"mcp_servers": []}, 400, "mcp_servers: Extra"),
    ({"context_management": {}}, 400, "context_management: Extra"),
    ({"fallbacks": "default"}, 400, "fallbacks: Extra"),
    ({"stop_sequences": [" "]}, 400, "stop_sequences"),
    ({"speed": "fast"}, 400, "fast mode"),
    ({"speed": "warp"}, 400, "speed"),
    ({**OPUS_4_5, "inference_geo": "us"}, 400, "inference_geo"),
    ({"inference_geo": "mars"}, 400, "inference_geo"),
    ({"output_config": {"effort": "utmost"}}, 400, "effort"),
    ({"output_config": {"format": {"type": "xml"}}}, 400, "format"),
    ({"output_config": {"task_budget": {}}}, 400, "task_budget"),
    ({"thinking": {"type": "enabled"}}, 400, "budget_tokens: Field required"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1000}}, 400, "1024"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, 400, "`max_tokens` must be greater"),
    ({"thinking": {"type": "deep"}}, 400, "thinking"),
    ({**OPUS_4_5, "thinking": {"type": "adaptive"}}, 400, "adaptive"),
    ({"model": "claude-opus-5-5", "thinking": {"type": "disabled"}}, 400, "off"),
    ({"model": "claude-opus-5", "thinking": {"type": "enabled", "budget_tokens": 1024}}, 400, "'enabled'"),
    (
        {
            "max_tokens": 9000,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "tools": [TOOL],
            "tool_choice": {"type": "any"},
        },
        400,
        "forces tool use",
    ),
    ({"model": "claude-sonnet-5-5", "tools": [TOOL], "tool_choice": {"type": "any"}}, 400, "forcing"),
    ({"tool_choice": {"type": "any"}}, 400, "providing tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, 400, "'x' not found"),
    ({"tools": [TOOL, TOOL]}, 400, "unique"),
    ({"tools": [{**TOOL, "name": "a b"}]}, 400, "pattern"),
    ({"tools": [{**TOOL, "input_schema": {"type": "array"}}]}, 400, "'object'"),
    ({"tools": [{"type": "telepathy_20260101", "name": "t"}]}, 400, "telepathy"),
    ({"tools": [{"type": "advisor_20260301", "name": "advisor"}]}, 400, "beta header"),
    ({"messages": turns("a", [USE])}, 400, "ids were found without `tool_result`"),
    ({"messages": turns("a", [USE], "b")}, 400, "ids were found without `tool_result`"),
    ({"messages": turns("a", [USE], [{"type": "text", "text": "b"}, RESULT])}, 400, "without `tool_result`"),
    ({"messages": turns("a", [USE], [RESULT, RESULT])}, 400, "single result"),
    ({"messages": turns("a", [USE, USE], [RESULT])}, 400, "unique"),
    ({"messages": turns("a", "b", [RESULT])}, 400, "unexpected `tool_use_id`"),
    ({"messages": turns("a", "b ")}, 400, "trailing whitespace"),
    ({"messages": turns("a", "", "b")}, 400, "non-empty"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "first message"),
    ({"messages": turns("a", [png(9, 9)])}, 400, "role user"),
    ({"messages": turns("a", [document(type="text", media_type="text/plain", data="x")])}, 400, "`document`"),
    (user(USE), 400, "role assistant"),
    (user({"type": "hologram"}), 400, "hologram"),
    (user(*[marked()] * 5), 400, "maximum of 4"),
    ({**user(*[marked()] * 4), "cache_control": MARK}, 400, "Found 5"),
    (user(marked("5m"), marked("1h")), 400, "must not come after"),
    (user(marked("2h")), 400, "ttl"),
    (user({**RESULT, "cache_control": {"type": "eternal"}}), 400, "tool_use_id"),
    ({"cache_control": {"type": "eternal"}}, 400, "ephemeral"),
    (user(image(type="base64", media_type="image/bmp", data="AAAA")), 400, "image/jpeg"),
    (user(image(type="base64", media_type="image/png", data="!")), 400, "base64"),
    (user(image(type="carrier pigeon")), 400, "carrier pigeon"),
    (user(image(type="url")), 400, "url"),
    (user(png(8001, 3)), 400, "8000 pixels"),
    (user(*[png(2001, 3)] * 21), 400, "2000 pixels"),
    ({**OPUS_4_5, **user(*[png(9, 9)] * 101)}, 400, "101 > 100"),
    (user(document(type="base64", media_type="application/pdf", data="AAAA")), 400, "PDF"),
    (user(document(type="base64", media_type="text/html", data=PDF)), 400, "application/pdf"),
    (user(document(type="text", media_type="text/html", data="x")), 400, "text/plain"),
    (user(document(type="content", content=[{"type": "text", "text": ""}])), 400, "non-empty"),
    ({"system": [{"type": "image"}]}, 400, "system.0"),
]


@pytest.mark.parametrize(("change", "status", "word"), REFUSED)
async def test_refused(bench: Bench, change: Json, status: int, word: str) -> None:
    answer = await bench.post(chat("hello") | change)
    error = answer.json()
    assert (answer.status_code, error["type"]) == (status, "error")
    assert word in error["error"]["message"]
    assert error["request_id"] == answer.headers["request-id"]


ACCEPTED: list[tuple[Json, str]] = [
    ({"max_tokens": 0}, ""),
    ({"tools": []}, ""),
    ({"never": 1}, "dangerous-tool-use-2026-09-03"),
    ({"mcp_servers": []}, "mcp-client-2025-11-20, context-management-2025-06-27"),
    ({"fallbacks": [{"model": "claude-opus-5"}]}, "server-side-fallback-2026-07-01"),
    ({"speed": "fast", "model": "claude-opus-4-6"}, ""),
    ({"output_config": {"effort": "max", "task_budget": {}}}, "task-budgets-2026-03-13"),
    (
        {"thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": [TOOL]},
        "interleaved-thinking-2025-05-14",
    ),
    ({"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "x"}]}, "advisor-tool-2026-03-01"),
    ({"messages": turns("a", [USE], [RESULT, {"type": "text", "text": "b"}], "c")}, ""),
    ({"messages": [*turns("a", [USE]), {"role": "system", "content": "s"}, {"role": "user", "content": [RESULT]}]}, ""),
    ({"messages": turns("a", [{**USE, "caller": {"type": "code_execution_20260120", "tool_id": "s"}}], "b")}, ""),
    ({**user(marked("1h"), marked(), marked()), "cache_control": MARK}, ""),
    (user(image(type="url", url="https://x"), image(type="file", file_id="f"), png(8000, 3)), ""),
    (user(document(type="base64", media_type="application/pdf", data=PDF), document(type="url", url="u")), ""),
    (user(document(type="content", content=[{"type": "text", "text": "a"}, png(3, 3)])), ""),
    (user({"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]}), ""),
    (user({"type": "container_upload", "file_id": "f"}), ""),
    (
        {
            "messages": turns(
                "a",
                [
                    {"type": "thinking", "thinking": "", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
                    {"type": "mcp_tool_use", "id": "m", "name": "n", "server_name": "s", "input": {}},
                    {"type": "mcp_tool_result", "tool_use_id": "m", "content": []},
                    {"type": "compaction", "content": "c"},
                    {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
                    {"type": "connector_text", "text": "t"},
                ],
                "b",
            )
        },
        "",
    ),
]


@pytest.mark.parametrize(("change", "betas"), ACCEPTED)
async def test_accepted(bench: Bench, change: Json, betas: str) -> None:
    answer = await bench.post(chat("hello") | change, **({"anthropic_beta": betas} if betas else {}))
    assert answer.status_code == 200, answer.text


async def test_a_prompt_beyond_the_window(bench: Bench) -> None:
    answer = await bench.post(chat("\x00" * 1_000_000))
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "prompt is too long: 1000008 tokens > 1000000 maximum"


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_sampling_belongs_to_the_old_version(bench: Bench, name: str) -> None:
    new = await bench.post(chat("hello", **{name: 1}))
    old = await bench.post(chat("hello", **{name: 1}), anthropic_version="2023-06-01")
    assert (new.status_code, old.status_code) == (400, 200)
    wrong = await bench.post(chat("hello", **{name: -1}), anthropic_version="2023-06-01")
    assert (wrong.status_code, name in wrong.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    "old_only",
    [
        {"messages": turns("a", [document(type="text", media_type="text/plain", data="x")], "b")},
        user({"type": "text", "text": "x", "citations": [{"type": "char_location"}]}),
    ],
)
async def test_content_of_the_old_version(bench: Bench, old_only: Json) -> None:
    assert (await bench.post(chat("") | old_only)).status_code == 400
    assert (await bench.post(chat("") | old_only, anthropic_version="2023-06-01")).status_code == 200


# ------------------------------------------------------------------------------------------------- bodies


async def send(http: httpx2.AsyncClient, content: bytes, encoding: str) -> httpx2.Response:
    return await http.post("/v1/messages", content=content, headers={"content-encoding": encoding})


async def test_compressed_bodies(http: httpx2.AsyncClient) -> None:
    plain = json.dumps(chat(order(words=3)[1])).encode()
    packed = gzip.compress(plain)
    assert (await send(http, packed, "gzip")).json()["usage"]["output_tokens"] == 3
    for content, encoding, status, code in (
        (zlib.compress(plain), "deflate", 400, "request_body_encoding_unsupported"),
        (packed, "br", 400, "request_body_encoding_unsupported"),
        (plain, "gzip", 400, "request_body_encoding_invalid"),
        (packed[:-9], "gzip", 400, "request_body_encoding_invalid"),
        (packed + b"x", "gzip", 400, "request_body_encoding_invalid"),
        (gzip.compress(b" " * (MAX_BODY_BYTES + 1)), "gzip", 413, "request_body_too_large_after_decoding"),
    ):
        answer = await send(http, content, encoding)
        assert (answer.status_code, answer.json()["error"]["details"]) == (status, {"error_code": code})


# ---------------------------------------------------------------------------------------------- exceptions


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (409, anthropic.ConflictError),
        (422, anthropic.UnprocessableEntityError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_the_sdk_raises_the_right_class(
    claude: anthropic.AsyncAnthropic, status: int, raised: type[Exception], *, stream: bool
) -> None:
    _, prompt = order(status=status)
    with pytest.raises(raised):
        await claude.messages.create(**chat(prompt, stream=stream))


async def test_both_ways_to_give_a_key(url: str) -> None:
    for headers, status in (
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"Bearer {KEY}", "x-api-key": KEY}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({}, 401),
    ):
        async with httpx2.AsyncClient(base_url=url, headers={"anthropic-version": "2023-06-01"} | headers) as http:
            assert (await http.post("/v1/messages", json=chat("hi"))).status_code == status
            assert (await http.get("/v1/models")).status_code == status
