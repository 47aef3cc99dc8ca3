"""A setup of the matrix: stores of chosen versions, an API with a restricted role, the simulator, the accounts.

The API's role is no superuser, so that it can be locked out and connection limits apply. Reads of the accounts and the
failures themselves use the superuser.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Api, Books, Simulator, environment, running

ROLE, PASSWORD = "app", "app-password"
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "60"}
_CONNECTS_S = 5


@dataclass
class Setup:
    """The running servers of a cell."""

    postgres: Postgres
    valkey: Valkey
    simulator: Simulator
    books: Books
    api: Api
    account: Account
    spool: Path
    deadline_s: float

    async def execute(self, *statements: str) -> None:
        """Executes statements as the superuser, on a database that stays open."""
        async with admin(self.postgres) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def cut(self) -> None:
        """Terminates the API's connections, so that a change for new ones affects all."""
        await self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")

    async def mismatch(self) -> str | None:
        """Returns the difference between the accounts and the provider's ledger; None when they agree to the token."""
        served = {entry["request_id"]: entry for entry in self.simulator.ledger(self.account.key_id.hex)}
        rows = await self.books.requests(self.account)
        left_open = [row for row in rows if row["state"] == "open"]
        if left_open:
            return f"{len(left_open)} of {len(rows)} requests are open"
        revised = await self.books.fetch("SELECT * FROM usage_entries WHERE tenant_id = $1", self.account.tenant_id)
        known = {row["upstream_request_id"]: row for row in rows if row["state"] == "settled"}
        if missing := set(served) - set(known):
            return f"{len(missing)} served requests are not in the books"
        for request_id, entry in served.items():
            row = known[request_id]
            mine = [entry for entry in revised if entry["request_id"] == row["id"]]
            ours = [row[name] + sum(revision[name] for revision in mine) for name in TOKEN_FIELDS]
            if ours != [entry[name] for name in LEDGER_FIELDS]:
                return f"a request of {[entry[name] for name in LEDGER_FIELDS]} tokens is booked as {ours}"
        return await self._sums_differ()

    async def _sums_differ(self) -> str | None:
        rows = await self.books.sums("usage_requests", self.account.tenant_id)
        rows.update(await self.books.sums("usage_entries", self.account.tenant_id))
        for table in ("usage_daily", "usage_meters"):
            if await self.books.sums(table, self.account.tenant_id) != rows:
                return f"{table} has other sums than the rows"
        return None


@asynccontextmanager
async def admin(postgres: Postgres) -> AsyncIterator[Any]:
    """Opens a superuser's connection to the database `postgres`."""
    connection = await asyncpg.connect(_at(postgres.url, database="postgres"), timeout=_CONNECTS_S)
    try:
        yield connection
    finally:
        with suppress(OSError, asyncpg.PostgresError):
            await connection.close(timeout=_CONNECTS_S)


@asynccontextmanager
async def setup(
    home: Path,
    simulator: Simulator,
    *,
    deadline_s: float,
    programs: tuple[Path | None, Path | None] = (None, None),
    **settings: str,
) -> AsyncIterator[Setup]:
    """Starts everything in a folder, for the block. `programs`: Postgres's and Redis's, else the wheels'."""
    async with AsyncExitStack() as stack:
        postgres = Postgres(home / "postgres", settings=_FAST, programs=programs[0])
        valkey = Valkey(home / "valkey", settings={"appendonly": "no"}, program=programs[1])
        for server in (postgres, valkey):
            await asyncio.to_thread(server.start)
            stack.push_async_callback(asyncio.to_thread, server.stop)
        async with admin(postgres) as connection:
            await connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        url = _at(postgres.url, user=f"{ROLE}:{PASSWORD}")
        await asyncio.to_thread(migrate, postgres.url, url)
        books = Books(postgres.url)
        stack.push_async_callback(books.close)
        spool = home / "spool"
        given = {"STORE_DEADLINE_S": str(deadline_s), "DIRECTORY_TTL_S": "0.2", "SPOOL_DIR": str(spool), **settings}
        api = Api(environment(url, valkey.url, simulator.url, **given), home / "api.log")
        await asyncio.to_thread(stack.enter_context, running(api))
        yield Setup(postgres, valkey, simulator, books, api, await books.account(), spool, deadline_s)


def family(pid: int) -> Sequence[psutil.Process]:
    """Returns a server and its children."""
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]


def _at(url: str, *, user: str | None = None, database: str | None = None) -> str:
    """Returns the URL of the same server for another user or database."""
    parts = urlsplit(url)
    if user is not None:
        parts = parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}")
    if database is not None:
        parts = parts._replace(path=f"/{database}")
    return urlunsplit(parts)
