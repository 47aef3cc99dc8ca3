"""`POST /v1/messages` with Anthropic's own client, which knows nothing of us: every block, streamed and whole."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam

from core.ids import uuid7
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.clients.task import DOT
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Api, Books, Simulator, scripted

MODEL = "claude-sonnet-5-5"
TOOL: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
LONG = "The office of tolls counts what passes. " * 400


@asynccontextmanager
async def sdk(api: Api, account: Account, **options: Any) -> AsyncIterator[AsyncAnthropic]:
    """Anthropic's client, pointed at Naka by its two documented settings."""
    async with AsyncAnthropic(base_url=api.url, api_key=account.key, max_retries=0, **options) as made:
        yield made


def conversation(message: str = "hello", **script: Any) -> list[MessageParam]:
    """A conversation that orders an answer of the simulator."""
    return [{"role": "user", "content": scripted(message, **script)}]


async def answered(client: AsyncAnthropic, *, stream: bool, **request: Any) -> Any:
    """The message, by a stream or whole."""
    request = {"model": MODEL, "max_tokens": 2000, **request}
    if not stream:
        return await client.messages.create(**request)
    async with client.messages.stream(**request) as events:
        return await events.get_final_message()


async def assert_booked(books: Books, simulator: Simulator, account: Account, ref: str) -> None:
    """The rows of an account are what the provider's ledger says."""
    rows = await books.settled(account, len(simulator.ledger(ref)))
    billed = [row for row in simulator.inferences(ref) if row["charged"]]
    for column, name in zip(TOKEN_FIELDS, LEDGER_FIELDS, strict=True):
        assert sum(row[column] for row in rows) == sum(row[name] for row in billed), column


@pytest.fixture
def ref() -> str:
    """Names the requests of one test at the provider."""
    return uuid7().hex


BOTH = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@BOTH
async def test_text_and_several_turns(api: Api, books: Books, simulator: Simulator, ref: str, *, stream: bool) -> None:
    account = await books.account()
    async with sdk(api, account) as client:
        first = await answered(client, stream=stream, messages=conversation(ref=ref, text="Namaste."))
        assert [block.text for block in first.content] == ["Namaste."]
        turns = [
            *conversation(ref=ref, text="Namaste."),
            {"role": "assistant", "content": first.content},
            *conversation("and again", ref=ref, text="Once more."),
        ]
        second = await answered(client, stream=stream, messages=turns, system="Be brief.")
    assert (second.content[0].text, second.stop_reason, second.model) == ("Once more.", "end_turn", MODEL)
    assert second.usage.input_tokens > first.usage.input_tokens
    await assert_booked(books, simulator, account, ref)


@BOTH
async def test_a_tool_goes_there_and_back(
    api: Api, books: Books, simulator: Simulator, ref: str, *, stream: bool
) -> None:
    account = await books.account()
    turns: list[Any] = conversation(
        ref=ref,
        turns=[{"blocks": [{"type": "tool_use", "name": "weather", "input": {"city": "Pune"}}]}, {"text": "Dry."}],
    )
    async with sdk(api, account) as client:
        asked = await answered(client, stream=stream, messages=turns, tools=[TOOL])
        (use,) = asked.content
        assert (asked.stop_reason, use.name, use.input) == ("tool_use", "weather", {"city": "Pune"})
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "dry"}
        turns += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
        told = await answered(client, stream=stream, messages=turns, tools=[TOOL])
    assert told.content[-1].text == "Dry."
    await assert_booked(books, simulator, account, ref)


@BOTH
async def test_an_image(api: Api, books: Books, simulator: Simulator, ref: str, *, stream: bool) -> None:
    account = await books.account()
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": DOT},
    }
    content = [image, {"type": "text", "text": scripted(ref=ref, text="A dot.")}]
    async with sdk(api, account) as client:
        answer = await answered(client, stream=stream, messages=[{"role": "user", "content": content}])
    assert answer.content[0].text == "A dot."
    await assert_booked(books, simulator, account, ref)


@BOTH
@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_thinking(api: Api, books: Books, simulator: Simulator, ref: str, display: str, *, stream: bool) -> None:
    account = await books.account()
    thinking: Any = {"type": "adaptive", "display": display}
    async with sdk(api, account) as client:
        answer = await answered(
            client,
            stream=stream,
            thinking=thinking,
            messages=conversation(ref=ref, thinking=100, display=display, text="So."),
        )
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert bool(answer.content[0].thinking) is (display == "summarized")
    assert answer.usage.output_tokens >= 100
    await assert_booked(books, simulator, account, ref)


@BOTH
async def test_a_cached_prompt(api: Api, books: Books, simulator: Simulator, ref: str, *, stream: bool) -> None:
    account = await books.account()
    system: Any = [{"type": "text", "text": f"{ref} {LONG}", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    async with sdk(api, account) as client:
        for _ in range(2):
            answer = await answered(client, stream=stream, system=system, messages=conversation(ref=ref, text="Yes."))
    assert answer.usage.cache_read_input_tokens > 1000
    rows = await books.settled(account, 2)
    assert rows[0]["cache_write_1h_tokens"] == rows[1]["cache_read_tokens"] > 1000
    await assert_booked(books, simulator, account, ref)


@BOTH
async def test_errors_are_of_the_class_that_clients_expect(api: Api, books: Books, ref: str, *, stream: bool) -> None:
    account = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 3),)))
    async with sdk(api, account) as client:
        with pytest.raises(anthropic.BadRequestError) as refused:
            await answered(client, stream=stream, messages=conversation(ref=ref, status=400))
        assert "told to fail" in str(refused.value), "what the provider says of the request is not changed"
        with pytest.raises(anthropic.BadRequestError):
            await answered(client, stream=stream, messages="no list")
        with pytest.raises(anthropic.NotFoundError):
            await answered(client, stream=stream, model="claude-none", messages=conversation())
        server_tool: Any = {"type": "web_search_20250305", "name": "web_search"}
        with pytest.raises(anthropic.PermissionDeniedError) as forbidden:
            await answered(client, stream=stream, messages=conversation(), tools=[server_tool])
        assert "web_search" in str(forbidden.value)
        with pytest.raises(anthropic.BadRequestError) as threads:
            await answered(client, stream=stream, messages=conversation(), extra_body={"thread": {"type": "create"}})
        assert threads.value.body["error"]["details"] == {"error_code": "thread_unsupported_request"}  # type: ignore[index]
        for _ in range(2):
            await answered(client, stream=stream, messages=conversation(ref=ref, text="x"))
        with pytest.raises(anthropic.RateLimitError) as limited:
            await answered(client, stream=stream, messages=conversation(ref=ref, text="x"))
        headers = limited.value.response.headers
        assert headers["x-should-retry"] == "false"
        assert int(headers["retry-after"]) > 0
        assert headers["request-id"]
    async with sdk(api, account) as client:
        client.api_key = "nk_test_wrong"
        with pytest.raises(anthropic.AuthenticationError) as wrong:
            await answered(client, stream=stream, messages=conversation())
        assert wrong.value.response.headers["x-should-retry"] == "false"
    assert len(await books.settled(account, 3)) == 3


async def test_a_cancelled_stream_is_billed_what_it_got(api: Api, books: Books, simulator: Simulator, ref: str) -> None:
    account = await books.account()
    async with sdk(api, account) as client:
        script = conversation(ref=ref, pieces=["a word or two "] * 200, piece_delay_ms=20)
        async with client.messages.stream(model=MODEL, max_tokens=2000, messages=script) as events:
            async for _ in events.text_stream:
                break
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"]) == ("client_gone", "counted")
    (entry,) = simulator.ledger(ref)
    assert 0 < row["output_tokens"] <= entry["output_tokens"]
    assert row["input_tokens"] == entry["input_tokens"]


@BOTH
async def test_hidden_thinking_that_breaks_off_is_estimated(api: Api, books: Books, ref: str, *, stream: bool) -> None:
    account = await books.account()
    script = conversation(ref=ref, thinking=500, display="omitted", text="So.", cut_after=4, count="events")
    thinking: Any = {"type": "adaptive", "display": "omitted"}
    async with sdk(api, account) as client:
        with pytest.raises((anthropic.APIError, httpx2.HTTPError)):
            await answered(client, stream=stream, thinking=thinking, messages=script)
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["source"]) == ("upstream_broke", "estimated"), "what was relayed is nothing"
    assert 0 <= row["output_tokens"] <= 2000


async def test_the_body_goes_on_as_it_came(api: Api, books: Books, simulator: Simulator, ref: str) -> None:
    account = await books.account()
    said = json.dumps(scripted(ref=ref))
    body = (
        '{ "x_new": {"a":[1, 2.50, "\\u0939"]},\n "max_tokens" :  77, "stream":true , "system":'
        f' [{{"type":"text","text":"one"}},{{"type":"text","text":"two"}}], "model":"{MODEL}",'
        f'"messages":[{{"role":"user","content":{said}}}]}}'
    )
    headers = {
        **account.headers,
        "content-type": "application/json",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "one-2026-01-01,two-2026-02-02",
        "anthropic-workspace-id": "wrkspc_1",
        "x-stainless-retry-count": "1",
        "cookie": "a=b",
    }
    async with httpx2.AsyncClient(base_url=api.url, timeout=30) as http:
        answer = await http.post("/v1/messages?beta=true", content=body.encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert not [
            name for name in answer.headers if name.startswith(("anthropic-ratelimit", "anthropic-organization"))
        ]
        assert answer.text.endswith('data: {"type":"message_stop"}\n\n') or "message_stop" in answer.text[-80:]
    (received,) = simulator.received(ref)
    assert base64.b64decode(received["body"]) == body.encode()
    assert received["path"] == "/v1/messages?beta=true"
    sent = dict(received["headers"])
    assert sent["anthropic-beta"] == "one-2026-01-01,two-2026-02-02"
    assert (sent["anthropic-version"], sent["x-stainless-retry-count"]) == ("2026-10-21", "1")
    assert not {"anthropic-workspace-id", "cookie"} & sent.keys()
    assert account.key not in str(received["headers"])


@pytest.mark.slow
async def test_fifty_at_once_are_booked_exactly(api: Api, books: Books, simulator: Simulator, ref: str) -> None:
    account = await books.account()
    async with sdk(api, account) as client:
        await asyncio.gather(
            *(
                answered(client, stream=bool(number % 2), messages=conversation(ref=ref, words=number + 1))
                for number in range(50)
            )
        )
    await assert_booked(books, simulator, account, ref)
