"""The test harness: the API and the simulators as processes, accounts, and reads of the stored usage.

Everything is real: HTTP over loopback, Postgres, Valkey, processes that can be killed. Each test creates accounts of
its own, so the tests of a worker share one API and one database.
"""

import asyncio
import atexit
import json
import shutil
import signal
import socket
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx2

from core.ids import uuid7
from core.postgres.database import Database
from core.tenancy.accounts import DEFAULT_SCOPES, create_key, create_tenant, create_user
from core.tenancy.audit import Actor
from core.tenancy.models import User
from core.tenancy.principal import Scope
from metering.admission.entitlements import set_limits
from metering.counts import COUNT_COLUMNS
from metering.quota.limits import LimitSet
from sandbox.daemon import free_port
from tests import fork_server, servers
from tests.answers import Answer, read_answer
from tests.servers import asyncpg_dsn
from tests.simulated_razorpay import Razorpay as Razorpay  # noqa: PLC0414 - part of the harness

ROOT = Path(__file__).parents[1]
UNLIMITED = {
    "DEFAULT_USER_CONCURRENCY": "0",
    "DEFAULT_USER_REQUESTS_PER_MINUTE": "0",
    "DEFAULT_TENANT_CONCURRENCY": "0",
    "DEFAULT_TENANT_SPEND_PER_DAY_MICRO_USD": "0",
    "SHOW_PROVIDER_COST": "true",
    "ADMIN_REQUESTS_PER_MINUTE": "0",
}
"""Tests and benchmarks have no default limits, except those about the defaults."""
SIMULATOR_KEY = "simulator-key"
ACTOR = Actor("test")
START_S = 60
TOKEN_FIELDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
LEDGER_FIELDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_5m", "cache_creation_1h")
"""The ledger's names of TOKEN_FIELDS."""


@dataclass(frozen=True)
class Account:
    """A user with a key."""

    tenant_id: UUID
    user_id: UUID
    key_id: UUID
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authenticate this account."""
        return {"authorization": f"Bearer {self.key}"}


def scripted(message: str = "hello", /, **script: Any) -> str:
    """Returns a message that scripts the simulator's answer."""
    return f"{message} [[sim {json.dumps(script)}]]"


class Simulator:
    """The provider's simulator, as a process."""

    def __init__(self) -> None:
        options = ("--port", "0", "--api-key", SIMULATOR_KEY, "--pace-ms", "0")
        self.process, self.url = fork_server.listening("sandbox.anthropic", *options)

    def stop(self) -> None:
        """Ends the process."""
        fork_server.stop(self.process)

    def ledger(self, ref: str | None = None) -> list[dict[str, Any]]:
        """Returns the messages served, all or those with this `ref`."""
        return [row for row in self._items("ledger", ref) if row["kind"] == "messages"]

    def counts(self, ref: str | None = None) -> list[dict[str, Any]]:
        """Returns the calls of count_tokens."""
        return [row for row in self._items("ledger", ref) if row["kind"] == "count_tokens"]

    def inferences(self, ref: str | None = None) -> list[dict[str, Any]]:
        """Returns what the provider bills: a row per inference."""
        return self._items("inferences", ref)

    def received(self, ref: str | None = None) -> list[dict[str, Any]]:
        """Returns the requests as they were received, with their bodies in base64."""
        return self._items("requests", ref)

    def _items(self, route: str, ref: str | None) -> list[dict[str, Any]]:
        url = f"{self.url}/_sim/{route}" + (f"?ref={ref}" if ref else "")
        with urllib.request.urlopen(url, timeout=30) as answer:
            items: list[dict[str, Any]] = json.load(answer)["items"]
            return items


class Api:
    """`naka serve` as a process, on its own port or on a shared listening socket.

    With `razorpay` it follows that simulator's clock and receives its webhooks.
    """

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        *,
        port: int | None = None,
        listener: socket.socket | None = None,
        razorpay: Razorpay | None = None,
    ) -> None:
        if razorpay is not None:
            environment = environment | razorpay.env
        self.port = port or (free_port() if listener is None else listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        shared = () if listener is None else (listener.fileno(),)
        where = ["--fd", str(*shared)] if shared else ["--host", "127.0.0.1", "--port", str(self.port)]
        with log.open("ab") as out:
            self.process = fork_server.start(
                "api.cli", "serve", *where, variables=environment, stdout=out, pass_fds=shared
            )
        if razorpay is not None:
            razorpay.set_webhook(f"{self.url}/webhooks/razorpay")

    def await_ready(self) -> "Api":
        """Returns once it is ready; fails with its log otherwise."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the API did not start: {self.log.read_text()[-3000:]}")

    def await_listening(self) -> "Api":
        """Returns once its log says so: on a shared socket another process may answer `/readyz`."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if "Naka is ready" in self.log.read_text():
                return self
            time.sleep(0.02)
        raise AssertionError(f"the API did not start: {self.log.read_text()[-3000:]}")

    def resident_kb(self) -> int:
        """Returns the resident memory of the process (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1])

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Sends SIGKILL and waits."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        return fork_server.stop(self.process)


@cache
def _spools() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="naka-spools-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def spool_folder() -> Path:
    """Returns a new spool folder, deleted at exit."""
    return Path(tempfile.mkdtemp(dir=_spools()))


def environment(database_url: str, redis_url: str, simulator_url: str, **settings: str) -> dict[str, str]:
    """Returns the settings of an API under test."""
    return {
        "NAKA_ENV": "development",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "ANTHROPIC_API_KEY": SIMULATOR_KEY,
        "ANTHROPIC_BASE_URL": simulator_url,
        "LOG_LEVEL": "warning",
        "SHUTDOWN_DRAIN_S": "0",
        "STORE_DEADLINE_S": "30",  # a busy test machine is no outage
        "SPOOL_DIR": str(spool_folder()),
        **UNLIMITED,
        **settings,
    }


class Books:
    """Reads from Postgres, and creates accounts."""

    def __init__(self, database_url: str) -> None:
        self._dsn = asyncpg_dsn(servers.owner(database_url))
        self.database = Database(servers.owner(database_url))

    async def close(self) -> None:
        """Closes the connections."""
        await self.database.close()

    async def account(
        self,
        *,
        limits: LimitSet | None = None,
        tenant_limits: LimitSet | None = None,
        scopes: Sequence[Scope] = DEFAULT_SCOPES,
        models: list[str] | None = None,
        tenant_id: UUID | None = None,
    ) -> Account:
        """Creates a user with a key, in a new tenant unless one is given."""
        async with self.database.session() as session:
            if tenant_id is None:
                slug = f"t-{uuid7().hex[-20:]}"
                tenant_id = (await create_tenant(session, ACTOR, slug=slug, name=slug)).id
            user = await create_user(session, ACTOR, tenant_id, external_id=f"u-{uuid7().hex[-20:]}")
            made = await self._key(session, user, scopes, models)
            if limits is not None:
                await set_limits(session, ACTOR, tenant_id, user.id, limits)
            if tenant_limits is not None:
                await set_limits(session, ACTOR, tenant_id, tenant_id, tenant_limits)
        return made

    @staticmethod
    async def _key(session: Any, user: User, scopes: Sequence[Scope], models: list[str] | None) -> Account:
        key, secret = await create_key(
            session, ACTOR, user, name="test", scopes=list(scopes), models=models, expires_at=None, live=False
        )
        return Account(user.tenant_id, user.id, key.id, secret.plaintext)

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Returns the rows of a query."""
        async with self.connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args)
            return rows

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Opens a plain connection."""
        connection = await asyncpg.connect(self._dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def requests(self, account: Account) -> list[asyncpg.Record]:
        """Returns the request rows of the account's user, oldest first."""
        return await self.fetch(
            "SELECT * FROM usage_requests WHERE tenant_id = $1 AND user_id = $2 ORDER BY id",
            account.tenant_id,
            account.user_id,
        )

    async def sums(self, table: str, tenant_id: UUID) -> Counter[str]:
        """Returns the nine counts of a tenant, summed over `usage_requests`, `usage_daily` or `usage_meters`."""
        columns = ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in COUNT_COLUMNS)
        (row,) = await self.fetch(f"SELECT {columns} FROM {table} WHERE tenant_id = $1", tenant_id)
        return Counter({name: int(row[name]) for name in COUNT_COLUMNS})

    async def settled(self, account: Account, count: int, *, within_s: float = 10) -> list[asyncpg.Record]:
        """Returns the account's rows once `count` of them are settled."""
        deadline = time.monotonic() + within_s
        while True:
            rows = [row for row in await self.requests(account) if row["state"] == "settled"]
            if len(rows) >= count or time.monotonic() > deadline:
                assert len(rows) == count, f"{len(rows)} of {count} settled"
                return rows
            await asyncio.sleep(0.02)


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Opens a client with a long timeout."""
    limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits, **options) as made:
        yield made


async def chat(http: httpx2.AsyncClient, account: Account, message: str = "hello", **body: Any) -> Answer:
    """Sends a message and reads the whole answer."""
    async with http.stream("POST", "/chat", json={"message": message, **body}, headers=account.headers) as response:
        return read_answer(response, await response.aread())


@contextmanager
def running(api: Api) -> Iterator[Api]:
    """Waits until the API is ready, and stops it after the block."""
    try:
        yield api.await_ready()
    finally:
        api.stop()
