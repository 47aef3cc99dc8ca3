"""The queue on Postgres: duties at their hours, each once over all workers. Nothing else imports PgQueuer.

A tick posts its duty as a job, and one worker takes it; while that job waits or runs, another tick posts nothing. A job
whose worker died has a beat that stands still, and another worker takes it. So a duty runs once a tick while nothing
breaks, and once more where something did: it must bear that. A duty that fails is logged, and tried at its next tick.
Postgres away: nothing is posted or taken, what runs is cancelled (its job may be another's soon), and connecting is
tried again, with growing pauses, for as long as the worker lives.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import asyncpg
from croniter import croniter  # type: ignore[import-untyped]  # PgQueuer's own; it ships no types
from pgqueuer import PgQueuer, Queries
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.core.executors import ScheduleExecutor, ScheduleExecutorFactoryParameters
from pgqueuer.domain.models import Job, Schedule
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import QueueEntrypoint
from pydantic_settings import PydanticBaseSettingsSource
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NakaError
from core.logs import get_logger
from core.postgres.connection import connect
from core.postgres.url import PostgresUrl, postgres_url
from core.resilience.outage import STORE_ERRORS

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 10.0
_CLOSE_S = 5.0
_BATCH = 4  # jobs that one worker takes at a time; it runs them side by side
_COMMAND_TIMEOUT_S = 30
_POSTED = "naka.posted"

log = get_logger(__name__)


class QueueMissing(NakaError):
    """The database has no queue, or an older one."""


class _Names(DBSettings):
    """PgQueuer's objects, in a schema of their own. Its base class takes names from the environment, as CHANNEL."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[Any], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the code says, and nothing else."""
        del settings_cls
        return (init_settings,)


_NAMES = _Names(db_schema="pgqueuer")


@dataclass(frozen=True, slots=True)
class Duty:
    """What is done at each tick of `cron`, a time of `zone`; cut short when it takes longer than `bound_s`."""

    name: str
    cron: str
    run: Callable[[], Awaitable[None]]
    zone: tzinfo = UTC
    bound_s: float = 600


@dataclass
class _LocalTick(ScheduleExecutor):
    """PgQueuer's ticks are in UTC; these are in a zone of their own."""

    zone: tzinfo = UTC

    def get_next(self) -> datetime:
        """The next tick."""
        tick: datetime = croniter(self.parameters.expression, datetime.now(self.zone)).get_next(datetime)
        return tick


async def upgrade_queue(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Brings the queue's own schema up to date. Two at once wait for each other; what was cut short is completed."""
    await _queries(connection).apply_upgrade()


async def post(connection: Any, name: str) -> None:
    """Has the duty done soon. What it is to find is committed already.

    So a job that still waits will find it, and no other is needed; one that runs may have looked too early.
    """
    queries = _queries(connection)
    if await queries.queued_work([QueueEntrypoint(name)]):
        return
    if not await _post_as_tick(queries, name):
        await queries.enqueue(name, None)


async def post_with(session: AsyncSession, name: str) -> None:
    """Has the duty done soon after the commit of this transaction, which stores what it is to find.

    A job that waits by now may look before that commit: so it is one of its own, once for a session.
    """
    posted: set[str] = session.info.setdefault(_POSTED, set())
    if name not in posted:
        await session.flush()
        await _queries(await _plain(session)).enqueue(name, None)
        posted.add(name)


async def post_all(session: AsyncSession, names: Iterable[str]) -> None:
    """Has these duties done soon, as `post`: in one order, so that no two that post wait for each other."""
    connection = await _plain(session)
    for name in sorted(set(names)):
        await post(connection, name)


async def forget_jobs(connection: Any, *, older_than: timedelta) -> None:
    """Deletes what the queue's own log says of jobs that are done."""
    log_table, statistics = _NAMES.qualified.queue_table_log, _NAMES.qualified.statistics_table
    for table in (log_table, statistics):
        await connection.execute(f"DELETE FROM {table} WHERE created < now() - $1::interval", older_than)  # noqa: S608


class Queue:
    """A worker's hold on the queue. Any number of workers may serve the same duties."""

    def __init__(
        self,
        url: str | PostgresUrl,
        duties: Sequence[Duty],
        *,
        timeout_s: float,
        stale_after_s: float = 30,
        grace_s: float = 20,
    ) -> None:
        """A job is another's when its worker was silent for `stale_after_s`; a stop waits `grace_s` for what runs."""
        self._url = postgres_url(url)
        self._duties = duties
        self._timeout_s = timeout_s
        self._stale_after = timedelta(seconds=stale_after_s)
        self._grace_s = grace_s
        self._running: set[asyncio.Task[Any]] = set()

    async def check(self) -> None:
        """Raises QueueMissing, or one of STORE_ERRORS."""
        async with self._connected() as connection:
            if not await _queries(connection).schema_is_installed():
                raise QueueMissing("the database has not this version's schema: run `naka migrate`")

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, whatever becomes of Postgres; then finishes what runs, within the grace."""
        pause_s = _FIRST_PAUSE_S
        while not stop.is_set():
            began = time.monotonic()
            try:
                async with self._connected() as connection:
                    log.info("queue_ready", duties=[duty.name for duty in self._duties])
                    await self._work(connection, stop)
            except Exception as error:  # noqa: BLE001 - a worker outlives whatever the queue meets
                if time.monotonic() - began > pause_s:
                    pause_s = _FIRST_PAUSE_S  # it was good for a while
                log.warning("queue_away", error=type(error).__name__, detail=str(error), again_in_s=pause_s)
                await _first_of(stop, within_s=pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        connection = await connect(
            self._url, "naka worker", timeout_s=self._timeout_s, command_timeout_s=_COMMAND_TIMEOUT_S
        )
        try:
            yield connection
        finally:
            with suppress(*STORE_ERRORS):
                await connection.close(timeout=_CLOSE_S)

    async def _work(self, connection: "asyncpg.Connection[asyncpg.Record]", stop: asyncio.Event) -> None:
        """One connection's life. Raises what ended it."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        queuer = self._queuer(connection)
        served = asyncio.create_task(
            queuer.run(
                batch_size=_BATCH,
                dequeue_timeout=self._stale_after,
                heartbeat_timeout=self._stale_after,
                shutdown_on_listener_failure=True,
            ),
            name="queue",
        )
        await _first_of(stop, lost, served)
        queuer.shutdown.set()
        if not lost.is_set():
            await _first_of(lost, served, within_s=self._grace_s)
        if not served.done():
            await self._abandon(connection, served)
        error = served.exception() if served.done() and not served.cancelled() else None
        if not stop.is_set():
            raise error or ConnectionError("the connection was closed")

    async def _abandon(self, connection: "asyncpg.Connection[asyncpg.Record]", served: "asyncio.Task[None]") -> None:
        """Ends what runs. Its jobs stay in the queue, as a killed worker's do: their end must not be told."""
        connection.terminate()
        for task in self._running:
            log.warning("duty_abandoned", duty=task.get_name())
            task.cancel()
        if not await _first_of(served, within_s=_CLOSE_S):
            served.cancel()
            await _first_of(served, within_s=_CLOSE_S)

    def _queuer(self, connection: "asyncpg.Connection[asyncpg.Record]") -> PgQueuer:
        queries = _queries(connection)
        queuer = PgQueuer(queries.driver, channel=_NAMES.channel, queries=queries)
        for duty in self._duties:
            self._register(queuer, queries, duty)
        return queuer

    def _register(self, queuer: PgQueuer, queries: Queries, duty: Duty) -> None:
        def at_local_time(parameters: ScheduleExecutorFactoryParameters) -> _LocalTick:
            return _LocalTick(parameters, duty.zone)

        async def tick(_: Schedule) -> None:
            await _post_as_tick(queries, duty.name)

        turns = _Turns()

        async def job(_: Job) -> None:
            await self._run(duty, turns)

        queuer.schedule(duty.name, duty.cron, executor_factory=at_local_time, accepts_context=False)(tick)
        queuer.entrypoint(duty.name, accepts_context=False)(job)

    async def _run(self, duty: Duty, turns: "_Turns") -> None:
        """Raises what the duty raises: PgQueuer logs it, with its trace, and forgets the job."""
        task = asyncio.ensure_future(turns.take(duty))
        task.set_name(duty.name)
        self._running.add(task)
        try:
            await task
        finally:
            self._running.discard(task)


class _Turns:
    """A worker runs a duty once at a time, and every job is followed by a run that began after it was taken."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._waits = False

    async def take(self, duty: Duty) -> None:
        """Nothing, if another job waits for its turn: its run will begin later than now, and stands for both."""
        if self._waits:
            return
        self._waits = True
        try:
            await self._free.acquire()
        finally:
            self._waits = False
        try:
            began = time.monotonic()
            async with asyncio.timeout(duty.bound_s):
                await duty.run()
            log.info("duty_done", duty=duty.name, took_ms=round((time.monotonic() - began) * 1000))
        finally:
            self._free.release()


async def _first_of(*events: "asyncio.Event | asyncio.Task[Any]", within_s: float | None = None) -> bool:
    """Waits for any of them; whether there was one in time."""
    waits = [event if isinstance(event, asyncio.Task) else asyncio.create_task(event.wait()) for event in events]
    done, _ = await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for wait, event in zip(waits, events, strict=True):
        if wait is not event:
            wait.cancel()
    return bool(done)


async def _post_as_tick(queries: Queries, name: str) -> bool:
    """Posts nothing while such a job waits or runs; whether it did."""
    return any(await queries.enqueue(name, None, dedupe_key=name, on_conflict="skip"))


async def _plain(session: AsyncSession) -> Any:
    """The driver's own connection, inside the session's transaction."""
    raw = await (await session.connection()).get_raw_connection()
    return raw.driver_connection


def _queries(connection: Any) -> Queries:
    return Queries(
        AsyncpgDriver(connection),
        qbe=QueryBuilderEnvironment(_NAMES),
        qbq=QueryQueueBuilder(_NAMES),
        qbs=QuerySchedulerBuilder(_NAMES),
    )
