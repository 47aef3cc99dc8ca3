"""Postgres fails during streams: they finish, and their usage is spooled to disk until it is back.

`done` means the usage is in Postgres, or spooled with fsync. Any process may replay the spool.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from metering.journal.spool import waiting
from sandbox.postgres import Postgres
from tests import servers
from tests.answers import Answer
from tests.harness import (
    LEDGER_FIELDS,
    TOKEN_FIELDS,
    Account,
    Api,
    Books,
    Simulator,
    chat,
    client,
    environment,
    running,
    scripted,
)
from tests.journeys.test_process_dies import assert_books_agree, until

pytestmark = pytest.mark.chaos
Start = Callable[..., Api]


@pytest.fixture
def postgres(private_postgres: Callable[..., Postgres]) -> Postgres:
    server = private_postgres(max_connections=40)
    servers.migrated(server.url)
    return server


@pytest.fixture
async def own_books(postgres: Postgres) -> AsyncIterator[Books]:
    books = Books(postgres.url)
    yield books
    await books.close()


@pytest.fixture
def start(postgres: Postgres, redis_url: str, simulator: Simulator, tmp_path: Path) -> Iterator[Start]:
    """Starts an API on the private Postgres; all share one spool folder by default."""
    with ExitStack() as stack:

        def start(*, ready: bool = True, **settings: str) -> Api:
            known = {"SPOOL_DIR": str(tmp_path / "spool"), "STORE_DEADLINE_S": "2.5", "SHUTDOWN_GRACE_S": "5"}
            api = Api(
                environment(servers.application(postgres.url), redis_url, simulator.url, **(known | settings)),
                tmp_path / "api.log",
            )
            return stack.enter_context(running(api)) if ready else api

        yield start


async def streams(api: Api, account: Account, simulator: Simulator, count: int, **script: Any) -> list[Any]:
    """Starts streams and waits until the provider has received all."""
    ref = account.key_id.hex
    before = len(simulator.ledger(ref))

    async def ask() -> Answer:
        async with client(api.url) as http:
            return await chat(http, account, scripted(ref=ref, **({"words": 40, "piece_delay_ms": 40} | script)))

    asked = [asyncio.create_task(ask()) for _ in range(count)]
    await until(lambda: len(simulator.ledger(ref)) == before + count)
    return asked


async def assert_exact(books: Books, account: Account, simulator: Simulator) -> None:
    """Asserts that every request the provider served is stored exactly, in all five classes."""
    served = {entry["request_id"]: entry for entry in simulator.ledger(account.key_id.hex)}
    rows = await books.requests(account)
    assert {row["upstream_request_id"] for row in rows if row["state"] == "settled"} >= set(served)
    assert not [row for row in rows if row["state"] == "open"]
    revisions = await books.fetch("SELECT * FROM usage_entries WHERE tenant_id = $1", account.tenant_id)
    for row in rows:
        entry = served.get(row["upstream_request_id"])
        if entry is None:
            continue
        better = [revision for revision in revisions if revision["request_id"] == row["id"]]
        ours = [row[name] + sum(revision[name] for revision in better) for name in TOKEN_FIELDS]
        assert ours == [entry[name] for name in LEDGER_FIELDS]
    await assert_books_agree(books, account)


async def settled(books: Books, account: Account) -> bool:
    """Whether no request of the account is open."""
    return all(row["state"] == "settled" for row in await books.requests(account))


async def test_streams_finish_and_are_replayed(
    postgres: Postgres, own_books: Books, start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    api, account = start(), await own_books.account()
    asked = await streams(api, account, simulator, 5, cache_read_input_tokens=5)
    await asyncio.to_thread(postgres.stop)
    answers = await asyncio.gather(*asked)
    assert all(answer.done for answer in answers), "a running stream did not finish"
    assert waiting(tmp_path / "spool") == (5, 0)
    async with client(api.url) as http:
        refused = await chat(http, account)
        assert (refused.status, refused.retry_after_s >= 1) == (503, True)

    await asyncio.to_thread(postgres.start)
    await until(lambda: settled(own_books, account))
    await assert_exact(own_books, account, simulator)
    await until(lambda: not list((tmp_path / "spool").iterdir()))
    async with client(api.url) as http:
        assert (await chat(http, account, scripted(ref=account.key_id.hex))).done
    await assert_exact(own_books, account, simulator)


@pytest.mark.slow
async def test_another_process_replays_what_a_dead_one_spooled(
    postgres: Postgres, own_books: Books, start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    dying, account = start(ready=False).await_ready(), await own_books.account()
    asked = await streams(dying, account, simulator, 3)
    await asyncio.to_thread(postgres.stop)
    assert all(answer.done for answer in await asyncio.gather(*asked))
    dying.kill()
    assert waiting(tmp_path / "spool") == (3, 0)
    await asyncio.to_thread(postgres.start)
    assert not await settled(own_books, account)

    start()
    await until(lambda: settled(own_books, account))
    await assert_exact(own_books, account, simulator)
    assert {row["source"] for row in await own_books.requests(account)} == {"final"}


@pytest.mark.slow
async def test_a_spool_found_after_recovery_revises_it(
    postgres: Postgres, own_books: Books, start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    dying, account = start(ready=False, HEARTBEAT_S="0.2").await_ready(), await own_books.account()
    asked = await streams(dying, account, simulator, 2, words=60)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(postgres.stop)
    assert all(answer.done for answer in await asyncio.gather(*asked))
    dying.kill()
    await asyncio.to_thread(postgres.start)
    start(SPOOL_DIR=str(tmp_path / "elsewhere"), HEARTBEAT_S="0.2", DEAD_AFTER_S="1")
    await until(lambda: settled(own_books, account))
    assert {row["outcome"] for row in await own_books.requests(account)} == {"lost"}

    start()  # finds the folder of the dead
    await until(lambda: not list((tmp_path / "spool").iterdir()))
    await assert_exact(own_books, account, simulator)
    assert len(await own_books.fetch("SELECT FROM usage_entries WHERE tenant_id = $1", account.tenant_id)) == 2


@pytest.mark.slow
async def test_stopped_while_postgres_is_away(
    postgres: Postgres, own_books: Books, start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    api, account = start(ready=False, SHUTDOWN_GRACE_S="3").await_ready(), await own_books.account()
    asked = await streams(api, account, simulator, 2, words=2_000) + await streams(api, account, simulator, 3, words=30)
    await asyncio.to_thread(postgres.stop)
    started = time.monotonic()
    assert await asyncio.to_thread(api.stop) == 0
    assert time.monotonic() - started < 20
    await asyncio.gather(*asked, return_exceptions=True)
    assert waiting(tmp_path / "spool") == (5, 0)
    await asyncio.to_thread(postgres.start)

    start()
    await until(lambda: settled(own_books, account))
    outcomes = sorted(row["outcome"] for row in await own_books.requests(account))
    assert outcomes == ["completed"] * 3 + ["shutdown"] * 2
    await assert_books_agree(own_books, account)


@pytest.mark.slow
async def test_no_connection_is_left(postgres: Postgres, own_books: Books, start: Start, simulator: Simulator) -> None:
    """Another client takes every connection while ours are cut: usage is spooled, requests get 503, and it recovers."""
    api, account = start(), await own_books.account()
    asked = await streams(api, account, simulator, 4)
    taken = [await asyncpg.connect(postgres.url)]
    try:
        for _ in range(60):
            await taken[0].execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'naka%' AND pid <> pg_backend_pid()"
            )
            try:
                taken.append(await asyncpg.connect(postgres.url))
            except asyncpg.TooManyConnectionsError:
                break
        assert all(answer.done for answer in await asyncio.gather(*asked))
        async with client(api.url) as http:
            assert (await chat(http, account)).status == 503
    finally:
        await asyncio.gather(*(connection.close() for connection in taken))
    await until(lambda: settled(own_books, account), within_s=20)
    await assert_exact(own_books, account, simulator)
