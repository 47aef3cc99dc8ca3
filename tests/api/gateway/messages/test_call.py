"""The call of a body: how a prompt is bounded when it cannot be counted, and how long it is kept."""

import asyncio
import base64
import gc
import json
from typing import Any

import pytest
from starlette.types import Receive, Scope

from api.gateway.messages.call import MessagesPrompt as Prompt
from api.http.body_admission import Body, BodyAdmission
from metering.pricing.tokens import bound_of_count
from metering.quota.limits import Limit, LimitSet, Meter, PlanLimits
from metering.quota.windows import WindowKind
from tests.api.conftest import Api
from tests.api.gateway.messages.conftest import Provider
from tests.harness import Account
from tests.journeys.callers import eventually
from tests.metering.scheduled import project
from tests.raw_provider import Request

MODEL = "claude-haiku-4-5"
WINDOW = 1_000_000
PDF = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"%PDF" * 900).decode()},
}
HEADERS = {"anthropic-version": "2023-06-01"}
START = {"id": "msg_1", "model": MODEL, "content": [], "usage": {"input_tokens": 70, "output_tokens": 1}}


def event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


class Streaming:
    """A provider that answers a count with `count`, and a message once it `may_end`."""

    def __init__(self, provider: Provider, count: tuple[int, Any]) -> None:
        assert provider.server is not None
        provider.answer = self._answer
        self._usual = provider.write
        provider.server.write = self._write
        self.count = count
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()

    async def _answer(self, request: Request) -> tuple[int, Any]:
        return self.count if request.counts else (404, {})

    async def _write(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.counts or "/v1/models" in request.line:
            await self._usual(request, writer)
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(event("message_start", message=START))
        self.begun.set()
        await self.may_end.wait()
        writer.write(event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5}))
        writer.write(event("message_stop"))
        await writer.drain()
        writer.close()


async def ask(api: Api, account: Account, *content: Any, **fields: Any) -> int:
    body = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": [*content]}], **fields}
    answer = await api.http.post("/v1/messages", json=body, headers=HEADERS | account.headers)
    return answer.status_code


async def held(api: Api, account: Account) -> int:
    (row,) = await api.books.requests(account)
    return int(row["held_prompt_tokens"])


async def test_a_document_is_held_by_its_count_where_the_window_does_not_fit(api: Api, provider: Provider) -> None:
    Streaming(provider, (200, {"input_tokens": 5_000}))
    account = await api.books.account(limits=LimitSet((Limit(Meter.INPUT, WindowKind.DAY, 100_000),)))

    assert await ask(api, account, PDF) == 200
    assert await held(api, account) == bound_of_count(5_000)


@pytest.mark.slow
async def test_a_document_is_not_counted_where_the_window_fits(api: Api, provider: Provider) -> None:
    Streaming(provider, (200, {"input_tokens": 5_000}))
    account = await api.books.account()

    assert await ask(api, account, PDF) == 200
    assert await held(api, account) == WINDOW
    assert not any(one.counts for one in provider.requests)


async def test_a_blocked_caller_makes_no_call_of_the_provider(api: Api, provider: Provider) -> None:
    Streaming(provider, (200, {"input_tokens": 5_000}))
    blocked = await api.books.account(limits=LimitSet(concurrency=0))
    used_up = await api.books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 0),)))
    outside = await api.books.account()
    assert await project(api.books, outside, limits=PlanLimits(models=("claude-none",)))

    assert await ask(api, blocked, PDF) == 403
    assert await ask(api, used_up, PDF) in {413, 429}
    assert await ask(api, outside, PDF) == 403
    assert not any(one.line.startswith("POST") for one in provider.requests)


async def test_a_document_that_cannot_be_counted_is_held_by_the_window(api: Api, provider: Provider) -> None:
    for count in (
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}),
        (200, b"no JSON"),
    ):
        Streaming(provider, count)
        account = await api.books.account()

        assert await ask(api, account, PDF) == 200
        assert await held(api, account) == WINDOW


async def test_every_beta_header_counts(api: Api, provider: Provider) -> None:
    Streaming(provider, (529, {}))
    account = await api.books.account(limits=LimitSet((Limit(Meter.OUTPUT, WindowKind.DAY, 1_200),)))
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "tools": [{"name": "a"}], "max_tokens": 1_500}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **thinking}
    headers = [*HEADERS.items(), *account.headers.items(), ("anthropic-beta", "other-2026-01-01")]

    too_small = await api.http.post("/v1/messages", json=body, headers=headers)
    headers.append(("anthropic-beta", "interleaved-thinking-2025-05-14"))
    enough = await api.http.post("/v1/messages", json=body, headers=headers)

    assert (too_small.status_code, enough.status_code) == (413, 200), enough.text


async def test_the_models_and_the_output_beside_the_answer_are_held(api: Api, provider: Provider) -> None:
    Streaming(provider, (529, {}))
    account = await api.books.account()
    assert await project(api.books, account, limits=PlanLimits(features=("advisor", "fallbacks")))
    advisor = {
        "type": "advisor_20260301",
        "name": "advisor",
        "model": "claude-opus-5",
        "max_uses": 1,
        "max_tokens": 600,
    }

    assert await ask(api, account, {"type": "text", "text": "hi"}, tools=[advisor]) == 200
    (row,) = await api.books.requests(account)
    assert row["held_output_tokens"] == 610
    assert row["held_nano_usd"] == row["held_prompt_tokens"] * 10_000 + 610 * 25_000
    (sent,) = [json.loads(one.body) for one in provider.requests if one.line.startswith("POST /v1/messages ")]
    assert sent["max_tokens"] == 10
    unknown = await ask(api, account, {"type": "text", "text": "hi"}, fallbacks=[{"model": "claude-none"}])
    assert unknown == 404


async def test_a_whole_answer_holds_no_memory_of_bodies_once_it_has_begun(
    api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, bodies = BodyAdmission.open, list[Body]()

    def noted(admission: BodyAdmission, scope: Scope, receive: Receive) -> Body:
        bodies.append(opened(admission, scope, receive))
        return bodies[-1]

    async def has_nothing() -> bool:
        return not bodies[0]._held

    monkeypatch.setattr(BodyAdmission, "open", noted)
    account = await api.books.account()
    stalled = Streaming(provider, (529, {}))
    stalled.may_end.clear()
    asked = asyncio.create_task(ask(api, account, {"type": "text", "text": "x" * 200_000}))
    async with asyncio.timeout(20):
        await stalled.begun.wait()
        await eventually(has_nothing)
    assert not asked.done()
    stalled.may_end.set()
    assert await asked == 200


@pytest.mark.slow
async def test_the_prompt_is_not_kept_while_its_answer_streams(api: Api, provider: Provider) -> None:
    account = await api.books.account()
    stalled = Streaming(provider, (529, {}))
    stalled.may_end.clear()
    asked = asyncio.create_task(ask(api, account, {"type": "text", "text": "x" * 200_000}, stream=True))
    async with asyncio.timeout(20):
        await stalled.begun.wait()
        await eventually(nothing_is_kept)
    assert not asked.done()
    stalled.may_end.set()
    assert await asked == 200


async def nothing_is_kept() -> bool:
    """Whether nothing refers to a prompt any more."""
    await asyncio.sleep(0.05)
    gc.collect()
    return not any(isinstance(one, Prompt) for one in gc.get_objects())


async def test_an_unanswered_search_bills_at_most_its_body(api: Api, provider: Provider) -> None:
    Streaming(provider, (529, {}))
    assert provider.server is not None
    provider.server.write = hang_up
    account = await api.books.account()
    assert await project(api.books, account, limits=PlanLimits(features=("web_search",)))
    search = {"type": "web_search_20250305", "name": "web_search"}

    assert await ask(api, account, {"type": "text", "text": "hi"}, tools=[search]) == 502
    (row,) = await api.books.requests(account)
    assert row["held_prompt_tokens"] == 10 * WINDOW
    assert 0 < row["input_tokens"] < 10_000


async def test_an_unanswered_request_is_counted_for_one_inference(api: Api, provider: Provider) -> None:
    Streaming(provider, (200, {"input_tokens": 20}))
    assert provider.server is not None
    usual = provider.write

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        await (usual if request.counts else hang_up)(request, writer)

    provider.server.write = write
    account = await api.books.account()
    assert await project(api.books, account, limits=PlanLimits(features=("fallbacks",)))
    fallbacks = [{"model": "claude-sonnet-4-6"}]

    assert await ask(api, account, {"type": "text", "text": "hi"}, fallbacks=fallbacks) == 502
    (row,) = await api.books.requests(account)
    assert row["input_tokens"] == 20


async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()
