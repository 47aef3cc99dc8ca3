"""The job queue on Postgres: scheduled duties, each run once over all workers. Only this module imports PgQueuer.

A tick posts its duty as a job, which one worker takes; while it waits or runs, further ticks post nothing. The job of a
worker that died is taken by another, so duties must be idempotent. Postgres down: nothing is posted or taken, running
duties are cancelled, and connecting is retried with back-off.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any

import asyncpg
from croniter import croniter  # type: ignore[import-untyped]  # PgQueuer's own; it ships no types
from pgqueuer import PgQueuer, Queries
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.core.executors import ScheduleExecutor
from pgqueuer.domain.models import Job, Schedule
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import QueueEntrypoint
from pydantic_settings import PydanticBaseSettingsSource
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NakaError
from core.logs import get_logger
from core.postgres.connection import connect
from core.postgres.url import PostgresUrl, postgres_url
from core.resilience.backoff import Backoff
from core.resilience.outage import STORE_ERRORS

_BACKOFF = Backoff(0.25, 10.0)
_CLOSE_S = 5.0
_BATCH = 4  # jobs that one worker runs at a time
_COMMAND_TIMEOUT_S = 30
_POSTED = "naka.posted"

log = get_logger(__name__)


class QueueMissing(NakaError):
    """The database has no queue schema, or an older one."""


class _Names(DBSettings):
    """PgQueuer's database objects, in a schema of their own. The base class would read names from the environment."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[Any], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ignores the environment."""
        del settings_cls
        return (init_settings,)


_NAMES = _Names(db_schema="pgqueuer")


@dataclass(frozen=True, slots=True)
class Duty:
    """A job that runs at each tick of `cron`, in `zone`; cancelled after `bound_s`."""

    name: str
    cron: str
    run: Callable[[], Awaitable[object]]
    zone: tzinfo = UTC
    bound_s: float = 600


@dataclass
class _LocalTick(ScheduleExecutor):
    """A schedule in a time zone; PgQueuer's own is in UTC."""

    zone: tzinfo = UTC

    def get_next(self) -> datetime:
        """Returns the next tick."""
        tick: datetime = croniter(self.parameters.expression, datetime.now(self.zone)).get_next(datetime)
        return tick


async def upgrade_queue(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Migrates the queue's schema. Concurrent calls wait for each other; an interrupted migration is completed."""
    await _queries(connection).apply_upgrade()


async def post(connection: Any, name: str) -> None:
    """Posts the duty to run soon, unless a job of it waits. Its work must be committed already.

    A waiting job will find that work; a running one may have looked too early.
    """
    queries = _queries(connection)
    if await queries.queued_work([QueueEntrypoint(name)]):
        return
    if not await _post_as_tick(queries, name):
        await queries.enqueue(name, None)


async def post_with(session: AsyncSession, name: str) -> None:
    """Posts the duty to run soon after the commit of this transaction, which stores its work; once per session.

    A job that already waits might run before that commit, so this is always a new one.
    """
    posted: set[str] = session.info.setdefault(_POSTED, set())
    if name not in posted:
        await session.flush()
        await _queries(await _plain(session)).enqueue(name, None)
        posted.add(name)


async def post_all(session: AsyncSession, names: Iterable[str]) -> None:
    """Posts several duties as `post` does, sorted, so that concurrent posters cannot deadlock."""
    connection = await _plain(session)
    for name in sorted(set(names)):
        await post(connection, name)


async def forget_jobs(connection: Any, *, older_than: timedelta) -> None:
    """Deletes old entries of the queue's own log of finished jobs."""
    log_table, statistics = _NAMES.qualified.queue_table_log, _NAMES.qualified.statistics_table
    for table in (log_table, statistics):
        await connection.execute(f"DELETE FROM {table} WHERE created < now() - $1::interval", older_than)  # noqa: S608


class Queue:
    """The queue of one worker. Any number of workers may serve the same duties."""

    def __init__(
        self,
        url: str | PostgresUrl,
        duties: Sequence[Duty],
        *,
        timeout_s: float,
        stale_after_s: float = 30,
        grace_s: float = 20,
    ) -> None:
        """Another worker takes a job silent for `stale_after_s`; a stop waits `grace_s` for running jobs."""
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
                raise QueueMissing("the database schema is missing or outdated: run `naka migrate`")

    async def serve(self, stop: asyncio.Event) -> None:
        """Runs duties until `stop` is set, then finishes the running ones within the grace period."""
        failures = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                async with self._connected() as connection:
                    log.info("queue_ready", duties=[duty.name for duty in self._duties])
                    await self._work(connection, stop)
            except Exception as error:  # noqa: BLE001 - a worker outlives any error of the queue
                if time.monotonic() - began > _BACKOFF.wait_s(failures):
                    failures = 0  # it worked for a while
                wait_s = _BACKOFF.wait_s(failures)
                log.warning("queue_away", error=type(error).__name__, detail=str(error), again_in_s=wait_s)
                await _first_of(stop, within_s=wait_s)
                failures += 1

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
        """Runs duties over one connection. Raises what ended it."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        queries = _queries(connection)
        queuer = PgQueuer(queries.driver, channel=_NAMES.channel, queries=queries)
        for duty in self._duties:
            self._register(queuer, queries, duty)
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
        """Cancels running duties over a closed connection, so that their jobs stay in the queue for another worker."""
        connection.terminate()
        for task in self._running:
            log.warning("duty_abandoned", duty=task.get_name())
            task.cancel()
        if not await _first_of(served, within_s=_CLOSE_S):
            served.cancel()
            await _first_of(served, within_s=_CLOSE_S)

    def _register(self, queuer: PgQueuer, queries: Queries, duty: Duty) -> None:
        async def tick(_: Schedule) -> None:
            await _post_as_tick(queries, duty.name)

        turns = _Turns()

        async def job(_: Job) -> None:
            await self._run(duty, turns)

        at_local_time = partial(_LocalTick, zone=duty.zone)
        queuer.schedule(duty.name, duty.cron, executor_factory=at_local_time, accepts_context=False)(tick)
        queuer.entrypoint(duty.name, accepts_context=False)(job)

    async def _run(self, duty: Duty, turns: "_Turns") -> None:
        """Raises what the duty raises; PgQueuer logs it and deletes the job."""
        task = asyncio.ensure_future(turns.take(duty))
        task.set_name(duty.name)
        self._running.add(task)
        try:
            await task
        finally:
            self._running.discard(task)


class _Turns:
    """Runs a duty once at a time; after each job, a run begins that started after the job was taken."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._waits = False

    async def take(self, duty: Duty) -> None:
        """Runs the duty; returns at once if another job waits for its turn, because its later run covers both."""
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
    """Waits for any of the events, and returns whether one came in time."""
    waits = [event if isinstance(event, asyncio.Task) else asyncio.create_task(event.wait()) for event in events]
    done, _ = await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for wait, event in zip(waits, events, strict=True):
        if wait is not event:
            wait.cancel()
    return bool(done)


async def _post_as_tick(queries: Queries, name: str) -> bool:
    """Posts the duty unless a job of it waits or runs; returns whether it posted."""
    return any(await queries.enqueue(name, None, dedupe_key=name, on_conflict="skip"))


async def _plain(session: AsyncSession) -> Any:
    """Returns the driver's connection, inside the session's transaction."""
    raw = await (await session.connection()).get_raw_connection()
    return raw.driver_connection


def _queries(connection: Any) -> Queries:
    return Queries(
        AsyncpgDriver(connection),
        qbe=QueryBuilderEnvironment(_NAMES),
        qbq=QueryQueueBuilder(_NAMES),
        qbs=QuerySchedulerBuilder(_NAMES),
    )
