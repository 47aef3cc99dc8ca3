"""After an outage: backends whose client gave up end, and so do connections that only the outage needed."""

import asyncio

import asyncpg
import pytest

from core.errors import Unavailable
from core.ids import uuid7
from core.postgres.connection import Connection
from core.postgres.database import Connections
from metering.admission.postgres_grants import PostgresGrants
from metering.journal.group_commit import GroupCommitter
from metering.journal.in_flight import InFlight
from metering.quota.query import QuotaQuery
from tests.harness import Books
from tests.metering.process import KOLKATA, MODEL, Process, principal
from tests.servers import asyncpg_dsn

_LOCK = 4711


async def backends(books: Books, name: str) -> int:
    """The number of connections to this database with an application name."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1"
    (row,) = await books.fetch(query, name)
    return int(row["count"])


async def wait_until(books: Books, name: str, count: int) -> None:
    """Waits up to 5 s for that number of connections."""
    for _ in range(100):
        if await backends(books, name) == count:
            break
        await asyncio.sleep(0.05)
    assert await backends(books, name) == count


@pytest.mark.slow
async def test_a_committer_that_gives_up_on_a_lock_again_and_again_leaves_no_backend_behind(
    books: Books, metering_database: str
) -> None:
    async def locked(connection: Connection, _: list[int]) -> list[int]:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        return [1]

    dsn = asyncpg_dsn(metering_database)
    committer: GroupCommitter[int, int] = GroupCommitter("stuck", dsn, locked, locked, timeout_s=0.2, retry_s=0.05)
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        committer.start()
        answer = committer.submit(1)
        await asyncio.sleep(3)
        assert await backends(books, "naka-stuck") <= 6  # tries of the last second; all tries would be 12
    assert await asyncio.wait_for(answer, 5) == 1
    await wait_until(books, "naka-stuck", 1)
    await committer.stop()
    await wait_until(books, "naka-stuck", 0)


@pytest.mark.slow
async def test_a_pool_leaves_no_backend_behind_either(books: Books, metering_database: str) -> None:
    pool = Connections(metering_database, timeout_s=0.2)
    await pool.start()
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        before = await backends(books, "naka")
        for _ in range(3):
            with pytest.raises((Unavailable, asyncpg.QueryCanceledError)):
                async with pool.acquire() as waiting:
                    await waiting.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=0.2)
        await asyncio.sleep(1.5)
        assert await backends(books, "naka") <= before + 1
    await pool.close()


async def test_the_connections_of_postgres_grants_end_when_redis_is_back(
    process: Process, books: Books, metering_database: str
) -> None:
    account = await books.account()
    postgres_grants = PostgresGrants(
        asyncpg_dsn(metering_database),
        process_id=uuid7(),
        running=InFlight(),
        calendar=KOLKATA,
        timeout_s=5,
        idle_s=0.5,
    )
    postgres_grants.start()
    others = await backends(books, "naka-fallback-%")
    query = QuotaQuery(
        principal(account),
        MODEL,
        100,
        prompt_bound=100,
        prompt_likely=50,
        smallest_output=1,
        ttl_ms=1_000,
        timeline=await process.entitlements.of(account.tenant_id, account.user_id),
        book=await process.admission.prices.book(),
        redis_unreachable=True,
    )
    for _ in range(2):  # the second time on a new connection
        await postgres_grants.admit(query)
        assert await backends(books, "naka-fallback-%") == others + 1
        await wait_until(books, "naka-fallback-%", others)
    await postgres_grants.stop()
