"""The WebSocket on `/chat`: who may open it, several questions on one, and what a client may not do."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from core.tenancy.principal import Scope
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import Account, Api, Books, Simulator, client, scripted
from tests.journeys.callers import eventually, served
from tests.raw_connection import RawConnection

FRONTEND = "http://localhost:3000"
WAIT_S = 20


@asynccontextmanager
async def dial(
    api: Api, account: Account | None = None, *, path: str = "/chat", **how: Any
) -> AsyncIterator[ClientConnection]:
    """Opens a WebSocket, with the account's key in `Authorization`."""
    headers = {} if account is None else account.headers
    headers = headers | how.pop("headers", {})
    url = f"ws://127.0.0.1:{api.port}{path}"
    async with connect(url, additional_headers=headers, proxy=None, open_timeout=WAIT_S, **how) as socket:
        yield socket


async def ask(socket: ClientConnection, message: str = "hello", **more: Any) -> list[dict[str, Any]]:
    """Asks a question and returns the frames of its answer."""
    await socket.send(json.dumps({"message": message, **more}))
    return await answer(socket)


async def answer(socket: ClientConnection) -> list[dict[str, Any]]:
    """The frames until the end of an answer."""
    frames = list[dict[str, Any]]()
    async with asyncio.timeout(WAIT_S):
        while not frames or frames[-1].keys() <= {"text"}:
            frames.append(json.loads(await socket.recv()))
    return frames


async def refusal(api: Api, account: Account | None = None, **how: Any) -> tuple[int, dict[str, Any]]:
    """The status and the problem that a handshake is refused with."""
    with pytest.raises(InvalidStatus) as refused:
        async with dial(api, account, **how):
            pass
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.body)
    assert problem["request_id"] == response.headers["x-request-id"]
    return response.status_code, problem


async def closed(socket: ClientConnection) -> tuple[int | None, str]:
    """The code and the reason that the server closes with."""
    async with asyncio.timeout(WAIT_S):
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
        await socket.wait_closed()
    return socket.close_code, socket.close_reason or ""


async def test_several_questions_on_one_connection_are_several_requests(api: Api, books: Books) -> None:
    account = await books.account()
    async with dial(api, account) as socket:
        assert socket.response is not None
        for text in ("One.", " two\r\n😀 ", "three"):
            assert await ask(socket, scripted(pieces=[text])) == [{"text": text}, {"done": True}]
            assert len([row for row in await books.requests(account) if row["state"] == "settled"]) > 0
        assert (await ask(socket, ""))[0]["error"]["code"] == "invalid_request"
        assert (await ask(socket, "still here"))[-1] == {"done": True}
    rows = await books.settled(account, 4)
    assert {row["outcome"] for row in rows} == {"completed"}


async def test_questions_that_come_early_are_answered_in_their_order(api: Api, books: Books) -> None:
    account = await books.account(limits=LimitSet((), concurrency=1))
    async with dial(api, account) as socket:
        for number in range(4):
            await socket.send(json.dumps({"message": scripted(pieces=[f"{number}"], first_delay_ms=50)}))
        for number in range(4):
            assert await answer(socket) == [{"text": f"{number}"}, {"done": True}]


async def test_too_many_early_questions_close_the_connection(api: Api, books: Books, simulator: Simulator) -> None:
    account = await books.account()
    async with dial(api, account) as socket:
        ref = account.key_id.hex
        await socket.send(json.dumps({"message": scripted(ref=ref, stall_after=1, pieces=["a", "b"])}))
        await served(simulator, ref, ended=False)
        for _ in range(12):
            await socket.send(json.dumps({"message": "impatient"}))
        assert await closed(socket) == (1008, "Ask one question at a time.")
    (row,) = await books.settled(account, 1)
    assert row["outcome"] == "client_gone"


async def test_the_usage_of_an_answer_is_told_if_asked_for(api: Api, books: Books) -> None:
    account = await books.account()
    async with dial(api, account, path="/chat?usage=1") as socket:
        end = (await ask(socket))[-1]
    (row,) = await books.settled(account, 1)
    assert end == {
        "done": True,
        "request_id": str(row["id"]),
        "model": row["model"],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "cache_read_tokens": 0,
            "cache_write_5m_tokens": 0,
            "cache_write_1h_tokens": 0,
            "source": "final",
        },
    }


async def test_a_browser_says_who_it_is_by_a_subprotocol_or_its_first_frame(api: Api, books: Books) -> None:
    account = await books.account()
    offered = ["naka", f"naka.bearer.{account.key}"]
    async with dial(api, subprotocols=offered, origin=FRONTEND) as socket:
        assert socket.subprotocol == "naka", "and never the key"
        assert (await ask(socket))[-1] == {"done": True}
    async with dial(api, origin=FRONTEND) as socket:
        await socket.send(json.dumps({"authorization": f"Bearer {account.key}"}))
        assert (await ask(socket))[-1] == {"done": True}
        assert (await ask(socket))[-1] == {"done": True}
    assert len(await books.settled(account, 3)) == 3


@pytest.mark.parametrize(
    "first",
    [
        '{"authorization": "Bearer nk_live_wrong"}',
        '{"authorization": "Bearer "}',
        '{"authorization": "Bearer \\ud83d\\u0000"}',
        '{"authorization": 3}',
        '{"message": "hello"}',
        "[" * 9000,
        "",
    ],
)
async def test_a_first_frame_without_a_valid_key_is_refused(api: Api, first: str) -> None:
    async with dial(api, origin=FRONTEND) as socket:
        await socket.send(first)
        (frame,) = await answer(socket)
        assert (frame["error"]["status"], frame["error"]["code"]) == (401, "unauthenticated")
        assert (await closed(socket))[0] == 1008


async def test_a_stranger_may_send_a_small_frame_only(api: Api) -> None:
    async with dial(api) as socket:
        await socket.send("x" * 20_000)
        assert (await closed(socket))[0] == 1009


async def test_a_handshake_is_refused_with_a_problem(api: Api, books: Books) -> None:
    account = await books.account()
    reader = await books.account(scopes=[Scope.USAGE_READ])
    status, problem = await refusal(api, account, origin="http://evil.example")
    assert (status, problem["code"]) == (403, "origin_not_allowed")
    status, problem = await refusal(api, headers={"authorization": "Bearer nk_live_wrong"})
    assert (status, problem["code"]) == (401, "unauthenticated")
    status, problem = await refusal(api, subprotocols=["naka", "naka.bearer.nk_live_wrong"])
    assert (status, problem["code"]) == (401, "unauthenticated")
    status, problem = await refusal(api, account, headers={"x-api-key": "another"})
    assert (status, problem["code"]) == (401, "unauthenticated")
    status, problem = await refusal(api, reader)
    assert (status, problem["code"]) == (403, "forbidden")


async def test_a_key_in_the_url_is_no_key(api: Api, books: Books) -> None:
    account = await books.account()
    query = f"?key={account.key}&token={account.key}&authorization=Bearer%20{account.key}&access_token={account.key}"
    async with dial(api, path=f"/chat{query}") as socket:
        assert (await ask(socket))[0]["error"]["code"] == "unauthenticated"
    assert account.key not in api.log.read_text()


async def test_a_session_is_good_for_our_own_pages_only(api: Api, books: Books) -> None:
    account = await books.account()
    ours = f"http://127.0.0.1:{api.port}"
    async with client(api.url) as http:
        made = await http.post("/sign-in", data={"key": account.key}, headers={"origin": ours})
    cookie = {"cookie": f"naka_session={made.cookies['naka_session']}"}

    async with dial(api, headers=cookie, origin=ours) as socket:
        assert (await ask(socket))[-1] == {"done": True}
    status, problem = await refusal(api, headers=cookie)
    assert (status, problem["code"]) == (403, "forbidden"), "no page, so no origin"
    async with dial(api, headers=cookie, origin=FRONTEND) as socket:
        assert (await ask(socket))[0]["error"]["code"] == "unauthenticated", "its cookie is not read"


async def test_refusals_are_frames_and_the_connection_stays(api: Api, books: Books) -> None:
    account = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.DAY, 1),)))
    modest = await books.account(models=["claude-haiku-4-5"])
    async with dial(api, account) as socket:
        assert (await ask(socket))[-1] == {"done": True}
        (frame,) = await ask(socket)
        assert (frame["error"]["status"], frame["error"]["code"]) == (429, "limit_reached")
        assert 0 < frame["retry_after_s"] <= 86_400
        (frame,) = await ask(socket, model="claude-moon")
        assert (frame["error"]["status"], frame["error"]["code"]) == (422, "unknown_model")
        await socket.send("no json")
        assert (await answer(socket))[0]["error"]["code"] == "invalid_request"
    async with dial(api, modest) as socket:
        (frame,) = await ask(socket)
        assert (frame["error"]["status"], frame["error"]["code"]) == (403, "forbidden")


async def test_a_revoked_key_opens_nothing_more(api: Api, books: Books) -> None:
    admin = await books.account(scopes=[Scope.TENANT_ADMIN])
    account = await books.account(tenant_id=admin.tenant_id)
    async with dial(api, account) as socket:
        assert (await ask(socket))[-1] == {"done": True}
        async with client(api.url) as http:
            assert (await http.delete(f"/v1/admin/keys/{account.key_id}", headers=admin.headers)).status_code == 204
        assert (await ask(socket))[-1]["error"]["code"] == "unauthenticated"
    assert len(await books.requests(account)) == 1


async def test_a_large_question_is_taken_and_a_larger_one_is_not(api: Api, books: Books) -> None:
    async with dial(api, await books.account()) as socket:
        for _ in range(3):
            assert (await ask(socket, "x" * 900_000))[-1] == {"done": True}
        await socket.send("x" * 1_000_001)
        assert (await closed(socket))[0] == 1009
    async with dial(api, await books.account()) as socket:
        await socket.send(b"{}")
        assert await closed(socket) == (1003, "Send text frames.")


@pytest.mark.slow
async def test_room_for_large_questions_is_shared_with_bodies(start_api: Callable[..., Api], books: Books) -> None:
    api = start_api(REQUEST_BODIES_MAX_BYTES="1200000", REQUEST_BODY_MAX_BYTES="1000000")
    begun, rest = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[str]:
        yield '{"message": "' + "x" * 600_000
        begun.set()
        await rest.wait()
        yield '"}'

    async with dial(api, await books.account()) as first:
        sending = asyncio.create_task(first.send(slowly()))
        await begun.wait()
        await asyncio.sleep(0.5)
        async with dial(api, await books.account()) as second:
            await second.send("x" * 900_000)
            assert (await closed(second))[0] == 1013
        rest.set()
        await sending
        assert (await answer(first))[-1] == {"done": True}

    async def in_parts() -> AsyncIterator[str]:
        yield '{"message": "'
        for _ in range(9):
            await asyncio.sleep(0.02)
            yield "x" * 100_000
        yield '"}'

    async with dial(api, await books.account()) as third:  # alone it has all, as a body of a declared length has
        await third.send(in_parts())
        assert (await answer(third))[-1] == {"done": True}


@pytest.mark.parametrize("is_reset", [False, True], ids=["close", "reset"])
async def test_a_client_that_leaves_ends_its_answer(
    api: Api, books: Books, simulator: Simulator, *, is_reset: bool
) -> None:
    account = await books.account()
    ref = account.key_id.hex
    async with dial(api, account) as socket:
        await socket.send(json.dumps({"message": scripted(ref=ref, pieces=["one ", "two ", "three"], stall_after=2)}))
        assert [json.loads(await socket.recv()) for _ in range(2)] == [{"text": "one "}, {"text": "two "}]
        if is_reset:
            socket.transport.abort()
    entry = await served(simulator, ref, ended=True)
    (row,) = await books.settled(account, 1)
    assert (row["outcome"], row["output_tokens"]) == ("client_gone", entry["output_tokens"])


@pytest.mark.slow
async def test_a_stop_closes_idle_connections_and_lets_answers_end(start_api: Callable[..., Api], books: Books) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="0", SHUTDOWN_GRACE_S="20")
    busy, idle = await books.account(), await books.account()
    async with dial(api, busy) as running, dial(api, idle) as waiting, dial(api) as stranger:
        await running.send(json.dumps({"message": scripted(pieces=["a ", "b"], piece_delay_ms=1500)}))
        assert json.loads(await running.recv()) == {"text": "a "}
        api.process.send_signal(signal.SIGTERM)
        assert (await closed(waiting))[0] == 1012
        assert (await closed(stranger))[0] == 1012
        assert await answer(running) == [{"text": "b"}, {"done": True}]
        assert (await closed(running))[0] == 1012
    assert await asyncio.to_thread(api.process.wait, 10) == 0
    (row,) = await books.settled(busy, 1)
    assert row["outcome"] == "completed"


@pytest.mark.slow
async def test_connections_count_towards_the_limit_until_they_end(start_api: Callable[..., Api], books: Books) -> None:
    api = start_api(CLIENT_MAX_CONNECTIONS="3")
    account = await books.account()
    async with dial(api, account), dial(api, account), dial(api, account):
        with pytest.raises((InvalidStatus, EOFError, OSError, ConnectionClosed)):
            async with dial(api, account):
                pass

    async def has_room() -> bool:
        async with client(api.url) as http:
            try:
                return (await http.get("/healthz")).status_code == 200
            except httpx2.TransportError:
                return False

    await eventually(has_room)
    for _ in range(5):  # none of those that ended still counts
        async with dial(api, account) as socket:
            assert (await ask(socket))[-1] == {"done": True}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /chat", 400),
        ("GET /v1/messages", 405),
        ("GET /healthz", 200),
        ("GET /chat/ui", 405),
        ("POST /chat", 401),
    ],
)
async def test_an_upgrade_that_is_none_is_answered_as_http(api: Api, line: str, status: int) -> None:
    key = "" if "GET /chat" in line else "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    head = f"{line} HTTP/1.1\r\nhost: naka\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n"
    connection = await RawConnection.open(api.port, head.encode())
    try:
        reply = await connection.reply()
    finally:
        await connection.close()
    assert reply.status == status


async def test_a_handshake_with_a_long_header_is_refused(api: Api) -> None:
    status, problem = await refusal(api, headers={"x-long": "y" * 20_000})
    assert (status, problem["code"]) == (400, "bad_request")
