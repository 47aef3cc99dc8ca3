"""Postgres: the declarative base of all models, and the ways to connect.

Sessions (SQLAlchemy) serve what is off the hot path: tenancy, plans, reports. The journal's lanes own a plain
asyncpg connection each, because they run two prepared statements and nothing else. Both come from one URL.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from core.errors import Unavailable
from core.shares import OWNER, Shares

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what is said when the server closed the connection while it was idle
    asyncpg.OperatorInterventionError,  # shutting down, starting up, cancelled
    asyncpg.InsufficientResourcesError,  # no connection, memory or disk left
    asyncpg.PostgresSystemError,  # its own I/O failed
    asyncpg.ReadOnlySQLTransactionError,  # a replica, in the middle of a failover
)
"""What asyncpg raises when the server is away, going, or full: an outage, not a mistake of ours."""


class Base(DeclarativeBase):
    """The base of every table; a model lives in the package that owns it."""

    metadata = MetaData(naming_convention=NAMING)


class Database:
    """The engine of this process and its sessions. `session()` turns an outage into `Unavailable`."""

    def __init__(self, url: str, *, pool_size: int = 5, timeout_s: float = 5, shares: Shares | None = None) -> None:
        """`shares` divides the connections among the owners that sessions are opened for."""
        self._shares = shares
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=timeout_s,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": timeout_s, "command_timeout": 60, "server_settings": {"application_name": "naka"}},
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One short transaction: committed at the end of the block, rolled back by any error.

        Raises PoolFull when the owner's share of the connections is in use and none of them comes back in time.
        """
        try:
            async with _place(self._shares), self._sessions() as session, session.begin():
                yield session
        except (*CONNECTION_ERRORS, PoolTimeoutError) as error:
            raise Unavailable("the database does not answer") from error
        except DBAPIError as error:
            if error.connection_invalidated or _is_outage(error):
                raise Unavailable("the database does not answer") from error
            raise

    async def close(self) -> None:
        """Closes every connection of the pool."""
        await self.engine.dispose()


_COMMAND_TIMEOUTS = 3
"""A statement of the pool may take this many times what a connection may: it may sum a tenant's month."""


class Connections:
    """A small pool of plain asyncpg connections, for what is too rare for a lane and too raw for a session."""

    def __init__(self, url: str, *, max_size: int = 4, timeout_s: float = 5, shares: Shares | None = None) -> None:
        """`shares` divides the connections among the owners that they are acquired for."""
        self._shares = shares
        self._dsn = asyncpg_dsn(url)
        self._max_size = max_size
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def start(self) -> None:
        """Connects. Raises one of CONNECTION_ERRORS when Postgres is not there."""
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
    async def acquire(self) -> AsyncIterator[Any]:
        """A connection for the block. Raises Unavailable when there is none or it breaks, and PoolFull as `session`."""
        if self._pool is None:
            raise Unavailable("the database is not connected")
        try:
            async with _place(self._shares), self._pool.acquire(timeout=self._timeout_s) as connection:
                yield connection
        except CONNECTION_ERRORS as error:
            raise Unavailable("the database does not answer") from error


def _place(shares: Shares | None) -> AbstractAsyncContextManager[None]:
    """A place for whoever the current task works for."""
    owner = OWNER.get()  # none: the process's own work, for which pools leave room
    return nullcontext() if shares is None or owner is None else shares.wait(owner)


def _is_outage(error: DBAPIError) -> bool:
    """Whether the driver's own error, which SQLAlchemy wraps twice, was an outage."""
    cause: BaseException | None = error.orig
    while cause is not None:
        if isinstance(cause, CONNECTION_ERRORS):
            return True
        cause = cause.__cause__
    return False


def asyncpg_dsn(url: str) -> str:
    """The same URL in the form asyncpg takes: without SQLAlchemy's driver suffix."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
