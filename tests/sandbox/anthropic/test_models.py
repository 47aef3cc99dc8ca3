"""The models routes, count_tokens' refusals, and the greeting."""

from typing import Any

import anthropic
import pytest

from sandbox.anthropic import MODELS
from tests.sandbox.anthropic.bench import TOOL, Bench, Json, png
from tests.sandbox.anthropic.test_refusals import PDF, document, image, user


async def test_pages_of_models(claude: anthropic.AsyncAnthropic) -> None:
    listed = [model async for model in claude.models.list(limit=5)]
    assert {model.id for model in listed} == MODELS
    assert len(listed) == len(MODELS)
    one = await claude.models.retrieve("claude-haiku-4-5")
    assert one in listed
    assert (one.max_input_tokens, one.max_tokens, one.display_name) == (200_000, 64_000, "Claude Haiku 4.5")
    assert one.capabilities is not None
    assert one.capabilities.thinking.types.enabled.supported
    with pytest.raises(anthropic.NotFoundError):
        await claude.models.retrieve("claude-3")


@pytest.mark.parametrize(
    ("query", "first", "count", "more"),
    [
        ("", "claude-fable-5-2", 20, True),
        ("limit=1000", "claude-fable-5-2", 22, False),
        ("limit=2&after_id=claude-mythos-5-2", "claude-haiku-5-5", 2, True),
        ("limit=2&before_id=claude-haiku-5-5", "claude-fable-5-2", 2, False),
        ("limit=1&before_id=claude-haiku-5-5", "claude-mythos-5-2", 1, True),
        ("lifecycle[]=deprecated", "claude-opus-4-5", 4, False),
    ],
)
async def test_the_page_asked_for(bench: Bench, query: str, first: str, count: int, *, more: bool) -> None:
    page = (await bench.http.get(f"/v1/models?{query}")).json()
    assert (page["first_id"], len(page["data"]), page["has_more"]) == (first, count, more)
    assert page["last_id"] == page["data"][-1]["id"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after_id=claude-3", "before_id=x"])
async def test_refused_pages(bench: Bench, query: str) -> None:
    answer = await bench.http.get(f"/v1/models?{query}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("change", "betas"),
    [
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, ""),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]}, "mcp-client-2025-11-20"),
        ({"mcp_servers": [{"type": "url", "name": "s", "url": "u"}]}, "mcp-client-2025-11-20"),
        (user(image(type="url", url="u")), ""),
        (user(image(type="file", file_id="f")), ""),
        (user(document(type="url", url="u")), ""),
        ({"max_tokens": 3}, ""),
        ({"stream": False}, ""),
    ],
)
async def test_count_tokens_refuses_what_it_cannot_know(bench: Bench, change: Json, betas: str) -> None:
    body = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "hello"}]} | change
    headers: dict[str, Any] = {"anthropic_beta": betas} if betas else {}
    answer = await bench.post(body, "/v1/messages/count_tokens", **headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_count_tokens_takes_the_rest(bench: Bench) -> None:
    body = {
        "model": "claude-opus-5-5",
        "tools": [TOOL, {"type": "advisor_20260301", "name": "advisor", "model": "claude-fable-5-2"}],
        "thinking": {"type": "adaptive"},
        "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": []},
    } | user(png(28, 28), document(type="base64", media_type="application/pdf", data=PDF))
    betas = "advisor-tool-2026-03-01,context-management-2025-06-27"
    answer = await bench.post(body, "/v1/messages/count_tokens?beta=true", anthropic_beta=betas)
    counted = answer.json()
    assert counted["input_tokens"] > 2_400
    assert counted["context_management"] == {"original_input_tokens": counted["input_tokens"]}


async def test_hello(bench: Bench) -> None:
    assert (await bench.http.head("/api/hello", headers={"x-api-key": ""})).status_code == 200
