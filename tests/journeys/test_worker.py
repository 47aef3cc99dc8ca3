"""`naka worker`: it runs its schedule, survives outages of Postgres, and reports in one line why it cannot start."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from core.clock import now_ms
from core.queue import Queue, post
from metering.journal.partitions import months_around
from sandbox.daemon import free_port
from sandbox.postgres import Postgres
from tests import servers
from tests.harness import environment
from tests.programs import WITHIN_S, Process, starter, until
from tests.servers import asyncpg_dsn

PARTITIONS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_requests'::regclass"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes for the test."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def work(start: Callable[..., Process], redis_url: str) -> Callable[..., Process]:
    """Starts `naka worker` on a database."""

    def make(url: str) -> Process:
        settings = environment(url, redis_url, "http://127.0.0.1:9", LOG_LEVEL="info", TIMEZONE="America/New_York")
        return start("api.cli", "worker", **settings)

    return make


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A plain connection of the schema's owner."""
    connection = await asyncpg.connect(asyncpg_dsn(servers.owner(url)))
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Any]:
    """A connection to the test's database."""
    async with connected(database_url) as connection:
        yield connection


@pytest.fixture
def bare_database(shared_servers: servers.Servers, worker: str) -> Iterator[str]:
    """An empty database."""
    name = f"naka_bare_{worker}"
    yield servers.create_database(shared_servers.postgres, name)
    servers.drop_database(shared_servers.postgres, name)


@pytest.mark.slow
async def test_the_worker_makes_months_that_are_missing_and_checks_the_books(
    database_url: str, connection: Any, work: Callable[..., Process]
) -> None:
    whole = await connection.fetchval(PARTITIONS)
    last = months_around(now_ms())[-1][0]
    await connection.execute(f"DROP TABLE {last}")

    worker = work(database_url)
    await worker.says("queue_ready")
    assert await connection.fetchval(PARTITIONS) == whole, "made at the start"

    await connection.execute(f"DROP TABLE {last}")
    for duty in ("partitions", "prune", "reconcile"):
        await post(connection, duty)
    await worker.says("duty_done", 3)
    assert await connection.fetchval(PARTITIONS) == whole, "made at the tick"
    assert await connection.fetchval("SELECT sum(drifts) FROM reconciliations") == 0
    at = "SELECT (next_run AT TIME ZONE 'America/New_York')::time::text FROM pgqueuer.pgqueuer_schedules"
    assert await connection.fetchval(f"{at} WHERE entrypoint = 'reconcile'") == "03:20:00"
    assert await worker.ends() == 0


@pytest.mark.slow
@pytest.mark.chaos
async def test_postgres_goes_and_comes_back(
    private_postgres: Callable[..., Postgres], work: Callable[..., Process]
) -> None:
    postgres = private_postgres()
    worker = work(await asyncio.to_thread(servers.migrated, postgres.url))
    await worker.says("queue_ready")

    async with connected(postgres.url) as connection:
        await post(connection, "partitions")
        await worker.says("duty_done")
        await until(lambda: _is_idle(connection))
    await asyncio.to_thread(postgres.stop)
    await worker.says("queue_away", within_s=15)  # at once, and not when the library next looks: up to 40 s
    await worker.says("queue_away", 2)
    await asyncio.to_thread(postgres.start)
    await worker.says("queue_ready", 2)

    async with connected(postgres.url) as connection:
        await post(connection, "prune")
    await worker.says("duty_done", 2)
    assert await worker.ends() == 0


async def _is_idle(connection: Any) -> bool:
    """Whether no job is due."""
    return not await connection.fetchval("SELECT count(*) FROM pgqueuer.pgqueuer")


@pytest.mark.parametrize("absent", ["server", "schema"])
def test_a_worker_that_cannot_start_says_why_in_one_line(
    absent: str, bare_database: str, work: Callable[..., Process]
) -> None:
    nowhere = f"postgresql://naka:naka@127.0.0.1:{free_port()}/naka"
    worker = work(nowhere if absent == "server" else bare_database)

    assert worker.process.wait(WITHIN_S) == 1
    assert (
        worker.log.read_text()
        == {
            "server": "naka: the database does not answer: ConnectionRefusedError\n",
            "schema": "naka: the database schema is missing or outdated: run `naka migrate`\n",
        }[absent]
    )


@pytest.mark.slow
async def test_two_migrations_at_once(bare_database: str, start: Callable[..., Process]) -> None:
    for one in [start("api.cli", "migrate", DATABASE_URL=bare_database) for _ in range(2)]:
        assert await asyncio.to_thread(one.process.wait, WITHIN_S) == 0, one.log.read_text()

    async with connected(bare_database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'pgqueuer'") == 4
    await Queue(asyncpg_dsn(bare_database), [], timeout_s=5).check()
