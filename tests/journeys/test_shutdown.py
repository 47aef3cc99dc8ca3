"""The process is told to stop: nothing that it admitted is lost or left open, and its exit code is 0."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.api.raw import JSON_TYPE, head, post
from tests.harness import Account, Api, Books, Simulator, running, scripted
from tests.journeys.callers import eventually
from tests.raw_connection import RawConnection, Reply

STALLED: dict[str, Any] = {"pieces": ["one ", "two ", "three"], "stall_after": 2}
SHUTTING_DOWN = "shutting_down"
NOBODY_RECOVERS = {"DEAD_AFTER_S": "600"}  # so that it is the process itself that leaves nothing
Dial = Callable[..., Awaitable[RawConnection]]


def ask(account: Account, **script: Any) -> bytes:
    """Returns a request to `/chat`; its `ref` is the key's."""
    return post(account, json.dumps({"message": scripted(ref=account.key_id.hex, **script)}).encode())


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Opens connections, closed at the end."""
    async with AsyncExitStack() as stack:

        async def dial(api: Api, data: bytes = b"", **options: int) -> RawConnection:
            connection = await RawConnection.open(api.port, data, **options)
            stack.push_async_callback(connection.close)
            return connection

        yield dial


async def ready(api: Api) -> Reply:
    """Returns the answer to a load balancer's probe."""
    connection = await RawConnection.open(api.port, head("GET /readyz"))
    try:
        return await connection.reply()
    finally:
        await connection.close()


async def is_red(api: Api) -> Reply | None:
    """Returns the probe's answer if it is unsuccessful."""
    answer = await ready(api)
    return answer if answer.status != 200 else None


async def is_closed(api: Api) -> bool:
    """Whether connections are refused."""
    try:
        await (await RawConnection.open(api.port)).close()
    except ConnectionError:
        return True
    return False


async def exit_code(api: Api, *, within_s: float = 10) -> int:
    """Returns the exit code."""
    return await asyncio.to_thread(api.process.wait, within_s)


async def assert_settled(books: Books, account: Account, count: int) -> list[Any]:
    """Asserts that the account has so many requests, all settled and accounted; returns their rows."""
    rows = await books.requests(account)
    assert [row["state"] for row in rows] == ["settled"] * count
    sums = await books.sums("usage_requests", account.tenant_id)
    assert await books.sums("usage_daily", account.tenant_id) == sums
    assert await books.sums("usage_meters", account.tenant_id) == sums
    return rows


@asynccontextmanager
async def locked(books: Books, account: Account, table: str) -> AsyncIterator[None]:
    """Locks the tenant's rows of the table."""
    async with books.connection() as keeper, keeper.transaction():
        await keeper.execute(f"SELECT FROM {table} WHERE tenant_id = $1 FOR UPDATE", account.tenant_id)
        yield


async def waits_for_lock(books: Books, lane: str) -> None:
    """Returns once that committer's connection waits."""
    query = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = $1 AND wait_event_type = 'Lock'"
    )

    async def look() -> Any:
        return await books.fetch(query, f"naka-{lane}")

    await eventually(look)


@pytest.mark.slow
async def test_a_balancer_sees_it_before_anything_is_refused(
    start_api: Callable[..., Api], books: Books, dial: Dial
) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="1", SHUTDOWN_GRACE_S="20")
    account = await books.account()
    long = await dial(api, ask(account, words=12, piece_delay_ms=250))
    used, idle = [await dial(api, head("GET /healthz")) for _ in range(2)]
    assert not (await used.reply()).is_last
    assert not (await idle.reply()).is_last
    await long.hears("data: ")

    told_at = time.monotonic()
    api.send(signal.SIGTERM)

    red = await eventually(lambda: is_red(api), within_s=0.5)
    assert red.status == 503
    assert red.json() == {"status": "not_ready", "postgres": True, "redis": True, "draining": True, "reason": None}
    for connection in (await dial(api), used):
        connection.send(ask(account, words=3))
        answer = await connection.reply()
        assert (answer.is_done, answer.is_last) == (True, True)
        assert await connection.rest() == b""
    assert not idle.is_over
    await eventually(lambda: is_closed(api), within_s=5)
    assert time.monotonic() - told_at >= 1
    assert await idle.rest() == b""
    assert (await long.rest()).endswith(b"event: done\ndata: \n\n\r\n0\r\n\r\n")
    assert await exit_code(api) == 0
    rows = await assert_settled(books, account, 3)
    assert {(row["outcome"], row["source"]) for row in rows} == {("completed", "final")}


@pytest.mark.slow
async def test_at_the_end_of_the_grace_what_runs_is_ended_and_settled(
    books: Books, simulator: Simulator, dial: Dial, story_environment: dict[str, str], run_folder: Path
) -> None:
    settings = {"SHUTDOWN_DRAIN_S": "0", "SHUTDOWN_GRACE_S": "0.3", "CHAT_MAX_TOKENS": "100000", **NOBODY_RECOVERS}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        made = Api(story_environment | settings, run_folder / "test_grace.log", listener=listener)
    with running(made) as api:
        streams, silent, deaf, slow, late = [await books.account() for _ in range(5)]
        uploading = [
            await dial(api, ask(slow)[:-5]),
            await dial(api, head("POST /v1/admin/tenants", f"x-api-key: {slow.key}", JSON_TYPE, "content-length: 100")),
        ]
        streaming = await dial(api, ask(streams, **STALLED))
        before_head = await dial(api, ask(silent, head_delay_ms=60_000))
        await dial(api, ask(deaf, words=80_000), receive_bytes=4096)
        reads_late = await dial(api, ask(late, words=80_000), receive_bytes=4096)
        await streaming.hears("data: two \n\n")
        for account in (deaf, late):
            await stuck(books, simulator, account)

        api.send(signal.SIGTERM)

        for connection in (*uploading, before_head):
            assert_come_again(await connection.reply())
        assert SHUTTING_DOWN.encode() in (last := await streaming.rest()), last
        await asyncio.sleep(0.3)  # it is waited for, if not for long
        assert SHUTTING_DOWN.encode() in (last := await reads_late.rest()), last[-200:]
        assert await exit_code(api) == 0

    await assert_settled(books, slow, 0)
    for account in (streams, deaf, late):
        (row,) = await assert_settled(books, account, 1)
        (served,) = simulator.ledger(account.key_id.hex)
        assert (row["outcome"], row["requests"], row["input_tokens"]) == ("shutdown", 1, served["input_tokens"])
    (row,) = await assert_settled(books, silent, 1)
    assert (row["outcome"], row["requests"], row["source"]) == ("shutdown", 1, "estimated")
    (served,) = simulator.ledger(silent.key_id.hex)
    assert (row["input_tokens"], row["output_tokens"]) == (served["input_tokens"], 0)


@pytest.mark.slow
async def test_what_waits_for_postgres_at_the_end_is_settled_too(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, dial: Dial
) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="0", SHUTDOWN_GRACE_S="0.3", **NOBODY_RECOVERS)
    waits, opens = [await books.account() for _ in range(2)]
    whole = await dial(api, ask(waits, words=5, first_delay_ms=1500))
    await whole.hears("x-request-id")
    async with locked(books, waits, "usage_requests"), locked(books, opens, "api_keys"):
        opening = await dial(api, ask(opens))
        await waits_for_lock(books, "open")
        await waits_for_lock(books, "settle")

        api.send(signal.SIGTERM)

        assert_come_again(await opening.reply())
    assert await exit_code(api) == 0

    (row,) = await assert_settled(books, waits, 1)
    (served,) = simulator.ledger(waits.key_id.hex)
    assert (row["outcome"], row["source"]) == ("completed", "final")
    assert (row["input_tokens"], row["output_tokens"]) == (served["input_tokens"], served["output_tokens"])
    (row,) = await assert_settled(books, opens, 1)
    assert (row["requests"], row["input_tokens"], row["output_tokens"], row["cost_nano_usd"]) == (1, 0, 0, 0)
    assert simulator.ledger(opens.key_id.hex) == []


def assert_come_again(answer: Reply) -> None:
    """It was refused because the process stops, in the one shape."""
    assert (answer.status, answer.json()["code"], answer.is_last) == (503, SHUTTING_DOWN, True)
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def stuck(books: Books, simulator: Simulator, account: Account) -> None:
    """Returns once the provider has said all of the account's answer, which is stuck in between."""

    async def look() -> bool:
        rows = await asyncio.to_thread(simulator.ledger, account.key_id.hex)
        return [row["state"] for row in rows] == ["completed"]

    await eventually(look)
    await asyncio.sleep(0.2)
    assert [row["state"] for row in await books.requests(account)] == ["open"]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "when"), [("TERM", "INT", "drain"), ("INT", "TERM", "grace")])
async def test_a_second_signal_hurries(
    start_api: Callable[..., Api], books: Books, dial: Dial, first: str, second: str, when: str
) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="60" if when == "drain" else "0", SHUTDOWN_GRACE_S="600")
    account = await books.account()
    connection = await dial(api, ask(account, **STALLED))
    await connection.hears("data: two")
    api.send(signal.Signals[f"SIG{first}"])
    await eventually(lambda: is_red(api) if when == "drain" else is_closed(api))

    api.send(signal.Signals[f"SIG{second}"])

    assert b"event: done" not in await connection.rest()
    assert await exit_code(api, within_s=5) == 0
    (row,) = await assert_settled(books, account, 1)
    assert (row["outcome"], row["requests"], row["output_chars"]) == ("shutdown", 1, len("one two "))


@pytest.mark.slow
async def test_a_connection_accepted_in_the_last_moment_gets_its_answer(
    start_api: Callable[..., Api], books: Books, dial: Dial
) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="0.1", SHUTDOWN_GRACE_S="20")
    account = await books.account()
    request = ask(account, words=3)
    fresh, half = await dial(api), await dial(api, request[:40])

    api.send(signal.SIGTERM)
    await eventually(lambda: is_closed(api))
    await asyncio.sleep(0.3)  # an idle connection would be gone by now
    fresh.send(request)
    half.send(request[40:])

    for connection in (fresh, half):
        answer = await connection.reply()
        assert (answer.is_done, answer.is_last) == (True, True)
    assert await exit_code(api) == 0
    await assert_settled(books, account, 2)


async def test_after_the_grace_a_request_is_told_to_come_again(
    start_api: Callable[..., Api], books: Books, dial: Dial
) -> None:
    api = start_api(SHUTDOWN_DRAIN_S="0.1", SHUTDOWN_GRACE_S="0")
    account = await books.account()
    streaming = await dial(api, ask(account, **STALLED))
    await streaming.hears("data: two")
    fresh = await dial(api)

    async with locked(books, account, "usage_requests"):
        api.send(signal.SIGTERM)
        await waits_for_lock(books, "settle")
        fresh.send(ask(account))
        answer = await fresh.reply()

    assert_come_again(answer)
    assert b"event: done" not in await streaming.rest()
    assert await exit_code(api) == 0
    await assert_settled(books, account, 1)
