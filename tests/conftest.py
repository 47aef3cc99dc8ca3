"""Fixtures of all tests: one Postgres and Valkey per run, a database of each per worker, and private servers.

With pytest-xdist the controller owns the run (`tests.servers.Run`) and tells the workers its folder; without,
the one process is both.
"""

import gc
import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from _pytest.nodeid import NodeId
from hypothesis import HealthCheck, settings

from core.logs import configure_logs
from sandbox import daemon
from sandbox import postgres as postgres_wheel
from sandbox import valkey as valkey_wheel
from sandbox.daemon import ServerUnavailable
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.databases import TestDatabase, share_compiled_statements
from tests.harness import UNLIMITED
from tests.simulated_razorpay import Razorpay

# A noisy machine is slow now and then, which is no finding. CI draws the same examples each time, a person others.
settings.register_profile("naka", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("naka"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "naka")

RUN = pytest.StashKey[servers.Run]()
FOLDER = pytest.StashKey[Path]()
HERE = Path(__file__).parent
PROCESSES = frozenset({"browser", "journeys", "sandbox"})
"""Folders whose tests start processes without a fixture of this file."""
FIRST_HALF = frozenset({"api", "core", "pages"})
"""Folders of one worker with `--by-folder`: those that import the API, which takes as long as half of the tests."""
STARTS_A_SERVER = frozenset({"shared_servers", "run_folder", "razorpay_process", "private_postgres", "private_valkey"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--short",
        action="store_true",
        help="without slow tests; of the cases of a test that needs a server, only the first",
    )
    parser.addoption(
        "--by-folder",
        action="store_true",
        help="each of two workers collects its own folders, instead of everything; with `-n 2 --dist each`",
    )


def pytest_configure(config: pytest.Config) -> None:
    share_compiled_statements()
    os.environ.update(UNLIMITED)  # a test that is about the defaults gives its own
    # As a server does; structlog by itself draws every traceback for a person, which is a tenth of the whole run.
    configure_logs(level="warning", as_json=True)
    for number in (signal.SIGINT, signal.SIGHUP):  # ignored where the run is in the background; children inherit that
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    given = getattr(config, "workerinput", {})
    if given:  # between the choice of a port and its use, another worker must not choose it, too
        daemon.PORTS = daemon.PORTS[int(given["workerid"][2:]) % given["workercount"] :: given["workercount"]]
    inherited = given.get("naka_folder")
    if inherited:
        config.stash[FOLDER] = Path(inherited)
    elif not config.option.collectonly:
        config.stash[RUN] = servers.Run()
        config.stash[FOLDER] = config.stash[RUN].folder


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["naka_folder"] = str(node.config.stash[FOLDER])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether to pass over a folder: importing what does not run here takes half of `make check`."""
    if collection_path.parent != HERE:
        return None
    name = collection_path.name
    is_deselected = name in PROCESSES and config.option.markexpr == "not server"
    return True if is_deselected or _is_of_the_other(name, config) else None


def _is_of_the_other(name: str, config: pytest.Config) -> bool:
    """Whether the other worker of `--by-folder` runs the tests of this folder, or file, of `tests`."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    return config.option.by_folder and worker is not None and (name in FIRST_HALF) != (worker == "gw0")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collects without the garbage collector: imports leave little garbage, and looking for it takes a sixth.

    What they create stays, so the collector passes over it from then on.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks the tests that need a server."""
    fixtures = STARTS_A_SERVER.intersection(getattr(item, "fixturenames", ()))
    if fixtures or item.path.relative_to(HERE).parts[0] in PROCESSES:
        item.add_marker(pytest.mark.server)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects by `--short`, and keeps the tests of a group on one worker.

    xdist 3.8 writes the group where pytest 9.2 no longer reads it.
    """
    items[:] = [item for item in items if not _is_of_the_other(item.path.relative_to(HERE).parts[0], config)]
    if config.option.short:
        deselected = _beyond_short(items)
        items[:] = [item for item in items if item not in deselected]
        config.hook.pytest_deselected(items=[*deselected])
    for item in items:
        grouped = vars(item).get("_nodeid")
        if grouped is not None and item.nodeid != grouped:
            item._id = NodeId.parse(grouped)


def _beyond_short(items: list[pytest.Item]) -> set[pytest.Item]:
    """The slow tests, and all cases but the first of each test that needs a server."""
    found, seen = set[pytest.Item](), set[str]()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if item.get_closest_marker("slow") or (test in seen and item.get_closest_marker("server")):
            found.add(item)
        seen.add(test)
    return found


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is not None:
        run.end()


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config) -> Path:
    """The folder of this run; servers under `private/` end with it."""
    return pytestconfig.stash[FOLDER]


@pytest.fixture(scope="session")
def shared_servers(run_folder: Path) -> servers.Servers:
    """The run's shared Postgres and Valkey, started on first use."""
    return servers.shared(run_folder)


@pytest.fixture(scope="session")
def worker() -> str:
    """This worker's name: gw0, gw1, ... or main."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.fixture(scope="session")
def postgres_url(shared_servers: servers.Servers, worker: str) -> Iterator[str]:
    """An empty database of this worker."""
    name = f"naka_{worker}"
    yield servers.create_database(shared_servers.postgres, name)
    servers.drop_database(shared_servers.postgres, name)


@pytest.fixture(scope="session")
def database_template(shared_servers: servers.Servers, worker: str) -> Iterator[str]:
    """The name of an unused migrated database, which `database_url` copies."""
    name = f"naka_template_{worker}"
    servers.migrated(servers.create_database(shared_servers.postgres, name))
    yield name
    servers.drop_database(shared_servers.postgres, name)


@pytest.fixture(scope="session")
def worker_database(shared_servers: servers.Servers, worker: str, database_template: str) -> Iterator[TestDatabase]:
    """This worker's database for tests, a copy of the template."""
    made = TestDatabase(shared_servers.postgres, f"naka_test_{worker}", database_template)
    yield made
    made.drop()


@pytest.fixture
def database_url(worker_database: TestDatabase) -> str:
    """A migrated database with the price list and nothing else, by the application's login."""
    return servers.application(worker_database.fresh())


@pytest.fixture(scope="session")
def redis_url(shared_servers: servers.Servers, worker: str) -> str:
    """A Redis database of this worker, empty at the start. Use FLUSHDB: FLUSHALL affects all workers."""
    number = re.sub(r"\D", "", worker) or "0"
    url = servers.at_path(shared_servers.redis, number)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def razorpay_process(run_folder: Path, worker: str) -> Iterator[Razorpay]:
    """This worker's Razorpay simulator."""
    with Razorpay(clock_file=run_folder / f"razorpay-clock-{worker}") as made:
        yield made


@pytest.fixture
def razorpay(razorpay_process: Razorpay) -> Iterator[Razorpay]:
    """The Razorpay simulator, empty and on real time at each start."""
    razorpay_process.reset()
    yield razorpay_process
    razorpay_process.reset()


@pytest.fixture
def private_postgres(private_home: Callable[[], Path]) -> Iterator[Callable[..., Postgres]]:
    """Starts a Postgres of this test; keywords are its settings, as max_connections="20"."""
    _need(postgres_wheel.binaries)
    with ExitStack() as stack:

        def start(**settings: str) -> Postgres:
            fast: Mapping[str, str] = {**servers.FAST_POSTGRES, **settings}
            return stack.enter_context(Postgres(private_home(), settings=fast))

        yield start


@pytest.fixture
def private_valkey(private_home: Callable[[], Path]) -> Iterator[Callable[..., Valkey]]:
    """Starts a Valkey of this test; keywords are its settings, with `_` for `-`."""
    _need(valkey_wheel.binary)
    with ExitStack() as stack:

        def start(**settings: str) -> Valkey:
            given = {name.replace("_", "-"): value for name, value in settings.items()}
            return stack.enter_context(Valkey(private_home(), settings=given))

        yield start


@pytest.fixture
def private_home(
    run_folder: Path, request: pytest.FixtureRequest, shared_servers: servers.Servers
) -> Callable[[], Path]:
    """Creates folders for servers of one test, which end with the run at the latest.

    By the keeper of the shared servers, which is why there has to be one.
    """
    del shared_servers  # wanted for its keeper alone
    name = re.sub(r"\W+", "-", request.node.name)[:40]

    def make() -> Path:
        home = run_folder / "private" / f"{name}-{secrets.token_hex(3)}"
        home.mkdir(parents=True)
        return home

    return make


def _need(program: Callable[[], Path]) -> None:
    try:
        program()
    except ServerUnavailable as missing:
        pytest.skip(str(missing))
