"""Reads of single things, batched: whatever waits while one statement runs is read by the next. No timer, no wait.

For caches of the request path, where many misses may come at once: a thousand of them cost a few statements and one
connection, and a miss waits for its turn instead of for a connection. A wait that takes too long is `Overloaded`: the
database answers, only not that fast. Postgres away, or silent for `timeout_s`: `Unavailable`, at once for everybody
who waits.

A read begins after it was asked for, so its answer is never older than the question.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from core.errors import Overloaded, Unavailable
from core.logs import get_logger
from core.postgres.connection import Connection, connect
from core.postgres.url import PostgresUrl
from core.resilience.outage import STORE_ERRORS, is_outage
from core.tasks import end

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Fetch = Callable[[Connection, list[K]], Awaitable[Mapping[K, V]]]
"""Reads all of the keys in one statement; a key without an answer is left out."""

_MAX_BATCH = 128
_PATIENCE = 3
"""A read waits for its turn this many times as long as a statement may take."""
# A plan that was made while a table was small must not scan it once it has grown.
_PLANNER = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}

log = get_logger(__name__)


class Server(Protocol):
    """Where to connect to, and what closes the reads with it."""

    url: PostgresUrl
    timeout_s: float
    closing: list[Callable[[], Awaitable[None]]]


class BatchedReads(Generic[K, V]):
    """One kind of read, on one connection of its own, which is made when it is first needed."""

    def __init__(self, name: str, server: Server, fetch: Fetch[K, V], *, wait_s: float | None = None) -> None:
        """`wait_s`: how long a read waits for its answer at most, batches before its own included."""
        self._name = name
        self._server = server
        self._fetch = fetch
        self._wait_s = _PATIENCE * server.timeout_s if wait_s is None else wait_s
        self._waiting: list[tuple[K, asyncio.Future[V | None]]] = []
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        server.closing.append(self.close)

    async def get(self, key: K) -> V | None:
        """What there is for the key. Raises Unavailable, Overloaded."""
        if self._closed:
            raise Unavailable("this process stops")
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"reads-{self._name}")
        try:
            async with asyncio.timeout(self._wait_s):
                return await answer
        except TimeoutError as error:
            log.warning("reads_overloaded", reads=self._name, waiting=len(self._waiting))
            raise Overloaded("too many requests wait for the database") from error

    async def close(self) -> None:
        """Fails what waits, and closes the connection."""
        self._closed = True
        if self._task is not None:
            await end(self._task)
        self._fail(Unavailable("this process stops"))
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()  # it only reads: there is nothing to end in good order

    async def _work(self) -> None:
        """Until nobody waits."""
        batch: list[tuple[K, asyncio.Future[V | None]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
                batch = [(key, answer) for key, answer in batch if not answer.done()]  # some waited too long, or left
                if batch:
                    await self._answer(batch)
        finally:
            self._task = None
            _fail(batch, Unavailable("this process stops"))

    async def _answer(self, batch: "list[tuple[K, asyncio.Future[V | None]]]") -> None:
        try:
            found = await self._read(list(dict.fromkeys(key for key, _ in batch)))
        except Unavailable as error:
            _fail(batch, error)
            self._fail(error)  # who waits behind them would hear the same, only later
        except Exception as error:  # noqa: BLE001 - whatever it is, those who asked are to hear it, and the next may ask
            log.critical("reads_failed", reads=self._name, error=repr(error))
            _fail(batch, error)
        else:
            for key, answer in batch:
                if not answer.done():
                    answer.set_result(found.get(key))

    async def _read(self, keys: list[K]) -> Mapping[K, V]:
        """One statement; again, once, where the connection turns out to have been closed while it was idle."""
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
                self._connection = await self._connect()
                return await self._fetch(self._connection, keys)
        except STORE_ERRORS as error:
            if not is_outage(error):
                raise
            self._disconnect(error)
            raise Unavailable("the database does not answer") from error

    async def _connect(self) -> Connection:
        return await connect(
            self._server.url, f"naka-{self._name}", timeout_s=self._server.timeout_s, settings=_PLANNER
        )

    def _disconnect(self, error: BaseException) -> None:
        connection, self._connection = self._connection, None
        log.warning("reads_disconnected", reads=self._name, error=type(error).__name__)
        if connection is not None:
            connection.terminate()

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        _fail(waiting, error)


def _fail(batch: "list[tuple[Any, asyncio.Future[Any]]]", error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
