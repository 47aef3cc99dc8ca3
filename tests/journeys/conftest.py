"""The servers of the journeys: one API, simulator and database per test worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from api.app import create_app
from core.clock import follow_test_clock, stop_following
from core.settings import Settings
from sandbox.daemon import free_port
from tests import servers
from tests.billing_context import open_billing_context
from tests.harness import Api, Books, Razorpay, Simulator, client, environment, running
from tests.journeys.shop import Shop, operator
from tests.simulated_razorpay import WEBHOOK_SECRET


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """The provider."""
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="session")
def story_database(shared_servers: servers.Servers, worker: str, database_template: str) -> Iterator[str]:
    """A migrated database shared by the journeys of this worker."""
    name = f"naka_stories_{worker}"
    yield servers.application(servers.create_database(shared_servers.postgres, name, template=database_template))
    servers.drop_database(shared_servers.postgres, name)


@pytest.fixture(scope="session")
def story_environment(story_database: str, redis_url: str, simulator: Simulator) -> dict[str, str]:
    """The settings of the shared API."""
    return environment(story_database, redis_url, simulator.url, RAZORPAY_WEBHOOK_SECRET=WEBHOOK_SECRET)


@pytest.fixture(scope="session")
def api(story_environment: dict[str, str], run_folder: Path, worker: str) -> Iterator[Api]:
    """The API shared by the journeys of this worker; a test that harms its API uses `start_api`."""
    with running(Api(story_environment, run_folder / f"api-{worker}.log")) as made:
        yield made


@pytest.fixture
def start_api(
    story_environment: dict[str, str], run_folder: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Api]]:
    """Starts an API for this test; keywords are changed settings, in upper case."""
    with ExitStack() as stack:

        def start(**settings: str) -> Api:
            log = run_folder / f"{request.node.name[:40]}.log"
            return stack.enter_context(running(Api(story_environment | settings, log)))

        yield start


@pytest.fixture
async def books(story_database: str) -> AsyncIterator[Books]:
    """The shared database."""
    books = Books(story_database)
    yield books
    await books.close()


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the shared API."""
    async with client(api.url) as made:
        yield made


@pytest.fixture
async def shop(database_url: str, redis_url: str, razorpay: Razorpay, simulator: Simulator) -> AsyncIterator[Shop]:
    """An operator with a billing profile, on its own database, Razorpay simulator and clock."""
    assert razorpay.clock_file is not None
    follow_test_clock(razorpay.clock_file)
    books, port = Books(database_url), free_port()
    razorpay.set_webhook(f"http://127.0.0.1:{port}/webhooks/razorpay")
    named = environment(database_url, redis_url, simulator.url) | razorpay.env
    given: dict[str, Any] = {name.lower(): value for name, value in named.items()}
    settings = Settings(_env_file=None, **given)
    try:
        async with (
            _serving(settings, port) as url,
            client(url) as http,
            open_billing_context(database_url, redis_url, razorpay) as context,
        ):
            yield await Shop(http, books, context, razorpay, simulator, await operator(books)).open()
    finally:
        stop_following()
        await books.close()


@asynccontextmanager
async def _serving(settings: Settings, port: int) -> AsyncIterator[str]:
    """Serves the API in this process, since starting one takes seconds of CPU."""
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "the API did not start"
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task
