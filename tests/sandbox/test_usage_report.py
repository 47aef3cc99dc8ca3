"""The simulated Admin API: the ledger by day and model; and our client of it, which is bounded and polite."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from api.services.usage.anthropic_admin import AnthropicAdmin, ReportUnavailable
from metering.reconciliation.provider_usage import Reported
from tests.sandbox.test_anthropic import HEADERS, KEY, chat, order, server

PATH = "/v1/organizations/usage_report/messages"
ADMIN = {"x-api-key": f"admin-{KEY}", "anthropic-version": "2023-06-01"}
Json = dict[str, Any]


def today() -> date:
    """The day of now, which may be another than when the run began."""
    return datetime.now(UTC).date()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server("--pace-ms", "0") as (_, address):
        yield address


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=10) as client:
        await client.delete("/_sim/ledger")
        yield client


@asynccontextmanager
async def organization(url: str, key: str = ADMIN["x-api-key"]) -> AsyncIterator[AnthropicAdmin]:
    made = AnthropicAdmin(url, SecretStr(key))
    yield made
    await made.close()


def around(**changed: Any) -> dict[str, Any]:
    """Yesterday to tomorrow, by model."""
    first, after = today() - timedelta(days=1), today() + timedelta(days=2)
    return {"starting_at": f"{first}T00:00:00Z", "ending_at": f"{after}T00:00:00Z", "group_by[]": "model"} | changed


async def test_the_report_is_the_ledger(url: str, http: httpx2.AsyncClient) -> None:
    for script, model in (
        (
            {"words": 20, "cache_read_input_tokens": 5, "cache_creation_5m": 7, "cache_creation_1h": 11},
            "claude-haiku-5-5",
        ),
        ({"words": 30}, "claude-sonnet-4-6"),
        ({"words": 9, "model": "claude-sonnet-5"}, "claude-sonnet-4-6"),
        ({"words": 3, "end_after": 1}, "claude-sonnet-4-6"),
        ({"refusal": "empty"}, "claude-sonnet-4-6"),
        ({"status": 529}, "claude-sonnet-4-6"),
    ):
        body = chat(order(**script)[1], stream=True, model=model)
        await http.post("/v1/messages", json=body, headers=HEADERS)
    items = (await http.get("/_sim/ledger")).json()["items"]
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_5m", "cache_creation_1h")
    expected: dict[str, tuple[int, ...]] = {}
    for item in items[:4]:
        had = expected.get(item["model"], (0,) * 6)
        expected[item["model"]] = (*(a + item[name] for a, name in zip(had, names, strict=False)), 0)
    assert set(expected) == {"claude-haiku-5-5", "claude-sonnet-4-6", "claude-sonnet-5"}
    async with organization(url) as client:
        reported = await client.usage(today() - timedelta(days=1), 3)
    assert {entry.model: entry.counts for entry in reported} == expected
    whole = (await http.get(PATH, params={"starting_at": f"{today()}T00:00:00Z"}, headers=ADMIN)).json()
    results = [result for bucket in whole["data"] for result in bucket["results"]]
    assert {result["model"] for result in results} == {None}


async def test_it_comes_in_pages(http: httpx2.AsyncClient, url: str) -> None:
    await http.post("/v1/messages", json=chat(order(words=4)[1]), headers=HEADERS)
    asked = around(starting_at=f"{today() - timedelta(days=9)}T13:14:15+05:30", limit=4)
    days, page = list[str](), None
    for more in (True, True, False):
        answer = (await http.get(PATH, params=asked | ({"page": page} if page else {}), headers=ADMIN)).json()
        days += [bucket["starting_at"][:10] for bucket in answer["data"]]
        page = answer["next_page"]
        assert (answer["has_more"], page is not None) == (more, more)
    assert days == [str(today() + timedelta(days=by)) for by in range(-9, 2)]
    async with organization(url) as client:
        (entry,) = await client.usage(today() - timedelta(days=70), 72)
    assert entry.counts[1] == 4


@pytest.mark.parametrize(
    ("changed", "status", "word"),
    [
        ({"starting_at": "x"}, 400, "starting_at"),
        ({"ending_at": "2001-01-01T00:00:00Z"}, 400, "ending_at"),
        ({"bucket_width": "1h"}, 400, "bucket_width"),
        ({"group_by[]": "api_key_id"}, 400, "group_by"),
        ({"limit": "32"}, 400, "limit"),
        ({"limit": "0"}, 400, "limit"),
        ({"page": "page_x"}, 400, "page"),
        ({"page": "page_MjAwMS0wMS0wMQ=="}, 400, "page"),
        ({"models[]": "a"}, 400, "models"),
    ],
)
async def test_what_it_refuses(http: httpx2.AsyncClient, changed: Json, status: int, word: str) -> None:
    answer = await http.get(PATH, params=around(**changed), headers=ADMIN)
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]


async def test_the_ordinary_key_is_refused(http: httpx2.AsyncClient, url: str) -> None:
    answer = await http.get(PATH, params=around(), headers={**ADMIN, "x-api-key": KEY})
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    async with organization(url, KEY) as client:
        with pytest.raises(ReportUnavailable, match="401") as refused:
            await client.usage(today(), 1)
    assert KEY not in str(refused.value)


# ------------------------------------------------------------------------------------------- our client


class Scripted:
    """A server that gives these answers, one after the other and the last for ever: (status, headers, body)."""

    def __init__(self, *answers: tuple[int, str, bytes]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status:
            writer.write(f"HTTP/1.1 {status} x\r\n{headers}connection: close\r\n".encode())
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()
        await writer.wait_closed()


SEARCHED = {"web_search_requests": 1, "another": 5}


def page(day: str, tokens: int, next_page: str | None = None) -> bytes:
    result = {"model": "claude-x", "output_tokens": tokens, "an_unknown_field": [1], "server_tool_use": SEARCHED}
    bucket = {"starting_at": f"{day}T00:00:00Z", "ending_at": "", "results": [result]}
    return json.dumps({"data": [bucket], "has_more": bool(next_page), "next_page": next_page}).encode()


async def ask(*answers: tuple[int, str, bytes]) -> tuple[list[Reported], Scripted]:
    server = Scripted(*answers)
    async with server.serving() as url, organization(url) as client:
        return await client.usage(today(), 1), server


async def test_it_comes_back_when_it_is_told_to_and_follows_pages() -> None:
    day = "2026-11-20"
    begun = time.monotonic()
    reported, server = await ask(
        (429, "retry-after: 0.3\r\n", b""), (200, "", page(day, 3, "p 2")), (0, "", b""), (200, "", page(day, 4))
    )
    assert time.monotonic() - begun >= 0.3
    assert [(entry.day.isoformat(), entry.model, entry.counts) for entry in reported] == [
        (day, "claude-x", (0, 7, 0, 0, 0, 2))
    ]
    assert ["page=p" in request for request in server.asked] == [False, False, True, True]
    assert f"x-api-key: {ADMIN['x-api-key']}" in server.asked[0]
    assert "group_by%5B%5D=model" in server.asked[0] or "group_by[]=model" in server.asked[0]


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ((401, "", b"{}"), 1),
        ((429, "retry-after: 3600\r\n", b""), 1),
        ((503, "retry-after: 0.01\r\n", b""), 4),
        ((200, "", b"<html>"), 1),
        ((200, "", b'{"data": [{"results": 3}]}'), 1),
        ((200, "", page("2026-11-20", 1, "again")), 200),
        ((200, "", b" " * 17_000_000), 1),
    ],
)
async def test_it_gives_up(answer: tuple[int, str, bytes], asked: int) -> None:
    server = Scripted(answer)
    async with server.serving() as url, organization(url) as client:
        with pytest.raises(ReportUnavailable) as gave_up:
            await client.usage(today(), 1)
    assert len(server.asked) == asked
    assert ADMIN["x-api-key"] not in str(gave_up.value)
