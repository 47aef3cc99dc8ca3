"""The features, modifiers and models that a request asks for, and what is never offered."""

import json
from typing import Any
from uuid import UUID

import pytest

from api.gateway.messages.body import InvalidRequest, read_body
from api.gateway.messages.features import Asked, NotOffered, asked
from core.tenancy.principal import Forbidden, Principal
from metering.pricing.price import STANDARD, Modifiers

ID = UUID(int=1)


def of(*content: Any, **fields: Any) -> Asked:
    """Returns what a request with these content blocks and top-level fields asks for."""
    messages = [{"role": "user", "content": list(content) or "hi"}]
    body = {"model": "claude-opus-5-5", "max_tokens": 10, "messages": messages} | fields
    return asked(read_body(json.dumps(body).encode()))


def source(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "image", "source": {"type": kind, **more}}


def test_a_plain_request_needs_nothing() -> None:
    tools = [
        {"name": "a", "input_schema": {"type": "object", "container": "x", "source": {"type": "file"}}},
        {"type": "custom", "name": "b", "input_schema": {}},
        *({"type": name, "name": "c"} for name in ("bash_20250124", "text_editor_20250728", "memory_20250818")),
        *({"type": name, "name": "d"} for name in ("computer_toolset_20260801", "browser_toolset_20260801")),
    ]
    content = [
        {"type": "text", "text": '{"source": {"type": "file"}}'},
        {"type": "tool_use", "id": "t", "name": "a", "input": {"source": {"type": "file", "file_id": "f"}}},
        {"type": "search_result", "source": "https://a.test", "title": "t", "content": [{"type": "text", "text": "a"}]},
        source("base64", media_type="image/png", data="AA=="),
    ]
    null = dict.fromkeys(
        ("container", "skills", "thread", "fallbacks", "compaction", "speed", "inference_geo", "service_tier")
    )
    clearing = {"edits": [{"type": "clear_tool_uses_20250919"}, {"type": "clear_thinking_20251015"}]}

    found = of(*content, tools=tools, mcp_servers=[], diagnostics={"previous_message_id": None}, **null)

    assert found == Asked(frozenset(), STANDARD)
    assert of(context_management=clearing, safeguards=[{"unknown": 1}]).features == frozenset()


@pytest.mark.parametrize(
    ("tool", "feature"),
    [
        ("web_search_20250305", "web_search"),
        ("web_search_20260318", "web_search"),
        ("web_fetch_20250910", "web_fetch"),
        ("code_execution_20260521", "code_execution"),
        ("tool_search_tool_bm25_20251119", "tool_search"),
        ("advisor_20260301", "advisor"),
        ("mcp_toolset", "mcp"),
    ],
)
def test_tools_that_the_provider_runs(tool: str, feature: str) -> None:
    definition = {"type": tool, "name": "x"}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": definition}}

    assert of(tools=[{"name": "a"}, definition]).features == {feature}
    assert of(added).features == {feature}
    assert of({"type": "compaction", "content": "so far", "tool_changes": [added]}).features == {feature}


def test_a_tool_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(NotOffered, match="tools of this type are not offered") as refused:
        of(tools=[{"type": "xylophone_20270101", "name": "x"}])
    assert "xylophone" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"mcp_servers": [{"type": "url", "name": "m", "url": "https://m.test"}]}, "mcp"),
        ({"fallbacks": "default"}, "fallbacks"),
        ({"fallbacks": [{"model": "claude-sonnet-5"}]}, "fallbacks"),
        ({"fallback_credit_token": "t"}, "fallbacks"),
        ({"compaction": {"type": "summarize"}}, "compaction"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "compaction"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}, {"type": "new"}]}}, "compaction"),
    ],
)
def test_fields_that_need_a_plan(fields: dict[str, Any], feature: str) -> None:
    assert of(**fields).features == {feature}


@pytest.mark.parametrize(
    "block",
    [
        source("url", url="https://a.test/a.png"),
        {"type": "document", "source": {"type": "url", "url": "https://a.test/a.pdf"}},
        {"type": "tool_result", "tool_use_id": "t", "content": [source("url", url="https://a.test/a.png")]},
        {"type": "document", "source": {"type": "content", "content": [source("url", url="https://a.test/a.png")]}},
        {
            "type": "web_fetch_tool_result",
            "content": {"type": "web_fetch_result", "content": {"type": "document", "source": {"type": "url"}}},
        },
    ],
)
def test_sources_by_url_anywhere(block: dict[str, Any]) -> None:
    assert of({"type": "text", "text": "a"}, block).features == {"url_sources"}


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        ([source("file", file_id="f")], {}, "messages: files are not offered here."),
        ([{"type": "container_upload", "file_id": "f"}], {}, "messages: files are not offered here."),
        ([{"type": "tool_result", "content": [source("file")]}], {}, "messages: files are not offered here."),
        ([], {"system": [source("file")]}, "messages: files are not offered here."),
        ([], {"container": "container_1"}, "container: containers are not offered here."),
        ([], {"container": {"id": "container_1"}}, "container: containers are not offered here."),
        ([], {"container": {"skills": [{"skill_id": "s"}]}}, "container.skills: skills are not offered here."),
        ([], {"skills": []}, "skills: skills are not offered here."),
        (
            [],
            {"diagnostics": {"previous_message_id": "msg_1"}},
            "diagnostics.previous_message_id: diagnostics of earlier messages are not offered here.",
        ),
    ],
)
def test_what_lives_in_the_operators_workspace(content: list[Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(NotOffered) as refused:
        of(*content, **fields)

    assert (str(refused.value), refused.value.code) == (message, "feature_not_offered")


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}, 7])
def test_a_thread_is_refused_so_that_clients_send_everything(thread: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^thread: ") as refused:
        of(thread=thread)

    assert refused.value.error_code == "thread_unsupported_request"


def test_modifiers() -> None:
    assert of(speed="fast").modifiers == Modifiers(speed="fast")
    assert of(inference_geo="us").modifiers == Modifiers(inference_geo="us")
    for tier in ("auto", "standard_only"):
        assert of(service_tier=tier, speed="standard", inference_geo="global").modifiers == STANDARD
    fallbacks = [{"model": "claude-sonnet-5"}, {"model": "claude-opus-5", "speed": "fast"}]
    assert of(fallbacks=fallbacks).modifiers == Modifiers(speed="fast")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"speed": "xylophone"}, "speed: Input should be 'fast' or 'standard'"),
        ({"inference_geo": "xylophone"}, "inference_geo: Input should be 'global' or 'us'"),
        ({"service_tier": "batch"}, "service_tier: Input should be 'auto' or 'standard_only'"),
        (
            {"fallbacks": [{"model": "m", "speed": "xylophone"}]},
            "fallbacks.0.speed: Input should be 'fast' or 'standard'",
        ),
        (
            {"fallbacks": [{"model": "m"}, {"model": "m", "max_tokens": 9}]},
            "fallbacks.1.max_tokens: the request's own `max_tokens` applies to each model",
        ),
    ],
)
def test_a_value_whose_price_is_unknown(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        of(**fields)

    assert str(refused.value) == message


def test_further_models() -> None:
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5"}
    both = of(tools=[advisor, {"name": "model", "model": "x"}], fallbacks=[{"model": "claude-sonnet-5"}])
    free, bound = (Principal(ID, ID, ID, frozenset(), models=names) for names in (None, frozenset({"claude-opus-5"})))

    assert both.models == ("claude-sonnet-5", "claude-opus-5")
    both.require_models(free)
    of(tools=[advisor]).require_models(bound)
    with pytest.raises(Forbidden, match="may not use the model 'claude-sonnet-5'"):
        both.require_models(bound)
    default = of(tools=[advisor], fallbacks="default")
    assert (both.may_choose_model, default.may_choose_model, default.models) == (False, True, ("claude-opus-5",))
    of(fallbacks="default").require_models(free)
    with pytest.raises(Forbidden, match="name them instead of `default`"):
        of(fallbacks="default").require_models(bound)
