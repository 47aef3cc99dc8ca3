"""Postgres sessions (`Database`), plain asyncpg connections (`Connections`), and the base of all models.

SQLAlchemy sessions serve everything off the hot path; the group committers have asyncpg connections of their own. An
outage (`core.resilience.outage`) raises `Unavailable` within the deadline (`core.resilience.deadline`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import MetaData, text
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
"""The part of the timeout spent waiting for a pooled connection; the rest distinguishes a busy pool from an outage."""
_IDLE_S = 60
"""Idle time after which a pool closes connections opened for a peak or an outage."""
_COMMAND_TIMEOUTS = 3
"""The statement timeout of `Connections`, in connection timeouts: a statement may sum a tenant's month."""
_CONFINE = text(f"SELECT set_config('role', '{TENANT}', true), set_config('{TENANT_SETTING}', :tenant_id, true)")
"""For this transaction only (`true`), so it works behind a pooler and ends with a rollback."""


class Base(DeclarativeBase):
    """The base of every table; each model is defined in the package that owns it."""

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

        `shares` divides the connections among their owners.
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
        """Opens a transaction, committed at the end of the block, rolled back by any error.

        With `tenant_id`, row-level security confines it to that tenant's rows (migrations.access). `patient`: long
        statements are allowed (a report), and only the wait for the connection is bounded. Raises Unavailable for an
        outage, Overloaded when the owner's share of the connections stays in use.
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
                except PoolTimeoutError as error:  # all connections are in use; Postgres itself may be up
                    raise Overloaded from error
                except STORE_ERRORS as error:
                    raise Unavailable from error
                try:
                    if tenant_id is not None:
                        await session.execute(_CONFINE, {"tenant_id": str(tenant_id)})
                    yield session
                    await session.commit()
                except STORE_ERRORS as error:
                    if _must_close(error):
                        connection.terminate()
                        await session.invalidate()
                    raise

    async def close(self) -> None:
        """Closes the batched reads and every connection of the pool."""
        for close in self.closing:
            await close()
        await self.engine.dispose()

    async def _connect(self, session: AsyncSession, *deadlines: Deadline) -> Any:
        """Gives the session a connection that just answered, discarding closed ones.

        Replaces SQLAlchemy's own ping, which a deadline cannot end: when cancelled it waits for a hanging server.
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


class Connections:
    """A small pool of plain asyncpg connections."""

    def __init__(
        self, url: str | PostgresUrl, *, max_size: int = 4, timeout_s: float = 5, shares: FairPool | None = None
    ) -> None:
        """`shares` divides the connections among their owners."""
        self.url, self.timeout_s = postgres_url(url), timeout_s
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self._shares = shares
        self._max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def start(self) -> None:
        """Connects. Raises STORE_ERRORS when Postgres is down."""
        self._pool = await asyncpg.create_pool(
            min_size=1, max_size=self._max_size, max_inactive_connection_lifetime=_IDLE_S, connect=self._connect
        )

    async def close(self) -> None:
        """Closes the batched reads and every connection."""
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
        """Lends a connection to the block, which the timeout bounds. Raises as `Database.session`.

        `patient`: only the wait for the connection, and each statement by its own timeout, are bounded.
        """
        if self._pool is None:
            raise Unavailable
        with outages_as_unavailable():
            async with within(None if patient else self.timeout_s) as deadline, _place(self._shares):
                try:
                    connection = await self._pool.acquire(timeout=POOL_WAIT * self.timeout_s)
                except TimeoutError as error:
                    if self._pool.get_size() == self._max_size and not self._pool.get_idle_size():  # all are in use
                        raise Overloaded from error
                    raise Unavailable from error
                except STORE_ERRORS as error:
                    raise Unavailable from error
                try:
                    deadline.watch(connection)
                    yield connection
                except STORE_ERRORS as error:
                    if _must_close(error):
                        with suppress(asyncpg.InterfaceError):  # the deadline closed it already
                            connection.terminate()
                    raise
                finally:
                    await self._pool.release(connection)


def _place(shares: FairPool | None) -> AbstractAsyncContextManager[None]:
    """Waits for a place of the current task's owner."""
    owner = OWNER.get()  # None: the process's own work, for which pools reserve room
    return nullcontext() if shares is None or owner is None else shares.wait(owner)


def _must_close(error: BaseException) -> bool:
    """Whether to close a connection after the error: a new one may reach another server, or have other settings."""
    return is_outage(error) and not isinstance(driver_error(error), COLLISIONS)


def engine_of(url: PostgresUrl, *, timeout_s: float, command_timeout_s: float | None, **options: Any) -> AsyncEngine:
    """Returns an engine over `connect`; `options` are those of its pool."""

    async def open_connection() -> Connection:
        return await connect(url, "naka", timeout_s=timeout_s, command_timeout_s=command_timeout_s)

    unnamed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}  # str() is the empty name
    statements: dict[str, Any] = unnamed if url.pooler == "transaction" else {}
    engine: AsyncEngine = create_async_engine(
        "postgresql+asyncpg://",
        hide_parameters=True,
        creator=lambda: engine.dialect.loaded_dbapi.connect(async_creator_fn=open_connection, **statements),
        **options,
    )
    return engine
