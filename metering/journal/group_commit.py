"""Group commit: whatever is queued while the last batch commits is the next batch. No timer, no wait when idle.

A lane owns one connection and does one thing. What goes wrong is told apart:

- a row is at fault (`core.resilience.outage.is_row_fault`): each row is tried alone, and only the faulty one fails;
- two batches collided (deadlock, serialization): the batch is tried again;
- an outage, and the server said so (a lock or statement time-out, read-only), or it could not be connected to: nothing
  was written, the batch fails with Unavailable;
- an outage, and the connection broke or did not answer in time: nobody knows whether the batch was committed. The lane
  hands the batch to `in_doubt`, which looks it up on a new connection before anyone is told.

A lane with a refuge gives the batch to it in any outage, and all that follows until the refuge has learnt that Postgres
is back.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from core.errors import InDoubt, NakaError, Unavailable
from core.logs import get_logger
from core.postgres.connection import Connection, connect
from core.postgres.url import PostgresUrl, postgres_url
from core.resilience.deadline import margin_s
from core.resilience.outage import COLLISIONS, STORE_ERRORS, is_outage, is_row_fault, is_undone

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Run = Callable[[Connection, list[Item]], Awaitable[list[Answer]]]

_COLLISION_TRIES = 5
_MAX_BATCH = 128
_IN_DOUBT_TRIES = 5
# The lanes run a few statements by key on tables of any size: a plan made while a table was small must not scan it.
_PLANNER = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}

log = get_logger(__name__)


class Spillover(Protocol[Item, Answer]):
    """Where a lane's rows go while Postgres is away."""

    @property
    def active(self) -> bool:
        """Whether Postgres is known to be away: then the next rows go there at once."""

    async def take(self, items: list[Item]) -> list[Answer]:
        """Keeps them safe and answers for each. Raises OSError when it cannot."""


class Poisoned(NakaError):
    """Postgres refuses this row whatever else is in its batch: a mistake of ours, and loud."""


class _NotConnected(OSError):
    """The server could not be connected to, for whatever reason: nothing was sent."""


class GroupCommitter(Generic[Item, Answer]):
    """One queue, one connection, one statement at a time, at most 128 rows in it."""

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
        refuge: Spillover[Item, Answer] | None = None,
    ) -> None:
        """`retry_s`: how long to wait between tries when Postgres is away; None: fail at once with Unavailable.

        `idle_s`: an idle connection is closed after this long; None: it is kept.
        """
        self._name = name
        self._url = postgres_url(url)
        self._run = run
        self._in_doubt = in_doubt
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._idle_s = idle_s
        self._refuge = refuge
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def depth(self) -> int:
        """How many rows wait for the commit that runs."""
        return len(self._waiting)

    def start(self) -> None:
        """Starts the lane's task."""
        self._task = asyncio.create_task(self._work(), name=f"lane-{self._name}")

    async def stop(self, *, grace_s: float = 10) -> None:
        """Finishes what is queued, within `grace_s`, and closes the connection. The refuge gets what is left."""
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.critical("lane_stopped_with_rows", lane=self._name, rows=len(self._waiting))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._shelter_waiting()
        self._fail_waiting()
        self._disconnect()
        await asyncio.gather(*self._ending)

    def submit(self, item: Item) -> "asyncio.Future[Answer]":
        """Queues a row. The future has its answer once its batch has committed; cancelling it takes nothing back."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._idle.clear()
        self._wake.set()
        return future

    def withdraw(self, future: "asyncio.Future[Answer]") -> bool:
        """Takes back a row that was not sent yet; False when it was, and its answer will come."""
        kept = [row for row in self._waiting if row[1] is not future]
        withdrawn = len(kept) < len(self._waiting)
        self._waiting = kept
        return withdrawn

    async def _work(self) -> None:
        while True:
            await self._until_wanted()
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            try:
                if batch:
                    await self._commit(batch)
            except asyncio.CancelledError:
                if self._refuge is None:
                    _fail(batch, InDoubt("this process stops"))
                else:
                    self._waiting[:0] = [row for row in batch if not _is_answered(row[1])]
                raise
            if not self._waiting:
                self._wake.clear()
                self._idle.set()

    async def _until_wanted(self) -> None:
        """Returns once a row waits."""
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
            answers = await self._sheltered(items) if self._refuge and self._refuge.active else None
            if answers is None:
                answers = await self._answers(items)
        except Unavailable as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - a lane must outlive any mistake: nobody else would answer
            if not is_row_fault(error):
                log.critical("lane_failed", lane=self._name, error=repr(error))
                _fail(batch, error)
            elif len(batch) > 1:
                log.warning("batch_poisoned", lane=self._name, rows=len(batch), error=type(error).__name__)
                for row in batch:
                    await self._commit([row])
            else:
                log.critical("row_poisoned", lane=self._name, error=type(error).__name__, item=repr(items[0]))
                _fail(batch, Poisoned("the journal refuses this row"))
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _answers(self, items: list[Item]) -> list[Answer]:
        """Runs the batch until its outcome is known.

        Raises, when `retry_s` is None, Unavailable if nothing of it was written for certain, InDoubt if nobody can say
        what became of it.
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
                    run = self._in_doubt  # it was sent: from now on it is looked up, not sent again
                self._disconnect()
                log.warning("lane_disconnected", lane=self._name, error=type(error.__cause__ or error).__name__)
                sheltered = await self._sheltered(items)
                if sheltered is not None:
                    return sheltered
                if self._retry_s is None and run is self._run:
                    raise Unavailable("the journal does not answer") from error
                failures += 1
                if self._retry_s is None and failures > _IN_DOUBT_TRIES:
                    raise InDoubt("the journal does not answer") from error
                await asyncio.sleep(self._retry_s or 0.2)

    async def _sheltered(self, items: list[Item]) -> list[Answer] | None:
        """The refuge's answers; None when there is none, or when it cannot take them."""
        if self._refuge is None:
            return None
        try:
            return await self._refuge.take(items)
        except Exception as error:  # noqa: BLE001 - whatever keeps it from taking them, Postgres may be back sooner
            log.critical("refuge_failed", lane=self._name, rows=len(items), error=repr(error))
            return None

    async def _connect(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = None
            within_s = self._timeout_s - margin_s(self._timeout_s)
            try:
                self._connection = await connect(
                    self._url,
                    f"naka-{self._name}",
                    timeout_s=within_s,
                    command_timeout_s=within_s,
                    settings=_PLANNER,
                )
            except STORE_ERRORS as error:
                raise _NotConnected from error
        return self._connection

    def _disconnect(self) -> None:
        """Gives the connection up: at once for the lane, and for the server once it has stopped what still runs."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        ending = asyncio.create_task(_close(connection, margin_s(self._timeout_s)), name=f"lane-{self._name}-closes")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _shelter_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        answers = await self._sheltered([item for item, _ in waiting]) if waiting else None
        if answers is None:
            self._waiting = waiting
            return
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        _fail(waiting, Unavailable("this process stops"))
        self._idle.set()


async def _close(connection: Connection, within_s: float) -> None:
    """Waits a moment until the server has cancelled what timed out: else it would wait for its lock for ever."""
    try:
        async with asyncio.timeout(within_s):
            await connection.close()
    except STORE_ERRORS:
        connection.terminate()


def _is_answered(future: "asyncio.Future[Answer]") -> bool:
    """Cancelling takes nothing back: a row that nobody waits for any more still is to be kept."""
    return future.done() and not future.cancelled()


def _fail(batch: list[tuple[Item, "asyncio.Future[Answer]"]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
