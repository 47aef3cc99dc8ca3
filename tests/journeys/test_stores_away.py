"""Postgres down: nothing is admitted, and valid keys are not called invalid. Redis down: all works. Both recover."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.answers import Answer
from tests.harness import Account, Api, Books, Simulator, chat, client, environment, running, scripted

pytestmark = pytest.mark.chaos
LIMITS = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 1_000_000),))


@pytest.fixture
def postgres(private_postgres: Callable[..., Postgres]) -> Postgres:
    server = private_postgres()
    servers.migrated(server.url)
    return server


@pytest.fixture
def valkey(private_valkey: Callable[..., Valkey]) -> Valkey:
    return private_valkey(appendonly="no")


@pytest.fixture
async def own_books(postgres: Postgres) -> AsyncIterator[Books]:
    books = Books(postgres.url)
    yield books
    await books.close()


@pytest.fixture
async def own_http(
    postgres: Postgres, valkey: Valkey, simulator: Simulator, run_folder: Path
) -> AsyncIterator[httpx2.AsyncClient]:
    settings = environment(servers.application(postgres.url), valkey.url, simulator.url, DIRECTORY_TTL_S="0.2")
    api = await asyncio.to_thread(lambda: Api(settings, run_folder / "away.log").await_ready())
    with running(api):
        async with client(api.url) as http:
            yield http


async def test_postgres_goes_and_comes_back(
    postgres: Postgres, own_books: Books, own_http: httpx2.AsyncClient, simulator: Simulator
) -> None:
    account = await own_books.account(limits=LIMITS)
    ref = account.key_id.hex
    assert (await chat(own_http, account, scripted(ref=ref))).done

    await asyncio.to_thread(postgres.stop)
    for _ in range(3):
        _assert_unavailable(await chat(own_http, account, scripted(ref=ref)))
        assert (await own_http.get("/v1/usage", headers=account.headers)).status_code == 503
    ready = (await own_http.get("/readyz")).json()
    assert (ready["status"], ready["postgres"], ready["redis"]) == ("not_ready", False, True)
    assert (await own_http.get("/healthz")).status_code == 200
    assert len(simulator.ledger(ref)) == 1, "the provider heard of a request that nobody had written down"

    await asyncio.to_thread(postgres.start)
    await _until_done(own_http, account, scripted(ref=ref))
    await _assert_books_equal_ledger(own_books, own_http, account, simulator)


@pytest.mark.slow
async def test_redis_goes_and_comes_back_empty(
    valkey: Valkey, own_books: Books, own_http: httpx2.AsyncClient, simulator: Simulator
) -> None:
    """Requests meanwhile are served (test_redis_away shows it under load)."""
    account = await own_books.account(limits=LIMITS)
    ref = account.key_id.hex
    assert (await chat(own_http, account, scripted(ref=ref, words=50))).done

    await asyncio.to_thread(valkey.kill)
    assert (await chat(own_http, account, scripted(ref=ref))).done
    await _assert_books_equal_ledger(own_books, own_http, account, simulator)
    assert (await own_http.get("/readyz")).json()["redis"] is False
    await asyncio.to_thread(valkey.start)

    assert (await chat(own_http, account, scripted(ref=ref))).done
    await _assert_books_equal_ledger(own_books, own_http, account, simulator)


@pytest.mark.slow
async def test_both_go_and_come_back(
    postgres: Postgres, valkey: Valkey, own_books: Books, own_http: httpx2.AsyncClient, simulator: Simulator
) -> None:
    account = await own_books.account(limits=LIMITS)
    ref = account.key_id.hex
    assert (await chat(own_http, account, scripted(ref=ref))).done
    await asyncio.to_thread(valkey.kill)
    await asyncio.to_thread(postgres.stop)
    _assert_unavailable(await chat(own_http, account, scripted(ref=ref)))
    assert len(simulator.ledger(ref)) == 1
    await asyncio.to_thread(postgres.start)
    await _until_done(own_http, account, scripted(ref=ref))
    await _assert_books_equal_ledger(own_books, own_http, account, simulator)


def _assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.error is not None
    assert answer.error["code"] == "unavailable"
    assert answer.retry_after_s >= 1


async def _until_done(http: httpx2.AsyncClient, account: Account, message: str) -> None:
    """Retries until it is answered; refusals have a Retry-After."""
    deadline = time.monotonic() + 20
    while True:
        answer = await chat(http, account, message)
        if answer.status == 200:
            assert answer.done
            return
        _assert_unavailable(answer)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def _assert_books_equal_ledger(
    books: Books, http: httpx2.AsyncClient, account: Account, simulator: Simulator
) -> None:
    """Asserts that Postgres and Redis agree with the provider, and nothing is held."""
    served = simulator.ledger(account.key_id.hex)
    rows = await books.settled(account, len(served))
    used = sum(entry["input_tokens"] + entry["output_tokens"] for entry in served)
    assert sum(row["input_tokens"] + row["output_tokens"] for row in rows) == used
    (window,) = (await http.get("/v1/limits", headers=account.headers)).json()["windows"]
    assert (window["used"], window["held"]) == (used, 0)
