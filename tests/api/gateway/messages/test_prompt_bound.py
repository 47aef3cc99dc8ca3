"""How many tokens a prompt can be: of text by bytes, of images by number, of all else by a count or the window."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.messages.body import read_body
from api.gateway.messages.features import asked
from api.gateway.messages.prompt_bound import PromptBound, prompt_bound
from sandbox.anthropic.tokens import count_text

WINDOW = 200_000
DATA = "A" * 40_000
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}


def raw_of(*content: Any, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": list(content) or "hi"}]
    body = {"model": "claude-opus-5-5", "max_tokens": 10_000, "messages": messages} | fields
    return json.dumps(body, ensure_ascii=False).encode()


def of(*content: Any, betas: tuple[str, ...] = (), **fields: Any) -> PromptBound:
    body = read_body(raw_of(*content, **fields))
    return prompt_bound(
        body,
        asked(body),
        window_tokens=WINDOW,
        betas=betas,
        min_grant_tokens=64,
        min_tool_grant_tokens=1024,
    )


@given(text=st.text(max_size=200), escaped=st.booleans())
def test_bytes_bound_text_however_it_is_written(text: str, *, escaped: bool) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    body = {"model": "claude-opus-5-5", "max_tokens": 10, "messages": messages, "system": text}
    read = read_body(json.dumps(body, ensure_ascii=escaped).encode("utf-8"))

    found = prompt_bound(read, asked(read), min_grant_tokens=64, min_tool_grant_tokens=1024)

    assert found.most >= 2 * count_text(text) + 8
    assert found.is_countable


def test_a_plain_prompt() -> None:
    found = of()
    size = len(raw_of())

    assert found == PromptBound(size + 32, size + 32, size // 3 + 32, 1, 0, True, None, 0)  # noqa: FBT003
    assert found.of_count(7) == 7


@pytest.mark.parametrize(("model", "tokens"), [("claude-opus-5-5", 4784), ("claude-sonnet-4-6", 1568), ("new", 4784)])
def test_images_count_by_number_and_not_by_bytes(model: str, tokens: int) -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}
    text = len(raw_of(IMAGE, result, model=model)) - 2 * len(f'"{DATA}"')

    found = of(IMAGE, result, model=model)

    assert (found.most, found.is_countable) == (text + 32 + 2 * tokens, True)


@pytest.mark.parametrize(
    "block",
    [
        PDF,
        {"type": "tool_result", "tool_use_id": "t", "content": [PDF]},
        {"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "QQ=="}},
        {"type": "document"},
        {"type": "hologram", "source": {"type": "base64", "data": "QQ=="}},
        {"type": "hologram"},
    ],
)
def test_what_bytes_do_not_bound_is_bounded_by_the_window(block: dict[str, Any]) -> None:
    found = of(block)

    assert (found.most, found.is_countable) == (WINDOW, True)
    assert found.likely < WINDOW


def test_a_pdf_is_probably_a_fraction_of_its_bytes() -> None:
    text = len(raw_of(PDF)) - len(f'"{DATA}"')

    assert of(PDF).likely == text // 3 + 32 + 40_002 // 5


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a" * 100}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a" * 100}]}},
        {"type": "search_result", "source": "a.test", "title": "t", "content": [{"type": "text", "text": "a"}]},
        {"type": "thinking", "thinking": "", "signature": DATA},
        {"type": "redacted_thinking", "data": DATA},
        {"type": "tool_use", "id": "t", "name": "n", "input": {"source": {"type": "base64", "data": "AA"}}},
        {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "encrypted_content": DATA}]},
        {"type": "code_execution_tool_result", "content": {"type": "code_execution_result", "stdout": "a"}},
        {"type": "compaction", "content": "so far", "encrypted_content": DATA},
    ],
)
def test_what_bytes_do_bound(block: dict[str, Any]) -> None:
    found = of(block)

    assert (found.most, found.is_countable) == (len(raw_of(block)) + 32, True)


def test_nothing_is_larger_than_the_window() -> None:
    long = {"type": "text", "text": "a" * (WINDOW + 1)}

    assert of(long).most == WINDOW
    assert of(*[IMAGE] * 600).most == WINDOW
    assert of(long, betas=("context-1m-2025-08-07",)).most == len(raw_of(long)) + 32


def test_tools_have_overheads() -> None:
    tools = [{"name": "a"}, {"type": "custom", "name": "b"}, {"type": "bash_20250124", "name": "bash"}]
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": tools[2]}}

    assert of(tools=tools).most == len(raw_of(tools=tools)) + 32 + 804 + 325
    assert of(added).most == len(raw_of(added)) + 32 + 804 + 325


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "web_search_20260318", "name": "web_search"}]},
        {"tools": [{"type": "web_fetch_20260318", "name": "web_fetch"}]},
        {"tools": [{"type": "code_execution_20260521", "name": "code_execution"}]},
        {"tools": [{"type": "tool_search_tool_bm25_20251119", "name": "tool_search"}]},
        {"mcp_servers": [{"type": "url", "name": "m", "url": "https://m.test"}]},
    ],
)
def test_a_loop_reads_the_window_ten_times(fields: dict[str, Any]) -> None:
    found = of(PDF, **fields)

    assert (found.most, found.is_countable) == (10 * WINDOW, False)


def test_a_url_can_be_a_whole_window() -> None:
    found = of({"type": "document", "source": {"type": "url", "url": "https://a.test/a.pdf"}})

    assert (found.most, found.is_countable) == (WINDOW, False)


URL = {"type": "url", "url": "https://a.test/a"}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "web_search_20260318", "name": "web_search"}]},
        {"mcp_servers": [{"type": "url", "name": "m", "url": "https://m.test"}]},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5"}]},
        {"fallbacks": [{"model": "a"}, {"model": "b"}]},
        {"compaction": {"type": "summarize"}},
    ],
)
def test_one_inference_reads_the_body(fields: dict[str, Any]) -> None:
    found, size = of(**fields), len(raw_of(**fields))
    overhead = 32 if "tools" not in fields else 32 + 804 + 8_000

    assert size < found.once <= size + overhead
    assert found.most > found.once


def test_one_inference_reads_a_window_only_if_nothing_bounds_it() -> None:
    search: dict[str, Any] = {"tools": [{"type": "web_search_20260318", "name": "web_search"}]}
    picture = {"type": "image", "source": URL}

    assert of({"type": "document", "source": URL}).once == WINDOW
    assert of(PDF, **search).once == WINDOW
    assert (of(picture).most, of(picture).once) == (WINDOW, len(raw_of(picture)) + 32 + 4_784)


def test_each_model_that_tries_reads_the_prompt() -> None:
    two, default = [{"model": "a"}, {"model": "b"}], of(fallbacks="default")

    assert of(fallbacks=two).most == 3 * (len(raw_of(fallbacks=two)) + 32)
    assert of(fallbacks=two).of_count(100) == 300
    assert default.most == 3 * (len(raw_of(fallbacks="default")) + 32)
    assert of(PDF, compaction={"type": "summarize"}).most == 2 * WINDOW


def test_the_output_of_other_attempts_and_of_a_compaction_is_held_beside_the_grant() -> None:
    two, compaction = [{"model": "a"}, {"model": "b"}], {"type": "summarize"}

    assert of().further_output == 0
    assert of(fallbacks=two).further_output == 2 * 10_000
    assert of(fallbacks="default").further_output == 2 * 10_000
    assert of(compaction=compaction).further_output == 10_000
    assert of(compaction=compaction, fallbacks=two).further_output == 5 * 10_000


@pytest.mark.parametrize(
    ("tool", "tokens"),
    [
        ({"max_uses": 3, "max_tokens": 700}, 2_100),
        ({"max_uses": 3, "max_tokens": 2_048}, 6_144),
        ({"max_uses": 3}, 384_000),
        ({}, 1_280_000),
        ({"max_uses": 0}, 0),
    ],
)
def test_the_output_of_an_advisor_is_held(tool: dict[str, int], tokens: int) -> None:
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5", **tool}

    assert of(tools=[advisor, {"name": "a"}]).further_output == tokens


@pytest.mark.parametrize(("uses", "times"), [({"max_uses": 3}, 3), ({}, 10)])
def test_an_advisor_reads_the_conversation_each_time(uses: dict[str, int], times: int) -> None:
    tools = [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5", **uses}]
    found = of(tools=tools)

    assert found.most == len(raw_of(tools=tools)) + 32 + 804 + 8000 + times * 1_000_000
    assert found.of_count(10) == 10 + times * 1_000_000
    assert found.is_countable


def test_web_searches() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}

    assert of(tools=[search | {"max_uses": 3}]).web_searches == 3
    assert of(tools=[search, {"name": "a"}]).web_searches == 50
    assert of(tools=[{"type": "web_fetch_20260318", "name": "f", "max_uses": 3}]).web_searches == 0


@pytest.mark.parametrize(
    ("fields", "betas", "smallest"),
    [
        ({}, (), None),
        ({"thinking": {"type": "adaptive"}}, (), None),
        ({"thinking": {"type": "disabled", "budget_tokens": 5000}}, (), None),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}}, (), 5064),
        ({"thinking": {"type": "enabled", "budget_tokens": 9990}}, (), 10_000),
        ({"tools": [{"name": "a"}]}, (), 1024),
        ({"tools": []}, (), None),
        ({"tools": [{"name": "a"}], "max_tokens": 100}, (), 100),
        ({"tools": [{"name": "a"}], "max_tokens": 0}, (), 0),
        ({"output_config": {"format": {"type": "json_schema"}}}, (), 1024),
        ({"output_config": {"effort": "high"}}, (), None),
        ({"output_format": {"type": "json_schema"}}, (), 1024),
        ({"tools": [{"name": "a"}], "thinking": {"type": "enabled", "budget_tokens": 5000}}, (), 6024),
        (
            {"tools": [{"name": "a"}], "thinking": {"type": "enabled", "budget_tokens": 50_000}},
            ("interleaved-thinking-2025-05-14",),
            1024,
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 5000}},
            ("interleaved-thinking-2025-05-14",),
            5064,
        ),
    ],
)
def test_the_smallest_grant(fields: dict[str, Any], betas: tuple[str, ...], smallest: int | None) -> None:
    assert of(betas=betas, **fields).smallest_output == smallest
