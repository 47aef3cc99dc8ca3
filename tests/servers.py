"""The servers that a test run shares, and the process that keeps them.

One *keeper* per run starts them on the first wish of any worker and ends them when the run is over, however it
is over: it waits for a lock that the run's first process holds for life and that the kernel drops with it, be
it by Ctrl-C or SIGKILL. Then it also ends whatever a fault test left running under the run's folder.

Where they come from, first that applies: TEST_DATABASE_URL and TEST_REDIS_URL; containers, if a Docker engine
answers at once; the wheels, without fsync.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy.engine import make_url

from migrations.upgrade import migrate
from sandbox.daemon import ServerUnavailable
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey

ROOT = Path(__file__).parents[1]
DOCKER_S = 3  # an engine that takes longer to say its version is not worth waiting for
START_S = 120
STOP_S = 60
DATABASES = 64  # one Redis database per worker
FAST_POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
_LOGIN = "_service"  # of the application's login, with the owner's password: who connects is all that tests tell apart
_GRANT = 'GRANT CONNECT ON DATABASE "{}" TO naka_app, naka_read'
_REVOKE = 'REVOKE TEMPORARY ON DATABASE "{}" FROM PUBLIC'
FAST_VALKEY = {"appendonly": "no", "databases": str(DATABASES)}


@dataclass(frozen=True)
class Servers:
    """Where the shared servers are: a database in which others can be made, and Redis database 0."""

    postgres: str
    redis: str


class Run:
    """One test run, as its first process sees it: the folder all share, and the lock that says it goes on."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="naka-tests-"))
        self._life = _locked(self.folder / "life")

    def end(self) -> None:
        """Let the keeper end everything, and wait until it has; it holds a lock of its own until then."""
        self._life.close()
        with (self.folder / "keeper").open("a") as keeper:
            deadline = time.monotonic() + STOP_S
            while time.monotonic() < deadline:
                with suppress(BlockingIOError):
                    fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)


def shared(folder: Path) -> Servers:
    """The run's servers; the first who asks has them started, the others wait for that."""
    answer, log = folder / "servers.json", folder / "keeper.log"
    with _locked(folder / "start"):
        if not log.exists():
            with log.open("ab") as out:
                keeper = subprocess.Popen(
                    [sys.executable, "-m", "tests.servers", str(folder)],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            deadline = time.monotonic() + START_S
            while not answer.exists() and keeper.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            keeper.returncode = 0  # it outlives this worker by design: no ResourceWarning for that
        if not answer.exists():
            raise RuntimeError(f"the test servers did not start: {log.read_text()[-2000:]}")
    return Servers(**json.loads(answer.read_text()))


def create_database(server: str, name: str, *, template: str | None = None) -> str:
    """Make the database anew on the server of the URL, as a copy of `template` if given; the URL of the new one."""
    create = f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else "")
    # A copy has everything of its template but the privileges on the database itself.
    grant = [_GRANT.format(name), _REVOKE.format(name)] if template else []
    asyncio.run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', create, *grant))
    return at_path(server, name)


def drop_database(server: str, name: str) -> None:
    """Remove the database, whoever is connected."""
    asyncio.run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def application(url: str) -> str:
    """The URL of the application's login on the owner's server: the role under test. `owner` is the way back."""
    parts = make_url(url)
    return parts.set(username=f"{parts.username}{_LOGIN}").render_as_string(hide_password=False)


def owner(url: str) -> str:
    """The URL of the schema's owner, for a test's own book-keeping; whichever of the two is given."""
    parts = make_url(url)
    name = (parts.username or "").removesuffix(_LOGIN)
    return parts.set(username=name or None).render_as_string(hide_password=False)


def migrated(url: str) -> str:
    """Migrates the owner's database; the application's URL of it."""
    migrate(url, application(url))
    return application(url)


def at_path(url: str, name: str) -> str:
    """The same server's URL for another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _locked(path: Path) -> IO[str]:
    """Wait for the file's lock; closing the file, or dying, gives it back."""
    file = path.open("a")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _docker_answers() -> bool:
    """Whether an engine is there: the command alone is installed on many machines without one."""
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=DOCKER_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _container_urls(stack: ExitStack, *, postgres: bool, redis: bool) -> tuple[str, str]:
    """The wanted servers as containers that the stack ends; an empty URL for the other."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - slow, and needs an engine
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415

    database = store = ""
    if postgres:
        flags = [word for name, value in FAST_POSTGRES.items() for word in ("-c", f"{name}={value}")]
        server = PostgresContainer("postgres:18", username="naka", password="naka", dbname="naka", driver=None)
        database = stack.enter_context(server.with_command(flags)).get_connection_url()
    if redis:
        flags = ["valkey-server", "--save", "", "--databases", str(DATABASES)]
        box = stack.enter_context(RedisContainer("valkey/valkey:9").with_command(flags))
        store = f"redis://{box.get_container_host_ip()}:{box.get_exposed_port(6379)}/0"
    return database, store


@contextmanager
def _servers(folder: Path) -> Iterator[Servers]:
    postgres, redis = os.environ.get("TEST_DATABASE_URL", ""), os.environ.get("TEST_REDIS_URL", "")
    with ExitStack() as stack:
        if not (postgres and redis) and _docker_answers():
            # An engine that answers may still have no image and no way to one: then the wheels serve.
            with ExitStack() as attempt, suppress(Exception):
                database, store = _container_urls(attempt, postgres=not postgres, redis=not redis)
                postgres, redis = postgres or database, redis or store
                stack.push(attempt.pop_all())
        if not postgres:
            postgres = stack.enter_context(Postgres(folder / "postgres", settings=FAST_POSTGRES)).url
        if not redis:
            redis = stack.enter_context(Valkey(folder / "valkey", settings=FAST_VALKEY)).url
        yield Servers(postgres, redis)


def _end_strays(folder: Path) -> None:
    """End the private servers of tests that did not live to do it; a worker that still holds one is dying too."""
    strays: list[Postgres | Valkey] = [kind(home) for home in folder.glob("private/*") for kind in (Postgres, Valkey)]
    deadline = time.monotonic() + STOP_S
    while strays and time.monotonic() < deadline:
        try:
            strays[-1].stop()
            strays.pop()
        except ServerUnavailable:
            time.sleep(0.1)


def keep(folder: Path) -> None:
    """The keeper's life: start, tell where, wait for the run's end, stop, sweep."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _locked(folder / "keeper"), _servers(folder) as servers:
        draft = folder / "servers.new"
        draft.write_text(json.dumps(asdict(servers)))
        draft.rename(folder / "servers.json")
        _locked(folder / "life").close()
        _end_strays(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
