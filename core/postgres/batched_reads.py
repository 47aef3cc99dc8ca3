"""Batched reads by key: all keys that wait while one statement runs are read by the next. No timer, no wait.

A statement starts after its keys were requested, so an answer is never older than its request. A read that waits too
long raises `Overloaded`. Postgres down, or silent for `timeout_s`: `Unavailable`, for all waiting reads at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from core.errors import Overloaded, Unavailable
from core.logs import get_logger
from core.postgres.connection import Connection, connect_keyed
from core.postgres.url import PostgresUrl
from core.resilience.outage import STORE_ERRORS, is_outage
from core.tasks import end

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Fetch = Callable[[Connection, list[K]], Awaitable[Mapping[K, V]]]
"""Reads all keys in one statement; keys without a value are left out."""

_MAX_BATCH = 128
_WAIT_FACTOR = 3
"""The longest wait of a read, in statement timeouts."""

_STOPPING = "This server is restarting. Try again."

log = get_logger(__name__)


class Server(Protocol):
    """A database whose `close` also closes the reads."""

    url: PostgresUrl
    timeout_s: float
    closing: list[Callable[[], Awaitable[None]]]


class BatchedReads(Generic[K, V]):
    """One kind of read, on one connection of its own, opened on first use."""

    def __init__(self, name: str, server: Server, fetch: Fetch[K, V], *, wait_s: float | None = None) -> None:
        """`wait_s`: the longest wait of a read, including earlier batches."""
        self._name = name
        self._server = server
        self._fetch = fetch
        self._wait_s = _WAIT_FACTOR * server.timeout_s if wait_s is None else wait_s
        self._waiting: list[tuple[K, asyncio.Future[V | None]]] = []
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        server.closing.append(self.close)

    async def get(self, key: K) -> V | None:
        """Returns the value of the key; None without one. Raises Unavailable, Overloaded."""
        if self._closed:
            raise Unavailable(_STOPPING)
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"reads-{self._name}")
        try:
            async with asyncio.timeout(self._wait_s):
                return await answer
        except TimeoutError as error:
            log.warning("reads_overloaded", reads=self._name, waiting=len(self._waiting))
            raise Overloaded from error

    async def close(self) -> None:
        """Fails the waiting reads and closes the connection."""
        self._closed = True
        if self._task is not None:
            await end(self._task)
        self._fail(Unavailable(_STOPPING))
        self._disconnect()

    async def _work(self) -> None:
        """Runs batches until no read waits."""
        batch: list[tuple[K, asyncio.Future[V | None]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
                batch = [(key, answer) for key, answer in batch if not answer.done()]  # some timed out
                if batch:
                    await self._answer(batch)
        finally:
            self._task = None
            _fail(batch, Unavailable(_STOPPING))

    async def _answer(self, batch: "list[tuple[K, asyncio.Future[V | None]]]") -> None:
        try:
            found = await self._read(list(dict.fromkeys(key for key, _ in batch)))
        except Unavailable as error:
            _fail(batch, error)
            self._fail(error)  # the waiting reads would fail the same way, only later
        except Exception as error:  # noqa: BLE001 - any error must reach the waiting reads, and end only this batch
            log.critical("reads_failed", reads=self._name, error=repr(error))
            _fail(batch, error)
        else:
            for key, answer in batch:
                if not answer.done():
                    answer.set_result(found.get(key))

    async def _read(self, keys: list[K]) -> Mapping[K, V]:
        """Runs one statement; once more if the connection turns out to have been closed while idle."""
        try:
            async with asyncio.timeout(self._server.timeout_s):
                if self._connection is not None and not self._connection.is_closed():
                    try:
                        return await self._fetch(self._connection, keys)
                    except TimeoutError:
                        raise
                    except STORE_ERRORS as error:
                        if not is_outage(error):
                            raise
                        self._disconnect(error)
                self._connection = await connect_keyed(
                    self._server.url, f"naka-{self._name}", timeout_s=self._server.timeout_s
                )
                return await self._fetch(self._connection, keys)
        except STORE_ERRORS as error:
            if not is_outage(error):
                raise
            self._disconnect(error)
            raise Unavailable from error

    def _disconnect(self, error: BaseException | None = None) -> None:
        connection, self._connection = self._connection, None
        if error is not None:
            log.warning("reads_disconnected", reads=self._name, error=type(error).__name__)
        if connection is not None:
            connection.terminate()  # reads have no state to end in order

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        _fail(waiting, error)


def _fail(batch: "list[tuple[Any, asyncio.Future[Any]]]", error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
