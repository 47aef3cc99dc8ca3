"""A migrated database per worker, and processes' worth of metering on it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from metering.quota import Quota
from metering.redis_lane import RedisLane
from migrations.upgrade import migrate
from sandbox.daemon import free_port
from tests import servers
from tests.harness import Books
from tests.metering.outage import QUICK, Start, until
from tests.metering.process import Process, start_process


@pytest.fixture(scope="session")
def metering_database(shared_servers: servers.Servers, worker: str) -> Iterator[str]:
    """A migrated database that the metering tests of this worker share."""
    name = f"naka_metering_{worker}"
    url = servers.create_database(shared_servers.postgres, name)
    migrate(url)
    yield url
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
async def blind(start: Start) -> Process:
    """A process whose Redis is not there; it has noticed."""
    process = await start(redis=f"redis://127.0.0.1:{free_port()}/0", **QUICK)
    await until(lambda: process.lane.breaker.is_open)
    return process


@pytest.fixture
async def quota(redis_url: str) -> AsyncIterator[Quota]:
    """The scripts alone, on the worker's Redis."""
    lane = RedisLane(redis_url, timeout_s=10)
    lane.start()
    yield Quota(lane)
    await lane.stop()
