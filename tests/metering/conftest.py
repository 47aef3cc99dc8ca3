"""A migrated database per worker, and processes' worth of metering on it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from core.clock import follow_test_clock, now_ms, stop_following
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from sandbox.daemon import free_port
from tests import servers
from tests.harness import Books
from tests.metering.outage import QUICK, Start, until
from tests.metering.process import KOLKATA, Process, start_process
from tests.metering.scheduled import DAY_MS, TestClock


@pytest.fixture(scope="session")
def metering_database(shared_servers: servers.Servers, worker: str, database_template: str) -> Iterator[str]:
    """A migrated database that the metering tests of this worker share."""
    name = f"naka_metering_{worker}"
    yield servers.application(servers.create_database(shared_servers.postgres, name, template=database_template))
    servers.drop_database(shared_servers.postgres, name)


@pytest.fixture
async def books(metering_database: str) -> AsyncIterator[Books]:
    """What Postgres has."""
    books = Books(metering_database)
    yield books
    await books.close()


@pytest.fixture
async def start(metering_database: str, redis_url: str) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Start one more process on the database; on the worker's Redis unless `redis` names another."""
    async with AsyncExitStack() as stack:

        async def start(*, redis: str = redis_url, **options: Any) -> Process:
            made = await start_process(metering_database, redis, **options)
            stack.push_async_callback(made.stop)
            return made

        yield start


@pytest.fixture
async def process(start: Callable[..., Awaitable[Process]]) -> Process:
    """One process on the worker's Redis."""
    return await start()


@pytest.fixture
async def without_redis(start: Start) -> Process:
    """A process whose Redis is not there; it has noticed."""
    process = await start(redis=f"redis://127.0.0.1:{free_port()}/0", **QUICK)
    await until(lambda: process.pipeline.breaker.is_open)
    return process


@pytest.fixture(params=["redis", "postgres"])
async def either(request: pytest.FixtureRequest, start: Start) -> Process:
    """A process that is admitted by Redis, and one by Postgres."""
    if request.param == "redis":
        return await start()
    process = await start(redis=f"redis://127.0.0.1:{free_port()}/0", **QUICK)
    await until(lambda: process.pipeline.breaker.is_open)
    return process


@pytest.fixture
async def test_clock(tmp_path: Path, metering_database: str) -> AsyncIterator[TestClock]:
    """The clock of this process, which goes on from the tenth of next month."""
    clock = TestClock(tmp_path / "clock", metering_database)
    follow_test_clock(clock.file)
    await clock.move_to(KOLKATA.month(now_ms()).ends_ms + 9 * DAY_MS)
    yield clock
    stop_following()


@pytest.fixture
async def quota(redis_url: str) -> AsyncIterator[QuotaScripts]:
    """The scripts alone, on the worker's Redis."""
    pipeline = RedisPipeline(redis_url, timeout_s=10)
    pipeline.start()
    yield QuotaScripts(pipeline)
    await pipeline.stop()
