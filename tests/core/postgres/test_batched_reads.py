"""Batched reads: many misses cost a few statements, and an outage fails all waiting reads at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from core.errors import Overloaded, Unavailable
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Connections, Database
from core.postgres.url import postgres_url as parsed
from core.tenancy.accounts import DEFAULT_SCOPES, create_key, create_tenant, create_user
from core.tenancy.directory import Directory
from tests.harness import ACTOR
from tests.servers import asyncpg_dsn

Reads = BatchedReads[int, int]


class Server:
    """Doubles numbers in Postgres, and records the keys of each statement."""

    def __init__(self, url: str) -> None:
        self.url, self.timeout_s = parsed(url), 2.0
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self.batches: list[list[int]] = []
        self.sleeps_s = 0.0
        self.asked = asyncio.Event()

    async def double(self, connection: Connection, keys: list[int]) -> dict[int, int]:
        self.batches.append(keys)
        self.asked.set()
        query = "SELECT k, 2 * k AS doubled FROM unnest($1::int[]) AS k, pg_sleep($2) WHERE k <> 13"
        return {row["k"]: row["doubled"] for row in await connection.fetch(query, keys, self.sleeps_s)}


@pytest.fixture
async def server(postgres_url: str) -> AsyncIterator[Server]:
    server = Server(postgres_url)
    yield server
    for close in server.closing:
        await close()


async def backends(url: str, name: str) -> list[int]:
    """Returns the process ids of this database's connections with that application name."""
    connection = await asyncpg.connect(asyncpg_dsn(url))
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
    rows = await connection.fetch(query, name)
    await connection.close()
    return [row["pid"] for row in rows]


async def test_a_crowd_is_a_few_statements_on_one_connection(server: Server, postgres_url: str) -> None:
    reads: Reads = BatchedReads("crowd", server, server.double)
    answers = await asyncio.gather(*(reads.get(key % 400) for key in range(1_000)))
    assert answers == [None if key % 400 == 13 else 2 * (key % 400) for key in range(1_000)]
    assert len(server.batches) == 8  # of 128 that wait
    assert len(await backends(postgres_url, "naka-crowd")) == 1


async def test_a_read_never_rides_on_a_statement_that_runs_already(server: Server) -> None:
    reads: Reads = BatchedReads("late", server, server.double)
    server.sleeps_s = 0.1
    first = asyncio.create_task(reads.get(1))
    await server.asked.wait()
    assert list(await asyncio.gather(first, reads.get(1), reads.get(2), reads.get(1))) == [2, 2, 4, 2]
    assert server.batches == [[1], [1, 2]]


@pytest.mark.slow
async def test_who_waits_too_long_hears_that_too_many_wait(server: Server) -> None:
    reads: Reads = BatchedReads("busy", server, server.double, wait_s=1)
    server.sleeps_s = 1.3
    first = asyncio.create_task(reads.get(1))
    with pytest.raises(Overloaded):
        await first
    server.sleeps_s = 0
    assert await reads.get(2) == 4  # the wait of one ends nobody else's: the statement ended by itself
    assert server.batches == [[1], [2]]


async def test_an_outage_is_told_to_all_who_wait_and_passes(server: Server, postgres_url: str) -> None:
    reads: Reads = BatchedReads("away", server, server.double)
    there, server.url = server.url, parsed("postgresql://x:x@127.0.0.1:1/x")
    answers = await asyncio.gather(*(reads.get(key) for key in range(300)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert server.batches == []
    server.url = there
    assert await reads.get(3) == 6
    for pid in await backends(postgres_url, "naka-away"):
        await _terminate(postgres_url, pid)
    assert await reads.get(4) == 8  # its connection was closed while it was idle
    assert len(await backends(postgres_url, "naka-away")) == 1


async def test_a_silent_database_is_an_outage_within_the_time_of_a_statement(server: Server, postgres_url: str) -> None:
    server.timeout_s, server.sleeps_s = 0.4, 30
    reads: Reads = BatchedReads("silent", server, server.double)
    began = time.monotonic()
    answers = await asyncio.gather(*(reads.get(key) for key in range(300)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert time.monotonic() - began < 2
    assert len(server.batches) == 1
    for _ in range(100):
        if not await backends(postgres_url, "naka-silent"):
            break
        await asyncio.sleep(0.05)
    assert await backends(postgres_url, "naka-silent") == []  # the statement that nobody waits for has ended there, too


async def test_what_is_closed_answers_nobody(server: Server) -> None:
    reads: Reads = BatchedReads("closed", server, server.double)
    server.sleeps_s = 1
    waiting = asyncio.gather(*(reads.get(key) for key in range(3)), return_exceptions=True)
    await server.asked.wait()
    await reads.close()
    assert {type(answer) for answer in await waiting} == {Unavailable}
    with pytest.raises(Unavailable):
        await reads.get(1)


@pytest.mark.slow
async def test_a_pool_in_use_is_no_outage(postgres_url: str) -> None:
    database, pool = Database(postgres_url, pool_size=1, timeout_s=1), Connections(postgres_url, timeout_s=1)
    await pool.start()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            session = await stack.enter_async_context(database.session())
            await session.execute(text("SELECT 1"))
        with pytest.raises(Overloaded):
            async with database.session() as session:
                await session.execute(text("SELECT 1"))
        for _ in range(4):
            await stack.enter_async_context(pool.acquire(patient=True))
        with pytest.raises(Overloaded):
            async with pool.acquire():
                pass
    with pytest.raises(Unavailable) as told:
        async with pool.acquire() as connection:
            await connection.fetch("SELECT pg_sleep(30)", timeout=0.1)
    assert type(told.value) is Unavailable  # a statement that hangs is an outage, however many are in use
    await database.close()
    await pool.close()


async def test_keys_are_found_while_every_connection_of_the_pool_is_in_use(database_url: str) -> None:
    database = Database(database_url, pool_size=2, timeout_s=1)
    async with database.session() as session:
        tenant = await create_tenant(session, ACTOR, slug="crowd", name="Crowd")
        made = []
        for number in range(40):
            user = await create_user(session, ACTOR, tenant.id, external_id=str(number))
            options: dict[str, Any] = {"models": None, "expires_at": None, "live": False}
            key, secret = await create_key(session, ACTOR, user, name="k", scopes=list(DEFAULT_SCOPES), **options)
            made.append((key.id, secret.plaintext))
    directory = Directory(database, ttl_s=10)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            session = await stack.enter_async_context(database.session())
            await session.execute(text("SELECT 1"))
        found = await asyncio.gather(*(directory.authenticate(plaintext) for _, plaintext in made))
    assert [principal.key_id for principal in found] == [key_id for key_id, _ in made]
    await database.close()


async def _terminate(url: str, pid: int) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    await connection.execute("SELECT pg_terminate_backend($1, 2000)", pid)
    await connection.close()
