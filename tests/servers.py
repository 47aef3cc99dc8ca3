"""The servers shared by a test run, and the process that owns them.

One *keeper* process per run starts them on the first request of any worker. It stops them, and any server a fault test
left running in the run's folder, when the kernel releases the lock held by the run's first process, even after SIGKILL.
Sources, in this order: TEST_DATABASE_URL and TEST_REDIS_URL; containers, if a Docker engine answers; the wheels,
without fsync.
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
DOCKER_S = 3  # for an engine to report its version
START_S = 120
STOP_S = 60
DATABASES = 64  # one Redis database per worker
FAST_POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
_LOGIN = "_service"  # suffix of the application's login, which has the owner's password
_GRANT = 'GRANT CONNECT ON DATABASE "{}" TO naka_app, naka_read'
_REVOKE = 'REVOKE TEMPORARY ON DATABASE "{}" FROM PUBLIC'
FAST_VALKEY = {"appendonly": "no", "databases": str(DATABASES)}


@dataclass(frozen=True)
class Servers:
    """The URLs of the shared servers: a database to create others from, and Redis database 0."""

    postgres: str
    redis: str


class Run:
    """One test run in its first process: the shared folder, and the lock held while it runs."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="naka-tests-"))
        self._life = _locked(self.folder / "life")

    def end(self) -> None:
        """Lets the keeper stop the servers, and waits until it releases its own lock."""
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
    """Returns the run's servers; the first call starts them, concurrent ones wait."""
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
            keeper.returncode = 0  # it outlives this worker; avoids a ResourceWarning
        if not answer.exists():
            raise RuntimeError(f"the test servers did not start: {log.read_text()[-2000:]}")
    return Servers(**json.loads(answer.read_text()))


def create_database(server: str, name: str, *, template: str | None = None) -> str:
    """Recreates the database on the URL's server, optionally from `template`, and returns its URL."""
    create = f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else "")
    # A copy lacks the privileges on the template database itself.
    grant = [_GRANT.format(name), _REVOKE.format(name)] if template else []
    asyncio.run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', create, *grant))
    return at_path(server, name)


def drop_database(server: str, name: str) -> None:
    """Drops the database and its connections."""
    asyncio.run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def application(url: str) -> str:
    """Returns the URL of the application's login, the role under test, from the owner's URL."""
    parts = make_url(url)
    return parts.set(username=f"{parts.username}{_LOGIN}").render_as_string(hide_password=False)


def owner(url: str) -> str:
    """Returns the URL of the schema's owner, from either URL."""
    parts = make_url(url)
    name = (parts.username or "").removesuffix(_LOGIN)
    return parts.set(username=name or None).render_as_string(hide_password=False)


def migrated(url: str) -> str:
    """Migrates the owner's database and returns the application's URL."""
    migrate(url, application(url))
    return application(url)


def at_path(url: str, name: str) -> str:
    """Returns the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def asyncpg_dsn(url: str) -> str:
    """Returns the URL in asyncpg's form."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _locked(path: Path) -> IO[str]:
    """Waits for the file's lock; closing the file releases it."""
    file = path.open("a")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _docker_answers() -> bool:
    """Whether a Docker engine answers."""
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "version"], capture_output=True, timeout=DOCKER_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _container_urls(stack: ExitStack, *, postgres: bool, redis: bool) -> tuple[str, str]:
    """Starts the wanted servers as containers; an empty URL for the other."""
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
            # An engine may lack the images and a way to pull them; then use the wheels.
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
    """Stops private servers that killed tests left running."""
    strays: list[Postgres | Valkey] = [kind(home) for home in folder.glob("private/*") for kind in (Postgres, Valkey)]
    deadline = time.monotonic() + STOP_S
    while strays and time.monotonic() < deadline:
        try:
            strays[-1].stop()
            strays.pop()
        except ServerUnavailable:
            time.sleep(0.1)


def keep(folder: Path) -> None:
    """Runs the keeper: start, publish the URLs, wait for the run's end, stop everything."""
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
