"""Postgres: the declarative base of all models, and the ways to connect.

Sessions (SQLAlchemy) serve what is off the hot path: tenancy, plans, reports. The journal's lanes own a plain
asyncpg connection each, because they run two prepared statements and nothing else. Both come from one URL.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from core.errors import Overloaded, Unavailable

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


BACKEND_SETTINGS = {"application_name": "naka", "client_connection_check_interval": "1s"}
"""Of every connection: Postgres looks whether its client is still there while a statement waits or runs. Else one that
hangs, on a lock for instance, would keep its backend for as long as it hangs, and each new try would add another."""
_IDLE_S = 60
"""A pool gives back what it opened for a crowd, or in an outage, once it has not been needed for this long."""


class Base(DeclarativeBase):
    """The base of every table; a model lives in the package that owns it."""

    metadata = MetaData(naming_convention=NAMING)


class Database:
    """The engine of this process and its sessions. `session()` turns an outage into `Unavailable`."""

    def __init__(self, url: str, *, pool_size: int = 5, timeout_s: float = 5) -> None:
        self.dsn, self.timeout_s = asyncpg_dsn(url), timeout_s
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self.engine: AsyncEngine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=timeout_s,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": timeout_s, "command_timeout": 60, "server_settings": BACKEND_SETTINGS},
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One short transaction: committed at the end of the block, rolled back by any error."""
        try:
            async with self._sessions() as session, session.begin():
                yield session
        except PoolTimeoutError as error:  # every connection is in use: whether Postgres answers, nobody has asked
            raise Overloaded("too many requests wait for the database") from error
        except CONNECTION_ERRORS as error:
            raise Unavailable("the database does not answer") from error
        except DBAPIError as error:
            if error.connection_invalidated or _is_outage(error):
                raise Unavailable("the database does not answer") from error
            raise

    async def close(self) -> None:
        """Closes every connection of the pool, and what reads beside it (core.reads)."""
        for close in self.closing:
            await close()
        await self.engine.dispose()


_COMMAND_TIMEOUTS = 3
"""A statement of the pool may take this many times what a connection may: it may sum a tenant's month."""


class Connections:
    """A small pool of plain asyncpg connections, for what is too rare for a lane and too raw for a session."""

    def __init__(self, url: str, *, max_size: int = 4, timeout_s: float = 5) -> None:
        self.dsn, self.timeout_s = asyncpg_dsn(url), timeout_s
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self._max_size = max_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def start(self) -> None:
        """Connects. Raises one of CONNECTION_ERRORS when Postgres is not there."""
        self._pool = await asyncpg.create_pool(
            self.dsn,
            min_size=1,
            max_size=self._max_size,
            timeout=self.timeout_s,
            command_timeout=_COMMAND_TIMEOUTS * self.timeout_s,
            max_inactive_connection_lifetime=_IDLE_S,
            server_settings=BACKEND_SETTINGS,
        )

    async def close(self) -> None:
        """Closes every connection, and what reads beside them (core.reads)."""
        for close in self.closing:
            await close()
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """A connection for the block. Raises Unavailable when there is none, or when it breaks."""
        if self._pool is None:
            raise Unavailable("the database is not connected")
        acquired = False
        try:
            async with self._pool.acquire(timeout=self.timeout_s) as connection:
                acquired = True
                yield connection
        except TimeoutError as error:
            if not acquired and self._is_in_use():
                raise Overloaded("too many requests wait for the database") from error
            raise Unavailable("the database does not answer") from error
        except CONNECTION_ERRORS as error:
            raise Unavailable("the database does not answer") from error

    def _is_in_use(self) -> bool:
        """Whether every connection that there may be is there, and works for somebody."""
        return self._pool is not None and self._pool.get_size() == self._max_size and not self._pool.get_idle_size()


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
