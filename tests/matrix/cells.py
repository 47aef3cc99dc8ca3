"""The cells: a failure of a store, and the expected behaviour while it lasts. A new one is a line in `CELLS`.

Each failure is a context manager that starts and ends it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import psutil

from core.postgres.roles import APPLICATION
from sandbox.postgres import DATABASE
from tests.matrix.setup import PASSWORD, ROLE, Setup, family

Harm = Callable[[Setup], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Cell:
    """`refuses`: whether new requests get 503 meanwhile, or are served. `reason`: the reason in `/readyz`."""

    name: str
    harm: Harm
    refuses: bool
    reason: str | None


def by_sql(harm: str, mend: str) -> Harm:
    """Statements of the superuser that affect new connections, so the API's are terminated before and after."""

    @asynccontextmanager
    async def harmed(setup: Setup) -> AsyncIterator[None]:
        await setup.execute(*harm.split(";"))
        await setup.cut()
        yield
        await setup.execute(*mend.split(";"))

    return harmed


def locked(statement: str, *, first: str = "") -> Harm:
    """An idle transaction that holds locks."""

    @asynccontextmanager
    async def harmed(setup: Setup) -> AsyncIterator[None]:
        if first:
            await setup.execute(first)
            await setup.cut()
        connection = await asyncpg.connect(setup.postgres.url)
        try:
            async with connection.transaction():
                await connection.execute(statement.replace("{tenant}", str(setup.account.tenant_id)))
                yield
        finally:
            await connection.close()
            if first:
                await setup.execute(f"ALTER ROLE {ROLE} RESET lock_timeout")

    return harmed


def changed(harm: str, mend: str) -> Harm:
    """A partial change of the schema or grants."""

    @asynccontextmanager
    async def harmed(setup: Setup) -> AsyncIterator[None]:
        await setup.books.fetch(harm)
        yield
        await setup.books.fetch(mend)

    return harmed


@asynccontextmanager
async def postgres_frozen(setup: Setup) -> AsyncIterator[None]:
    """Pauses all its processes: connections stay open, the kernel accepts new ones, nothing answers."""
    async with frozen(setup.postgres.pid):
        yield


@asynccontextmanager
async def redis_frozen(setup: Setup) -> AsyncIterator[None]:
    """Pauses Redis."""
    async with frozen(setup.valkey.pid):
        yield


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    """Sends SIGSTOP to a server and its children, and SIGCONT at the end."""
    everybody = family(pid)
    for process in everybody:
        _signal(process.suspend)
    try:
        yield
    finally:
        for process in everybody:
            _signal(process.resume)


def _signal(send: Callable[[], Any]) -> None:
    with suppress(psutil.NoSuchProcess):  # a backend that had just ended
        send()


@asynccontextmanager
async def postgres_stopped(setup: Setup) -> AsyncIterator[None]:
    """Stops the server."""
    await asyncio.to_thread(setup.postgres.stop)
    yield
    await asyncio.to_thread(setup.postgres.start)


@asynccontextmanager
async def redis_stopped(setup: Setup) -> AsyncIterator[None]:
    """Kills the server; it restarts empty."""
    await asyncio.to_thread(setup.valkey.kill)
    yield
    await asyncio.to_thread(setup.valkey.start)


AWAY = "away"
CELLS = (
    Cell("frozen", postgres_frozen, refuses=True, reason=AWAY),
    Cell("stopped", postgres_stopped, refuses=True, reason=AWAY),
    Cell(
        "password-changed",
        by_sql(f"ALTER ROLE {ROLE} PASSWORD 'another'", f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'"),
        refuses=True,
        reason=AWAY,
    ),
    Cell("nologin", by_sql(f"ALTER ROLE {ROLE} NOLOGIN", f"ALTER ROLE {ROLE} LOGIN"), refuses=True, reason=AWAY),
    Cell(
        "connect-revoked",
        by_sql(
            f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC, {APPLICATION}, {ROLE}",
            f"GRANT CONNECT ON DATABASE {DATABASE} TO PUBLIC, {APPLICATION}",
        ),
        refuses=True,
        reason=AWAY,
    ),
    Cell(
        "not-accepting",
        by_sql(
            f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false", f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true"
        ),
        refuses=True,
        reason=AWAY,
    ),
    Cell(
        "too-many-connections",
        by_sql(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"),
        refuses=True,
        reason=AWAY,
    ),
    Cell(
        "read-only",
        by_sql(
            f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
            f"ALTER ROLE {ROLE} RESET default_transaction_read_only",
        ),
        refuses=True,
        reason="read_only",
    ),
    Cell(
        "statement-timeout",
        by_sql(f"ALTER ROLE {ROLE} SET statement_timeout = 1", f"ALTER ROLE {ROLE} RESET statement_timeout"),
        refuses=True,
        reason=None,  # some statements are quick enough: it is not looked at
    ),
    Cell("table-locked", locked("LOCK TABLE usage_requests IN ACCESS EXCLUSIVE MODE"), refuses=True, reason="locked"),
    Cell(
        "lock-timeout",
        locked(
            "LOCK TABLE usage_requests IN SHARE ROW EXCLUSIVE MODE",
            first=f"ALTER ROLE {ROLE} SET lock_timeout = 100",
        ),
        refuses=True,
        reason="locked",
    ),
    Cell(
        "tenant-locked",
        locked("SELECT FROM tenant_epochs WHERE tenant_id = '{tenant}' FOR UPDATE"),
        refuses=True,
        reason=None,
    ),
    Cell(
        "rows-locked",
        locked("SELECT FROM usage_requests WHERE tenant_id = '{tenant}' AND state = 'open' FOR UPDATE"),
        refuses=False,
        reason=None,
    ),
    Cell(
        "table-renamed",
        changed("ALTER TABLE usage_requests RENAME TO away", "ALTER TABLE away RENAME TO usage_requests"),
        refuses=True,
        reason="no_schema",
    ),
    Cell(
        "write-revoked",
        changed(
            f"REVOKE INSERT, UPDATE ON usage_requests FROM {APPLICATION}",
            f"GRANT INSERT, UPDATE ON usage_requests TO {APPLICATION}",
        ),
        refuses=True,
        reason="no_schema",
    ),
    Cell("redis-frozen", redis_frozen, refuses=False, reason=None),
    Cell("redis-stopped", redis_stopped, refuses=False, reason=None),
)
