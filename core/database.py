"""Postgres: the declarative base of all models, and the ways to connect.

Sessions (SQLAlchemy) serve what is off the hot path: tenancy, plans, reports. The journal's lanes own a plain
asyncpg connection each, because they run two prepared statements and nothing else. Both come from one URL. An outage,
which `core.outage` tells from a mistake, is `Unavailable` within the deadline (`core.deadline`), however it shows.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from core.deadline import Deadline, within
from core.errors import Unavailable
from core.outage import COLLISIONS, STORE_ERRORS, driver_error, is_outage, outages_as_unavailable

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

_STATEMENT_S = 60
"""The longest statement of a patient session: a report over years."""


class Base(DeclarativeBase):
    """The base of every table; a model lives in the package that owns it."""

    metadata = MetaData(naming_convention=NAMING)


class Database:
    """The engine of this process and its sessions."""

    def __init__(self, url: str, *, pool_size: int = 5, timeout_s: float = 5, session_s: float | None = None) -> None:
        """`timeout_s` bounds the wait for a connection, `session_s` a whole session (None: only its statements)."""
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=timeout_s,
            hide_parameters=True,
            connect_args={
                "timeout": timeout_s,
                "command_timeout": _STATEMENT_S,
                "server_settings": {"application_name": "naka"},
            },
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._pooled = 2 * pool_size
        self._timeout_s = timeout_s
        self._session_s = session_s

    @asynccontextmanager
    async def session(self, *, patient: bool = False) -> AsyncIterator[AsyncSession]:
        """One short transaction: committed at the end of the block, rolled back by any error.

        `patient`: its statements may take long (a report), so only the wait for the connection is bounded. Raises
        Unavailable for an outage.
        """
        with outages_as_unavailable():
            async with within(None if patient else self._session_s) as deadline, self._sessions() as session:
                try:
                    async with within(self._timeout_s) as connecting:
                        connection = await self._connect(session, connecting, deadline)
                except STORE_ERRORS as error:
                    raise Unavailable("the database cannot be reached") from error
                try:
                    yield session
                    await session.commit()
                except STORE_ERRORS as error:
                    if _is_spoilt_by(error):
                        connection.terminate()
                        await session.invalidate()
                    raise

    async def close(self) -> None:
        """Closes every connection of the pool."""
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

    def __init__(self, url: str, *, max_size: int = 4, timeout_s: float = 5) -> None:
        self._dsn = asyncpg_dsn(url)
        self._max_size = max_size
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def start(self) -> None:
        """Connects. Raises one of `core.outage.STORE_ERRORS` when Postgres is not there."""
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=1,
            max_size=self._max_size,
            timeout=self._timeout_s,
            command_timeout=_COMMAND_TIMEOUTS * self._timeout_s,
        )

    async def close(self) -> None:
        """Closes every connection."""
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def acquire(self, *, patient: bool = False) -> AsyncIterator[Any]:
        """A connection for the block, which is over within the time-out. Raises Unavailable for an outage.

        `patient`: only the wait for the connection is bounded, and each statement by its own time-out.
        """
        if self._pool is None:
            raise Unavailable("the database is not connected")
        with outages_as_unavailable():
            async with within(None if patient else self._timeout_s) as deadline:
                try:
                    connection = await self._pool.acquire(timeout=self._timeout_s)
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


def _is_spoilt_by(error: BaseException) -> bool:
    """Whether a connection that met the error is given up: a new one may lead elsewhere, or have other settings."""
    return is_outage(error) and not isinstance(driver_error(error), COLLISIONS)


def asyncpg_dsn(url: str) -> str:
    """The same URL in the form asyncpg takes: without SQLAlchemy's driver suffix."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
