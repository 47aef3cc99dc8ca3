"""Postgres: the declarative base of all models, and the ways to connect.

Sessions (SQLAlchemy) serve what is off the hot path: tenancy, plans, reports. The journal's lanes own a plain
asyncpg connection each, because they run two prepared statements and nothing else. Both come from one URL. An outage,
which `core.resilience.outage` tells from a mistake, is `Unavailable` within the deadline (`core.resilience.deadline`),
however it shows.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from core.errors import Overloaded, Unavailable
from core.postgres.connection import Connection, connect
from core.postgres.roles import TENANT, TENANT_SETTING
from core.postgres.url import PostgresUrl, postgres_url
from core.resilience.deadline import Deadline, within
from core.resilience.outage import COLLISIONS, STORE_ERRORS, driver_error, is_outage, outages_as_unavailable
from core.resilience.shares import OWNER, FairPool

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

_STATEMENT_S = 60
"""The longest statement of a patient session: a report over years."""


POOL_WAIT = 0.8
"""The share of the time-out that a wait for a place in a pool may take: it tells a busy pool from a silent server."""
_IDLE_S = 60
"""A pool gives back what it opened for a crowd, or in an outage, once it has not been needed for this long."""


_CONFINE = text(f"SELECT set_config('role', '{TENANT}', true), set_config('{TENANT_SETTING}', :tenant_id, true)")
"""For this transaction only (`true`), so that it holds behind a pooler and ends with a rollback, too."""


class Base(DeclarativeBase):
    """The base of every table; a model lives in the package that owns it."""

    metadata = MetaData(naming_convention=NAMING)


class Database:
    """The engine of this process and its sessions."""

    def __init__(
        self,
        url: str | PostgresUrl,
        *,
        pool_size: int = 5,
        timeout_s: float = 5,
        session_s: float | None = None,
        shares: FairPool | None = None,
    ) -> None:
        """`timeout_s` bounds the wait for a connection, `session_s` a whole session (None: only its statements).

        `shares` divides the connections among the owners that sessions are opened for.
        """
        self.url, self.timeout_s = postgres_url(url), timeout_s
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self._shares = shares
        self.engine = engine_of(
            self.url,
            timeout_s=timeout_s,
            command_timeout_s=_STATEMENT_S,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=POOL_WAIT * timeout_s,
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._pooled = 2 * pool_size
        self._session_s = session_s

    @asynccontextmanager
    async def session(self, *, tenant_id: UUID | None = None, patient: bool = False) -> AsyncIterator[AsyncSession]:
        """One short transaction: committed at the end of the block, rolled back by any error.

        With `tenant_id` Postgres confines it to this tenant's rows, whatever its statements say (migrations.access).
        `patient`: its statements may take long (a report), so only the wait for the connection is bounded. Raises
        Unavailable for an outage, Overloaded when the owner's share of the connections stays in use.
        """
        with outages_as_unavailable():
            async with (
                within(None if patient else self._session_s) as deadline,
                _place(self._shares),
                self._sessions() as session,
            ):
                try:
                    async with within(self.timeout_s) as connecting:
                        connection = await self._connect(session, connecting, deadline)
                except PoolTimeoutError as error:  # all connections are in use: nobody asked whether Postgres answers
                    raise Overloaded("too many requests wait for the database") from error
                except STORE_ERRORS as error:
                    raise Unavailable("the database cannot be reached") from error
                try:
                    if tenant_id is not None:
                        await session.execute(_CONFINE, {"tenant_id": str(tenant_id)})
                    yield session
                    await session.commit()
                except STORE_ERRORS as error:
                    if _is_spoilt_by(error):
                        connection.terminate()
                        await session.invalidate()
                    raise

    async def close(self) -> None:
        """Closes every connection of the pool, and what reads beside it (core.postgres.batched_reads)."""
        for close in self.closing:
            await close()
        await self.engine.dispose()

    async def _connect(self, session: AsyncSession, *deadlines: Deadline) -> Any:
        """Gives the session a connection that answered just now. Those in the pool that were closed are discarded.

        In place of SQLAlchemy's own ping, which nobody can watch: cancelled, it waits for a server that hangs.
        """
        for left in reversed(range(self._pooled + 1)):
            connection = await session.connection()
            plain: Any = (await connection.get_raw_connection()).driver_connection
            for deadline in deadlines:
                deadline.watch(plain)
            try:
                await plain.execute("SELECT 1")
            except STORE_ERRORS:
                if not left or not plain.is_closed():
                    raise
                await session.invalidate()
            else:
                return plain
        raise AssertionError("unreachable")


_COMMAND_TIMEOUTS = 3
"""A statement of the pool may take this many times what a connection may: it may sum a tenant's month."""


class Connections:
    """A small pool of plain asyncpg connections, for what is too rare for a lane and too raw for a session."""

    def __init__(
        self, url: str | PostgresUrl, *, max_size: int = 4, timeout_s: float = 5, shares: FairPool | None = None
    ) -> None:
        """`shares` divides the connections among the owners that they are acquired for."""
        self.url, self.timeout_s = postgres_url(url), timeout_s
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self._shares = shares
        self._max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def start(self) -> None:
        """Connects. Raises one of `core.resilience.outage.STORE_ERRORS` when Postgres is not there."""
        self._pool = await asyncpg.create_pool(
            min_size=1, max_size=self._max_size, max_inactive_connection_lifetime=_IDLE_S, connect=self._connect
        )

    async def close(self) -> None:
        """Closes every connection, and what reads beside them (core.postgres.batched_reads)."""
        for close in self.closing:
            await close()
        if self._pool is not None:
            await self._pool.close()

    async def _connect(self, *_: Any, **__: Any) -> Connection:
        return await connect(
            self.url, "naka", timeout_s=self.timeout_s, command_timeout_s=_COMMAND_TIMEOUTS * self.timeout_s
        )

    @asynccontextmanager
    async def acquire(self, *, patient: bool = False) -> AsyncIterator[Any]:
        """A connection for the block, which is over within the time-out. Raises as `Database.session`.

        `patient`: only the wait for the connection is bounded, and each statement by its own time-out.
        """
        if self._pool is None:
            raise Unavailable("the database is not connected")
        with outages_as_unavailable():
            async with within(None if patient else self.timeout_s) as deadline, _place(self._shares):
                try:
                    connection = await self._pool.acquire(timeout=POOL_WAIT * self.timeout_s)
                except TimeoutError as error:
                    if self._is_in_use():
                        raise Overloaded("too many requests wait for the database") from error
                    raise Unavailable("the database cannot be reached") from error
                except STORE_ERRORS as error:
                    raise Unavailable("the database cannot be reached") from error
                try:
                    deadline.watch(connection)
                    yield connection
                except STORE_ERRORS as error:
                    if _is_spoilt_by(error):
                        with suppress(asyncpg.InterfaceError):  # the deadline has closed it already
                            connection.terminate()
                    raise
                finally:
                    await self._pool.release(connection)

    def _is_in_use(self) -> bool:
        """Whether every connection that there may be is there, and works for somebody."""
        return self._pool is not None and self._pool.get_size() == self._max_size and not self._pool.get_idle_size()


def _place(shares: FairPool | None) -> AbstractAsyncContextManager[None]:
    """A place for whoever the current task works for."""
    owner = OWNER.get()  # none: the process's own work, for which pools leave room
    return nullcontext() if shares is None or owner is None else shares.wait(owner)


def _is_spoilt_by(error: BaseException) -> bool:
    """Whether a connection that met the error is given up: a new one may lead elsewhere, or have other settings."""
    return is_outage(error) and not isinstance(driver_error(error), COLLISIONS)


def engine_of(url: PostgresUrl, *, timeout_s: float, command_timeout_s: float | None, **options: Any) -> AsyncEngine:
    """SQLAlchemy's engine over `connect`; `options` are those of its pool."""

    async def made() -> Connection:
        return await connect(url, "naka", timeout_s=timeout_s, command_timeout_s=command_timeout_s)

    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}  # str() is the empty name
    statements: dict[str, Any] = unnamed if url.pooler == "transaction" else {}
    engine: AsyncEngine = create_async_engine(
        "postgresql+asyncpg://",
        hide_parameters=True,
        creator=lambda: engine.dialect.loaded_dbapi.connect(async_creator_fn=made, **statements),
        **options,
    )
    return engine


def asyncpg_dsn(url: str) -> str:
    """The same URL in the form asyncpg takes, for tests: the product connects by `core.postgres.connection`."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
