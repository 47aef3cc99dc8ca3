"""Group commit: the rows that queue up while one batch commits are the next batch. No timer, no wait when idle.

A committer owns one connection and runs one statement at a time. It tells failures apart:

- a row is at fault (`core.resilience.outage.is_row_fault`): each row is tried alone, and only the faulty one fails;
- two batches collided (deadlock, serialization): the batch is tried again;
- an outage that the server itself reported (a lock or statement time-out, read-only), or a failed connect: nothing was
  written, and the batch fails with Unavailable;
- an outage in which the connection broke or timed out: the batch may have been committed. `in_doubt` looks it up on a
  new connection before anybody gets an answer.

A committer with a spillover hands it the batch in any outage, and every batch after that until the spillover knows that
Postgres is back.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from core.errors import InDoubt, NakaError, Unavailable
from core.logs import get_logger
from core.postgres.connection import Connection, connect_keyed
from core.postgres.url import PostgresUrl, postgres_url
from core.resilience.deadline import margin_s
from core.resilience.outage import COLLISIONS, STORE_ERRORS, is_outage, is_row_fault, is_undone

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Run = Callable[[Connection, list[Item]], Awaitable[list[Answer]]]

_COLLISION_TRIES = 5
_MAX_BATCH = 128
_IN_DOUBT_TRIES = 5

log = get_logger(__name__)


class Spillover(Protocol[Item, Answer]):
    """Keeps a committer's rows while Postgres is down."""

    @property
    def active(self) -> bool:
        """Whether Postgres is known to be down: the next rows then skip it."""

    async def spill(self, items: list[Item]) -> list[Answer]:
        """Stores the rows durably; an answer for each. Raises OSError."""


class Poisoned(NakaError):
    """Postgres refuses this row in any batch: a bug of this project, logged as critical."""


class _NotConnected(OSError):
    """Connecting failed, so nothing was sent."""


class GroupCommitter(Generic[Item, Answer]):
    """One queue, one connection, one statement of at most 128 rows at a time."""

    def __init__(
        self,
        name: str,
        url: str | PostgresUrl,
        run: Run[Item, Answer],
        in_doubt: Run[Item, Answer],
        *,
        timeout_s: float,
        retry_s: float | None,
        idle_s: float | None = None,
        spillover: Spillover[Item, Answer] | None = None,
    ) -> None:
        """`retry_s`: the pause between tries while Postgres is down; None: fail at once with Unavailable.

        `idle_s`: when an idle connection is closed; None: never.
        """
        self._name = name
        self._url = postgres_url(url)
        self._run = run
        self._in_doubt = in_doubt
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._idle_s = idle_s
        self._spillover = spillover
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def depth(self) -> int:
        """Rows that wait for the running commit."""
        return len(self._waiting)

    def start(self) -> None:
        """Starts the committer's task."""
        self._task = asyncio.create_task(self._work(), name=f"commit-{self._name}")

    async def stop(self, *, grace_s: float = 10) -> None:
        """Commits the queue within `grace_s`, spills the rest, and closes the connection."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.critical("committer_stopped_with_rows", committer=self._name, rows=len(self._waiting))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end_waiting()
        self._disconnect()
        await asyncio.gather(*self._ending)

    def submit(self, item: Item) -> "asyncio.Future[Answer]":
        """Queues a row. The future resolves once its batch is committed; cancelling it does not withdraw the row."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._idle.clear()
        self._wake.set()
        return future

    def withdraw(self, future: "asyncio.Future[Answer]") -> bool:
        """Withdraws a row that was not sent yet. False: it was sent, and its answer will come."""
        kept = [row for row in self._waiting if row[1] is not future]
        withdrawn = len(kept) < len(self._waiting)
        self._waiting = kept
        return withdrawn

    async def _work(self) -> None:
        while True:
            await self._wait_for_rows()
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            try:
                if batch:
                    await self._commit(batch)
            except asyncio.CancelledError:
                if self._spillover is None:
                    _fail(batch, InDoubt("this process is stopping"))
                else:
                    self._waiting[:0] = [row for row in batch if not _is_answered(row[1])]
                raise
            if not self._waiting:
                self._wake.clear()
                self._idle.set()

    async def _wait_for_rows(self) -> None:
        """Returns once a row is queued."""
        if self._idle_s is not None and self._connection is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s):
                    await self._wake.wait()
            if not self._waiting:
                self._disconnect()
        await self._wake.wait()

    async def _commit(self, batch: list[tuple[Item, "asyncio.Future[Answer]"]]) -> None:
        items = [item for item, _ in batch]
        try:
            answers = await self._spill(items) if self._spillover and self._spillover.active else None
            if answers is None:
                answers = await self._answers(items)
        except Unavailable as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - the task must survive any error: the queue has no other consumer
            if not is_row_fault(error):
                log.critical("committer_failed", committer=self._name, error=repr(error))
                _fail(batch, error)
            elif len(batch) > 1:
                log.warning("batch_poisoned", committer=self._name, rows=len(batch), error=type(error).__name__)
                for row in batch:
                    await self._commit([row])
            else:
                log.critical("row_poisoned", committer=self._name, error=type(error).__name__, item=repr(items[0]))
                _fail(batch, Poisoned("Postgres refuses this row"))
        else:
            _resolve(batch, answers)

    async def _answers(self, items: list[Item]) -> list[Answer]:
        """Runs the batch until its outcome is known.

        Without `retry_s`, raises Unavailable if certainly nothing was written, InDoubt if the outcome stays unknown.
        """
        run, collisions, failures = self._run, 0, 0
        while True:
            try:
                connection = await self._connect()
                return await run(connection, items)
            except STORE_ERRORS as error:
                if isinstance(error, COLLISIONS) and collisions < _COLLISION_TRIES:
                    collisions += 1
                    continue
                if not is_outage(error):
                    raise
                if self._connection is not None and not is_undone(error):
                    run = self._in_doubt  # it may be committed: look it up, do not send it again
                self._disconnect()
                cause = type(error.__cause__ or error).__name__
                log.warning("committer_disconnected", committer=self._name, error=cause)
                spilled = await self._spill(items)
                if spilled is not None:
                    return spilled
                if self._retry_s is None and run is self._run:
                    raise Unavailable("the database does not answer") from error
                failures += 1
                if self._retry_s is None and failures > _IN_DOUBT_TRIES:
                    raise InDoubt("the database does not answer") from error
                await asyncio.sleep(self._retry_s or 0.2)

    async def _spill(self, items: list[Item]) -> list[Answer] | None:
        """The spillover's answers; None without a spillover, or when it fails."""
        if self._spillover is None:
            return None
        try:
            return await self._spillover.spill(items)
        except Exception as error:  # noqa: BLE001 - whatever the disk says, Postgres may be back sooner
            log.critical("spillover_failed", committer=self._name, rows=len(items), error=repr(error))
            return None

    async def _connect(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = None
            within_s = self._timeout_s - margin_s(self._timeout_s)
            try:
                self._connection = await connect_keyed(
                    self._url, f"naka-{self._name}", timeout_s=within_s, command_timeout_s=within_s
                )
            except STORE_ERRORS as error:
                raise _NotConnected from error
        return self._connection

    def _disconnect(self) -> None:
        """Drops the connection at once, and closes it in the background once the server has ended its statement."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        ending = asyncio.create_task(_close(connection, margin_s(self._timeout_s)), name=f"commit-{self._name}-closes")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end_waiting(self) -> None:
        """Spills the queue; fails the rows that were not spilled, or came meanwhile."""
        waiting, self._waiting = self._waiting, []
        answers = await self._spill([item for item, _ in waiting]) if waiting else None
        if answers is not None:
            _resolve(waiting, answers)
        else:
            self._waiting[:0] = waiting
        waiting, self._waiting = self._waiting, []
        _fail(waiting, Unavailable("this process is stopping"))
        self._idle.set()


async def _close(connection: Connection, within_s: float) -> None:
    """Gives the server time to cancel a statement that timed out: else its backend keeps waiting for a lock."""
    try:
        async with asyncio.timeout(within_s):
            await connection.close()
    except STORE_ERRORS:
        connection.terminate()


def _is_answered(future: "asyncio.Future[Answer]") -> bool:
    """Whether the row has an answer. A cancelled future does not withdraw its row."""
    return future.done() and not future.cancelled()


def _resolve(batch: list[tuple[Item, "asyncio.Future[Answer]"]], answers: list[Answer]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if not future.done():
            future.set_result(answer)


def _fail(batch: list[tuple[Item, "asyncio.Future[Answer]"]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
