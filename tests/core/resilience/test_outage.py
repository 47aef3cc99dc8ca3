"""Classification of a real Postgres's errors into outages and row faults; no wait outlasts its deadline."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from core.errors import Unavailable
from core.postgres.database import Connections, Database
from core.resilience.deadline import within
from core.resilience.outage import Collided, is_outage, is_row_fault, is_undone
from sandbox.postgres import Postgres
from tests.matrix.cells import frozen
from tests.servers import asyncpg_dsn

_TABLES = """
CREATE TABLE things (id int PRIMARY KEY, size smallint NOT NULL, name text CHECK (name <> 'bad'));
INSERT INTO things VALUES (1, 1, 'one');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON things FOR EACH ROW EXECUTE FUNCTION refuse();
"""
FAULTS = {
    "out of range": ("INSERT INTO things VALUES (2, 100000, 'x')", ()),
    "too large for the driver to send": ("INSERT INTO things VALUES ($1, 1, 'x')", (2**63,)),
    "not a character": ("SELECT $1::text", ("a\0b",)),
    "there already": ("INSERT INTO things VALUES (1, 1, 'x')", ()),
    "missing": ("INSERT INTO things VALUES (2, NULL, 'x')", ()),
    "against a check": ("INSERT INTO things VALUES (2, 1, 'bad')", ()),
    "refused by a trigger": ("DELETE FROM things", ()),
}
OUTAGES = {
    "no such table": ("SELECT * FROM nothing", ()),
    "no such column": ("SELECT nothing FROM things", ()),
    "not allowed": ("SET ROLE pg_monitor; SELECT * FROM things", ()),
    "cancelled": ("SET statement_timeout = 10; SELECT pg_sleep(5)", ()),
    "locked": ("SET lock_timeout = 10; LOCK TABLE things", ()),
    "read-only": ("SET default_transaction_read_only = on; DELETE FROM things", ()),
    "in recovery": ("SET default_transaction_read_only = on; TRUNCATE things", ()),
}


async def execute(url: str, statements: str) -> None:
    """Executes statements on a new connection."""
    connection = await asyncpg.connect(asyncpg_dsn(url))
    await connection.execute(statements)
    await connection.close()


@pytest.fixture(scope="module")
def url(postgres_url: str) -> Iterator[str]:
    """A database with tables to break."""
    asyncio.run(execute(postgres_url, _TABLES))
    yield postgres_url
    asyncio.run(execute(postgres_url, "DROP TABLE things; DROP FUNCTION refuse"))


async def error_of(url: str, statements: str, args: tuple[Any, ...]) -> BaseException:
    """Returns asyncpg's error for the last statement, while another transaction holds the table."""
    holder, connection = await asyncpg.connect(asyncpg_dsn(url)), await asyncpg.connect(asyncpg_dsn(url))
    *before, last = statements.split("; ")
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE things IN ACCESS SHARE MODE")
            for statement in before:
                await connection.execute(statement)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as raised:
                await connection.fetch(last, *args)
            return raised.value
    finally:
        await connection.close()
        await holder.close()


@pytest.mark.parametrize("name", FAULTS)
async def test_what_names_the_data_is_the_fault_of_the_row(url: str, name: str) -> None:
    error = await error_of(url, *FAULTS[name])
    assert (is_row_fault(error), is_outage(error)) == (True, False), error


@pytest.mark.parametrize("name", OUTAGES)
async def test_everything_else_is_an_outage_that_undid_the_statement(url: str, name: str) -> None:
    error = await error_of(url, *OUTAGES[name])
    assert (is_row_fault(error), is_outage(error), is_undone(error)) == (False, True, True), error


async def test_of_a_connection_that_broke_nobody_knows_what_was_done(url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    for ended in (connection.execute("SELECT pg_terminate_backend(pg_backend_pid())"), connection.execute("SELECT 1")):
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as raised:
            await ended
        assert (is_outage(raised.value), is_undone(raised.value)) == (True, False)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await asyncpg.connect(asyncpg_dsn(url).replace("://naka:", "://nobody:"))
    assert is_outage(refused.value)


async def test_sessions_and_connections_call_an_outage_unavailable_and_a_fault_by_its_name(url: str) -> None:
    database, pool = Database(url), Connections(url)
    await pool.start()
    try:
        for statement, _ in (OUTAGES["no such table"], OUTAGES["no such column"]):
            with pytest.raises(Unavailable):
                async with database.session() as session:
                    await session.execute(text(statement))
            with pytest.raises(Unavailable):
                async with pool.acquire() as connection:
                    await connection.execute(statement)
        for kind in ("there already", "against a check"):
            with pytest.raises(Exception, match="things") as raised:
                async with database.session() as session:
                    await session.execute(text(FAULTS[kind][0]))
            assert is_row_fault(raised.value)
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                async with pool.acquire() as connection:
                    await connection.execute(FAULTS[kind][0])
        with pytest.raises(Collided):
            async with pool.acquire():
                raise asyncpg.DeadlockDetectedError
    finally:
        await pool.close()
        await database.close()


async def test_connections_that_were_closed_meanwhile_are_replaced(url: str) -> None:
    """After a restart, or lost connections: three pooled ones are closed, and the next session still works."""
    database = Database(url)

    async def hold() -> None:
        async with database.session() as session:
            await session.execute(text("SELECT pg_sleep(0.05)"))

    await asyncio.gather(hold(), hold(), hold())
    ours = "application_name = 'naka' AND datname = current_database()"
    await execute(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
    await hold()
    await database.close()


@pytest.mark.slow
@pytest.mark.chaos
async def test_no_wait_for_a_server_that_hangs_outlasts_the_deadline(private_postgres: Callable[..., Postgres]) -> None:
    """With any state: pooled connections, a running statement, a transaction to roll back, or none."""
    server = private_postgres()
    warm, cold = Database(server.url, timeout_s=1, session_s=1), Database(server.url, timeout_s=1, session_s=1)
    pool = Connections(server.url, timeout_s=1)
    await pool.start()
    async with warm.session() as session:
        await session.execute(text("SELECT 1"))
    took_s: dict[str, float] = {}

    async def timed(name: str, ask: Callable[[], Any]) -> None:
        began_s = time.monotonic()
        with pytest.raises(Unavailable):
            await ask()
        took_s[name] = time.monotonic() - began_s

    async def in_session(database: Database) -> None:
        async with database.session() as session:
            await session.execute(text("SELECT 1"))

    async def in_transaction() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT 1")

    async def for_a_caller_with_less_time() -> None:
        async with within(0.5):
            await in_session(warm)

    async def under_way(started: asyncio.Event) -> None:
        async with warm.session() as session:
            await session.execute(text("SELECT 1"))
            started.set()
            await session.execute(text("SELECT pg_sleep(0.3)"))

    started = asyncio.Event()
    running = asyncio.create_task(timed("under way", lambda: under_way(started)))
    await started.wait()
    async with frozen(server.pid):
        await asyncio.gather(
            running,
            timed("warm", lambda: in_session(warm)),
            timed("cold", lambda: in_session(cold)),
            timed("transaction", in_transaction),
            timed("less", for_a_caller_with_less_time),
        )
    assert max(took_s.values()) < 1.6, took_s
    assert took_s["less"] < 1.1, took_s
    await in_session(warm)
    await in_transaction()
    await pool.close()
    await warm.close()
    await cold.close()
