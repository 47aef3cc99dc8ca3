"""The queue: a tick runs once over all workers, and again when its worker died or could not wait."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from core.postgres.database import Database
from core.queue import Duty, Queue, post, post_with
from tests import servers
from tests.programs import WITHIN_S, Process, starter, until
from tests.servers import asyncpg_dsn

NEW_YEAR = "0 0 1 1 *"
EACH_SECOND = "* * * * * *"
DUE = "UPDATE pgqueuer.pgqueuer_schedules SET next_run = now() - interval '1 minute'"
BUSY = "SELECT count(*) FROM pgqueuer.pgqueuer"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes for the test."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Any]:
    """A connection of the schema's owner to the test's database."""
    connection = await asyncpg.connect(asyncpg_dsn(servers.owner(database_url)))
    yield connection
    await connection.close()


@asynccontextmanager
async def serving(*queues: Queue) -> AsyncIterator[None]:
    """Serves the queues in this process during the block."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(queue.serve(stop)) for queue in queues]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@pytest.mark.slow
async def test_a_tick_is_done_once_however_many_workers_wake_to_it(database_url: str, connection: Any) -> None:
    done: list[str] = []

    def duty(name: str) -> Duty:
        async def run() -> None:
            done.append(name)

        return Duty(name, NEW_YEAR, run)

    workers, rounds = 6, 3
    names = [f"own-{number}" for number in range(workers)]
    queues = [Queue(asyncpg_dsn(database_url), [duty("shared"), duty(name)], timeout_s=5) for name in names]

    async def registered() -> bool:
        return bool(await connection.fetchval("SELECT count(*) = $1 FROM pgqueuer.pgqueuer_schedules", workers + 1))

    # A worker reads all that is due in one statement: once its own is done, it has seen the shared one, too.
    async def all_woke() -> bool:
        return set(names) <= set(done) and not await connection.fetchval(BUSY)

    async with serving(*queues):
        await until(registered)
    for _ in range(rounds):
        done.clear()
        await connection.execute(DUE)
        async with serving(*queues):
            await until(all_woke)
        assert sorted(done) == [*names, "shared"]


@pytest.mark.slow
async def test_a_duty_that_fails_is_logged_and_comes_again(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    tries = {"raises": 0, "hangs": 0}

    async def raises() -> None:
        tries["raises"] += 1
        if tries["raises"] == 1:
            raise ZeroDivisionError

    async def hangs() -> None:
        tries["hangs"] += 1
        if tries["hangs"] == 1:
            await asyncio.sleep(WITHIN_S)

    async def tried_twice() -> bool:
        return min(tries.values()) >= 2

    duties = [Duty("raises", EACH_SECOND, raises), Duty("hangs", EACH_SECOND, hangs, bound_s=0.1)]
    async with serving(Queue(asyncpg_dsn(database_url), duties, timeout_s=5)):
        await until(tried_twice)

    logged = {record.exc_info[0]: record.getMessage() for record in caplog.records if record.exc_info}
    assert "raises" in logged[ZeroDivisionError]
    assert "hangs" in logged[TimeoutError]


@pytest.mark.slow
async def test_what_runs_is_not_started_again_by_its_next_tick(database_url: str) -> None:
    began = ticks = 0
    release = asyncio.Event()

    async def run() -> None:
        nonlocal began
        began += 1
        await release.wait()

    async def tick() -> None:
        nonlocal ticks
        ticks += 1

    async def ticked_on() -> bool:
        return ticks >= 2

    duties = [Duty("long", EACH_SECOND, run), Duty("tick", EACH_SECOND, tick)]
    async with serving(*(Queue(asyncpg_dsn(database_url), duties, timeout_s=5) for _ in range(2))):
        await until(ticked_on)
        assert began == 1
        release.set()


async def test_what_is_stored_while_a_duty_runs_is_found_soon_and_not_by_a_run_each(
    database_url: str, connection: Any
) -> None:
    stored = 0
    found: list[int] = []
    release = asyncio.Event()

    async def run() -> None:
        found.append(stored)
        await release.wait()

    async def begun() -> bool:
        return bool(found)

    async def taken() -> bool:
        return not await connection.fetchval(f"{BUSY} WHERE status = 'queued'")

    async def all_found() -> bool:
        return found[-1] == stored

    async with serving(Queue(asyncpg_dsn(database_url), [Duty("look", NEW_YEAR, run)], timeout_s=5)):
        for _ in range(10):
            stored += 1
            await post(connection, "look")
            await until(begun)
            await until(taken)  # whatever runs has looked by now
        release.set()
        await until(all_found)
    assert found == [1, 10]


async def test_what_a_transaction_stores_is_found_though_a_job_that_waited_looked_before_its_commit(
    database_url: str, connection: Any
) -> None:
    await connection.execute("CREATE TABLE notes (word text); GRANT ALL ON notes TO naka_app")
    found: list[int] = []

    async def run() -> None:
        found.append(await connection.fetchval("SELECT count(*) FROM notes"))

    async def looked() -> bool:
        return bool(found) and not await connection.fetchval(BUSY)

    async def all_found() -> bool:
        return found[-1] == 1

    database = Database(database_url)
    await post(connection, "look")
    await post(connection, "look")
    async with AsyncExitStack() as stack:
        async with database.session() as session:
            await session.execute(text("INSERT INTO notes VALUES ('new')"))
            await post_with(session, "look")
            queue = Queue(asyncpg_dsn(database_url), [Duty("look", NEW_YEAR, run)], timeout_s=5)
            await stack.enter_async_context(serving(queue))
            await until(looked)
        await until(all_found)
    await database.close()
    assert found == [0, 1]


@pytest.mark.slow
@pytest.mark.chaos
async def test_the_duty_of_a_killed_worker_is_done_by_another(
    database_url: str, connection: Any, start: Callable[..., Process]
) -> None:
    first = await _begun(database_url, connection, start, takes_s=60, grace_s=60)
    second = start("tests.core.duty_process", database_url, "0", "5")
    await second.says("queue_ready")

    first.process.kill()

    assert await _notes(connection) == [
        (first.process.pid, "began"),
        (second.process.pid, "began"),
        (second.process.pid, "done"),
    ]
    assert await second.ends() == 0


@pytest.mark.slow
@pytest.mark.chaos
async def test_a_stop_waits_for_what_runs(database_url: str, connection: Any, start: Callable[..., Process]) -> None:
    first = await _begun(database_url, connection, start, takes_s=0.7, grace_s=10)

    assert await first.ends() == 0
    assert await _notes(connection) == [(first.process.pid, "began"), (first.process.pid, "done")]


@pytest.mark.slow
@pytest.mark.chaos
async def test_what_a_stop_cannot_wait_for_is_done_by_another(
    database_url: str, connection: Any, start: Callable[..., Process]
) -> None:
    first = await _begun(database_url, connection, start, takes_s=60, grace_s=0.1)

    assert await first.ends() == 0
    second = start("tests.core.duty_process", database_url, "0", "5")
    assert await _notes(connection) == [
        (first.process.pid, "began"),
        (second.process.pid, "began"),
        (second.process.pid, "done"),
    ]


async def _begun(
    url: str, connection: Any, start: Callable[..., Process], *, takes_s: float, grace_s: float
) -> Process:
    """Starts a worker and waits until its duty runs."""
    await connection.execute(
        "CREATE TABLE notes (id serial, pid int, word text);"
        " GRANT ALL ON notes TO naka_app; GRANT ALL ON notes_id_seq TO naka_app"
    )
    first = start("tests.core.duty_process", url, str(takes_s), str(grace_s))
    await first.says("queue_ready")
    await post(connection, "slow")

    async def begun() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM notes"))

    await until(begun)
    return first


async def _notes(connection: Any) -> list[tuple[int, str]]:
    """Returns the records once no job is left."""

    async def idle() -> bool:
        return not await connection.fetchval(BUSY)

    await until(idle)
    return [tuple(row) for row in await connection.fetch("SELECT pid, word FROM notes ORDER BY id")]
