"""The contract of `POST /chat` on the wire: every character, the head, the order, the pace."""

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.answers import parse_sse
from tests.harness import Api, Books, Simulator, chat, client, scripted
from tests.journeys.test_strange_upstream import FINAL, OK, START, STOP, TEXT
from tests.raw_provider import Request, raw_provider

CHARACTERS = st.one_of(
    st.sampled_from("\r\n \t\ufeff\x00\u2028:"),
    st.sampled_from("🧾👩‍👩‍👧é₹"),
    st.characters(exclude_categories=["Cs"]),
)
DEFAULT_SYSTEM = "You are a concise assistant."
COMMENT = b": keep-alive\n\n"
FRONTEND = "http://localhost:3000"
STRANGER = "https://evil.example"


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.text(CHARACTERS, max_size=20), max_size=8),
    shape=st.fixed_dictionaries({"chunk_bytes": st.integers(0, 7), "crlf": st.booleans(), "coalesce": st.booleans()}),
    odd=st.booleans(),
)
@example(pieces=["a\r", "", "\nb", "\r"], shape={"chunk_bytes": 1}, odd=False)
@example(pieces=["  two blanks", "\n\n\nlines\n", "\ufeff", ": c", "data: d", "\x00"], shape={}, odd=True)
@example(pieces=["🧾" * 200], shape={"chunk_bytes": 3}, odd=False)
@example(pieces=["long lines \r\n" * 200] * 2, shape={"coalesce": True}, odd=False)
async def test_any_text_arrives_whole(
    http: httpx2.AsyncClient, books: Books, pieces: list[str], shape: dict[str, Any], *, odd: bool
) -> None:
    account = await books.account()

    answer = await chat(http, account, scripted(pieces=pieces, unknown_events=odd, pings=odd, **shape))

    assert answer.text == "".join(pieces).replace("\r\n", "\n").replace("\r", "\n")
    assert answer.done
    (row,) = await books.requests(account)
    assert (row["outcome"], row["output_chars"]) == ("completed", len("".join(pieces)))


async def test_the_head_is_exactly_this(http: httpx2.AsyncClient, books: Books) -> None:
    account = await books.account()

    answer = await chat(http, account)

    (row,) = await books.requests(account)
    (date,) = answer.headers.get_list("date")
    assert sorted(answer.headers.multi_items()) == [
        ("cache-control", "no-cache, no-transform"),
        ("content-type", "text/event-stream; charset=utf-8"),
        ("date", date),
        ("transfer-encoding", "chunked"),
        ("vary", "Origin"),
        ("x-accel-buffering", "no"),
        ("x-request-id", str(row["id"])),
    ]


async def test_done_is_the_last_word_of_a_whole_answer(http: httpx2.AsyncClient, books: Books) -> None:
    answer = await chat(http, await books.account(), scripted(pieces=["a", "b"]))

    assert answer.raw == b"data: a\n\ndata: b\n\nevent: done\ndata: \n\n"


@pytest.mark.parametrize("fault", ["end_after", "cut_after", "error_after", "bad_json_after"])
async def test_a_broken_answer_ends_with_an_error_and_is_never_done(
    http: httpx2.AsyncClient, books: Books, fault: str
) -> None:
    answer = await chat(http, await books.account(), scripted(pieces=["a", "b", "c"], **dict[str, Any]({fault: 2})))

    events = parse_sse(answer.raw)
    assert [name for name, _ in events] == ["message", "message", "error"]
    assert answer.error is not None
    assert answer.error["request_id"] == answer.headers["x-request-id"]
    assert answer.pieces == ["a", "b"]
    assert not answer.done


@pytest.mark.parametrize(
    ("body", "system_len"),
    [
        ({}, len(DEFAULT_SYSTEM)),
        ({"system": None}, len(DEFAULT_SYSTEM)),
        ({"system": "Speak Tamil. தமிழ்"}, len("Speak Tamil. தமிழ்")),
        ({"system": ""}, 0),
        ({"system": " \n\t"}, 0),
        ({"temperature": 9, "stream": False, "messages": [], "max_tokens": "all"}, len(DEFAULT_SYSTEM)),
    ],
)
async def test_what_the_provider_is_asked(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator, body: dict[str, Any], system_len: int
) -> None:
    account = await books.account()

    answer = await chat(http, account, scripted(ref=account.key_id.hex), **body)

    assert answer.done
    (asked,) = simulator.ledger(account.key_id.hex)
    assert asked["system_len"] == system_len
    assert (asked["model_asked"], asked["max_tokens"], asked["stream"]) == ("claude-sonnet-4-6", 2048, True)


async def test_connections_are_kept_on_both_sides(api: Api, books: Books, simulator: Simulator) -> None:
    account = await books.account()
    clients, upstreams = set(), []
    async with client(api.url) as http:
        for number in range(6):
            async with http.stream("POST", "/chat", json={"message": f"{number}"}, headers=account.headers) as response:
                clients.add(response.extensions["network_stream"].get_extra_info("client_addr"))
                assert b"event: done" in await response.aread()
            upstreams.append(_connections(simulator))

    assert len(clients) == 1
    assert len(set(upstreams)) == 1


@pytest.mark.slow
async def test_the_end_of_the_upstream_may_arrive_after_done(start_api: Callable[..., Api], books: Books) -> None:
    """Its connection is kept, too, and `done` does not wait for it."""
    upstreams, was_read = set(), asyncio.Event()

    async def end_late(_: Request, writer: asyncio.StreamWriter) -> None:
        upstreams.add(writer.get_extra_info("peername"))
        body = f"{START}{TEXT}{FINAL}{STOP}".encode()
        writer.write(f"{OK}transfer-encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n")
        await was_read.wait()
        writer.write(b"0\r\n\r\n")

    account = await books.account()
    async with raw_provider(end_late) as provider:
        api = await asyncio.to_thread(start_api, ANTHROPIC_BASE_URL=provider.url)
        async with client(api.url) as http:
            for _ in range(3):
                was_read.clear()
                assert (await chat(http, account)).done
                await asyncio.sleep(0.05)
                was_read.set()
                await asyncio.sleep(0.1)

    assert len(upstreams) == 1


async def test_a_preflight_of_the_frontend_is_allowed(http: httpx2.AsyncClient) -> None:
    answer = await _preflight(http, FRONTEND)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == FRONTEND
    assert "POST" in answer.headers["access-control-allow-methods"].split(", ")
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "content-type", "x-api-key"} <= set(allowed)
    assert answer.headers["access-control-max-age"] == "600"


async def test_a_preflight_of_a_stranger_is_not(http: httpx2.AsyncClient) -> None:
    answer = await _preflight(http, STRANGER)

    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


async def test_only_the_frontend_may_read_an_answer(http: httpx2.AsyncClient, books: Books) -> None:
    headers = (await books.account()).headers
    ours = await http.post("/chat", json={"message": "hi"}, headers=headers | {"origin": FRONTEND})
    refused = await http.post("/chat", json={"message": "hi"}, headers={"origin": FRONTEND})
    theirs = await http.post("/chat", json={"message": "hi"}, headers=headers | {"origin": STRANGER})

    assert (ours.status_code, refused.status_code, theirs.status_code) == (200, 401, 200)
    for answer in (ours, refused):
        assert answer.headers["access-control-allow-origin"] == FRONTEND
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-origin" not in theirs.headers


@pytest.mark.slow
async def test_silence_is_broken_by_comments(start_api: Callable[..., Api], books: Books) -> None:
    quiet = scripted(pieces=["a\r", "\nb"], first_delay_ms=1300, piece_delay_ms=1000)
    async with client(start_api(CHAT_KEEPALIVE_S="0.4").url) as http:
        answer = await chat(http, await books.account(), quiet)

    before, between = answer.raw.split(b"data: a\n\n")
    assert before in (COMMENT * 2, COMMENT * 3)
    assert between.count(COMMENT) in (1, 2)
    assert between.replace(COMMENT, b"") == b"data: \ndata: b\n\nevent: done\ndata: \n\n"
    assert answer.text == "a\nb"


@pytest.mark.slow
async def test_the_first_words_do_not_wait_for_the_next(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    slow = scripted(pieces=["one ", "two ", "three"], first_delay_ms=0, piece_delay_ms=1500, ref=ref)

    said, arrived = [], []
    body = {"message": slow}
    async with http.stream("POST", "/chat", json=body, headers=account.headers) as response:
        async for chunk in response.aiter_raw():
            said.append(simulator.ledger(ref)[0]["pieces_sent"])
            arrived.append((chunk, time.monotonic()))

    assert [chunk for chunk, _ in arrived] == [
        b"data: one \n\n",
        b"data: two \n\n",
        b"data: three\n\n",
        b"event: done\ndata: \n\n",
    ]
    assert said == [1, 2, 3, 3]
    gaps = [after - before for (_, before), (_, after) in pairwise(arrived[:3])]
    assert min(gaps) > 1


async def test_the_head_does_not_wait_for_the_first_words(
    http: httpx2.AsyncClient, books: Books, simulator: Simulator
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    slow = {"message": scripted(pieces=["late"], first_delay_ms=3000, ref=ref)}

    async with http.stream("POST", "/chat", json=slow, headers=account.headers) as response:
        assert response.status_code == 200
        assert simulator.ledger(ref)[0]["pieces_sent"] == 0


async def test_rate_limit_headers_say_what_limits_says(http: httpx2.AsyncClient, books: Books) -> None:
    mine = (
        Limit(Meter.REQUESTS, WindowKind.MINUTE, 60),
        Limit(Meter.TOKENS, WindowKind.DAY, 100_000),
        Limit(Meter.SPEND, WindowKind.PERIOD, 5_000_000),
    )
    shared = (Limit(Meter.OUTPUT, WindowKind.DAY, 50_000),)
    account = await books.account(limits=LimitSet(mine), tenant_limits=LimitSet(shared, concurrency=9))
    assert (await chat(http, account, scripted(words=77))).done
    slow = {"message": scripted(first_delay_ms=20_000)}

    async with http.stream("POST", "/chat", json=slow, headers=account.headers) as response:
        standing = (await http.get("/v1/limits", headers=account.headers)).json()
        now = datetime.now(UTC)

    assert response.headers["ratelimit-policy"] == (
        '"user-requests-minute";q=60;w=60;qu="requests", "user-tokens-day";q=100000;w=86400;qu="tokens", '
        '"user-spend-period";q=5000000;qu="micro-usd", "tenant-output-tokens-day";q=50000;w=86400;qu="tokens"'
    )
    told = {
        name: (int(room), int(wait_s))
        for name, room, wait_s in re.findall(r'"([a-z-]+)";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    }
    assert response.headers["ratelimit"] == ", ".join(f'"{name}";r={r};t={t}' for name, (r, t) in told.items())
    assert len(told) == len(standing["windows"]) == 4
    for window in standing["windows"]:
        room, wait_s = told[f"{window['scope']}-{window['meter'].replace('_', '-')}-{window['window']}"]
        assert 0 < wait_s <= (60 if window["window"] == "minute" else 31 * 86_400)
        if window["window"] == "minute":
            continue  # it may have turned in between
        assert room == window["remaining"] < window["limit"]
        assert window["held"] > 0
        assert abs(wait_s - (datetime.fromisoformat(window["resets_at"]) - now).total_seconds()) < 5
    assert told["user-requests-minute"][0] in (58, 59)


async def test_without_limits_there_are_no_rate_limit_headers(http: httpx2.AsyncClient, books: Books) -> None:
    answer = await chat(http, await books.account())

    assert not {"ratelimit", "ratelimit-policy"} & set(answer.headers)


def _connections(simulator: Simulator) -> int:
    with urllib.request.urlopen(f"{simulator.url}/_sim/stats", timeout=30) as answer:
        connections: int = json.load(answer)["connections"]
        return connections


async def _preflight(http: httpx2.AsyncClient, origin: str) -> httpx2.Response:
    asks = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-api-key",
    }
    return await http.options("/chat", headers=asks)
