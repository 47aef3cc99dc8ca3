"""Tools: asked for by the text, by the choice or by a script; the round trip; and what runs at the provider."""

from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from tests.sandbox.anthropic.bench import TOOL, Bench, Json, both, fresh, marker, turns
from tests.sandbox.test_anthropic import chat, order

OTHER = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("prompt", "fields", "used"),
    [
        ('Please use the tool get_weather with {"city": "Pune", "days": 3}.', {}, [{"city": "Pune", "days": 3}]),
        ("Use the tool get_weather", {}, [{"city": "example", "days": 2}]),
        ("use the tool get_weather with care", {}, [{"city": "example", "days": 2}]),
        ('use the tool get_weather with {"city": "A"} and use the tool get_time', {}, [{"city": "A"}, {}]),
        ("use the tool nobody_offers", {}, []),
        ("hello", {}, []),
        ("hello", {"tool_choice": {"type": "any"}}, [{"city": "example", "days": 2}]),
        ("hello", {"tool_choice": {"type": "tool", "name": "get_time"}}, [{}]),
        ("use the tool get_time", {"tool_choice": {"type": "none"}}, []),
        (
            "use the tool get_time, use the tool get_weather",
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            [{}],
        ),
    ],
)
async def test_a_tool_is_used(claude: anthropic.AsyncAnthropic, prompt: str, fields: Json, used: list[Json]) -> None:
    whole, gathered = await both(claude.messages, **chat(f"{prompt} {fresh()}", tools=[TOOL, OTHER], **fields))
    assert whole == gathered
    uses = [block for block in whole["content"] if block["type"] == "tool_use"]
    assert [block["input"] for block in uses] == used
    assert whole["stop_reason"] == ("tool_use" if used else "end_turn")
    assert len({block["id"] for block in uses}) == len(uses)


async def test_a_round_trip(claude: anthropic.AsyncAnthropic) -> None:
    said: list[Any] = turns('use the tool get_weather with {"city": "Pune", "days": 2}')
    tools: list[Any] = [TOOL]
    for step in ("31 degrees", "rain"):
        asked = await claude.messages.create(model="claude-opus-5-5", max_tokens=900, messages=said, tools=tools)
        use = asked.content[-1]
        assert use.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": step}]}
        said += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
        answered = await claude.messages.create(model="claude-opus-5-5", max_tokens=900, messages=said, tools=tools)
        assert answered.stop_reason == "end_turn"
        assert answered.content[0].type == "text"
        assert f"get_weather answered: “{step}”" in answered.content[0].text
        said += [
            {"role": "assistant", "content": answered.content},
            {"role": "user", "content": "Again, use the tool get_weather"},
        ]


async def test_scripts_of_a_round_trip(bench: Bench) -> None:
    use = {"type": "tool_use", "name": "get_weather", "input": {"city": "X"}}
    ref, prompt = order(turns=[{"blocks": [use]}, {"blocks": [use, use]}, {"text": "Done."}])
    said = turns(prompt)
    kinds = []
    for _ in range(4):
        answer = (await bench.post(chat("", messages=said, tools=[TOOL]))).json()
        kinds.append([block["type"] for block in answer["content"]])
        uses = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": use_id, "content": "ok"} for use_id in uses]
        said += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": results or "go on"}]
    assert kinds == [["tool_use"], ["tool_use", "tool_use"], ["text"], ["text"]]
    assert len(await bench.entries(ref)) == 4


async def test_a_script_that_asked_for_a_tool_is_over_when_the_result_comes(bench: Bench) -> None:
    use = {"type": "tool_use", "name": "get_weather", "input": {}}
    ref, prompt = order(blocks=[use])
    first = (await bench.post(chat(prompt, tools=[TOOL]))).json()
    result = {"type": "tool_result", "tool_use_id": first["content"][0]["id"], "content": "it rains"}
    said = turns(prompt, first["content"], [result])
    second = (await bench.post(chat("", messages=said, tools=[TOOL]))).json()
    assert (second["stop_reason"], second["content"][0]["text"]) == ("end_turn", "get_weather answered: “it rains”.")
    assert len(await bench.entries(ref)) == 2


@pytest.mark.parametrize(
    ("tool", "directive", "kinds"),
    [
        ({"type": "web_search_20260318", "name": "web_search"}, 'web_search with {"query": "x"}', "web_search"),
        ({"type": "web_fetch_20260318", "name": "web_fetch"}, "web_fetch", "web_fetch"),
        ({"type": "code_execution_20260521", "name": "code_execution"}, "code_execution", "code_execution"),
        (
            {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"},
            "tool_search_tool_bm25",
            "tool_search",
        ),
    ],
)
async def test_tools_of_the_provider(claude: anthropic.AsyncAnthropic, tool: Json, directive: str, kinds: str) -> None:
    whole, gathered = await both(claude.messages, **chat(f"use the tool {directive} {fresh()}", tools=[tool]))
    assert whole == gathered
    types = [block["type"] for block in whole["content"]]
    assert types == ["server_tool_use", f"{kinds}_tool_result", "text"]
    assert whole["stop_reason"] == "end_turn"


async def test_built_in_client_tools(claude: anthropic.AsyncAnthropic) -> None:
    tools: list[Any] = [{"type": "bash_20250124", "name": "bash"}, {"type": "memory_20250818", "name": "memory"}]
    message = await claude.messages.create(**chat('use the tool bash with {"command": "ls"}', tools=tools))
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("bash", {"command": "ls"})


async def test_the_output_fits_its_schema(claude: anthropic.AsyncAnthropic) -> None:
    class Trip(BaseModel):
        city: str
        days: int

    message = await claude.messages.parse(
        model="claude-opus-5-5", max_tokens=100, messages=[{"role": "user", "content": "go"}], output_format=Trip
    )
    assert message.parsed_output is not None
    assert message.parsed_output.city


async def test_the_tool_runner(claude: anthropic.AsyncAnthropic) -> None:
    @anthropic.beta_async_tool
    async def get_weather(city: str) -> str:
        """Look at the weather of a city."""
        return f"It rains in {city}."

    runner = claude.beta.messages.tool_runner(
        model="claude-opus-5-5",
        max_tokens=500,
        tools=[get_weather],
        messages=[{"role": "user", "content": 'use the tool get_weather with {"city": "Pune"}'}],
    )
    final = await runner.until_done()
    assert final.content[0].type == "text"
    assert "It rains in Pune." in final.content[0].text


async def test_threads_are_refused_unless_a_script_allows_them(bench: Bench) -> None:
    beta = "message-threads-2026-08-12"
    body = chat(f"hello {fresh()}", thread={"type": "create"})
    assert (await bench.post(body)).json()["error"]["message"] == "thread: Extra inputs are not permitted"
    refused = await bench.post(body, anthropic_beta=beta)
    assert refused.status_code == 400
    assert refused.json()["error"]["details"] == {"error_code": "thread_unsupported_request"}
    allowed = marker(allow_threads=True)
    first = await bench.post(chat(f"one two three {allowed}", thread={"type": "create"}), anthropic_beta=beta)
    thread = {"type": "continue", "previous_message_id": first.json()["id"]}
    second = await bench.post(chat(f"more {allowed}", thread=thread), anthropic_beta=beta)
    assert second.json()["usage"]["input_tokens"] > first.json()["usage"]["input_tokens"]
    again = await bench.post(chat(f"more {allowed}", thread=thread), anthropic_beta=beta)
    assert again.json()["error"]["details"] == {"error_code": "thread_already_continued"}
    lost = chat(f"more {allowed}", thread={**thread, "previous_message_id": "msg_0"})
    assert (await bench.post(lost, anthropic_beta=beta)).json()["error"]["details"]["error_code"] == "thread_not_found"
