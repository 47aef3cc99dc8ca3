"""Rows of ended processes are pruned; one that beats at that moment, or left requests open, stays."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core.ids import uuid7
from metering.reconciliation.pruning import prune_processes, prune_reconciliations, prune_tag_values
from tests.programs import until
from tests.servers import asyncpg_dsn

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
OLD, YOUNG = timedelta(days=1, minutes=1), timedelta(hours=23)


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Callable[[], Any]]:
    """Connects to the test's own database."""
    made: list[Any] = []

    async def connect() -> Any:
        made.append(await asyncpg.connect(asyncpg_dsn(database_url)))
        return made[-1]

    yield connect
    for connection in made:
        await connection.close()


async def test_rows_of_processes_that_are_over_go(connect: Callable[[], Any]) -> None:
    connection, beats = await connect(), await connect()
    silent, ended, alive, holding, beating = (uuid7() for _ in range(5))
    for process, age in ((silent, OLD), (ended, YOUNG), (alive, YOUNG), (holding, OLD), (beating, OLD)):
        await connection.execute(
            "INSERT INTO processes (id, host, pid, beat, beat_at, progress, ended_at)"
            " VALUES ($1, 'h', 1, 1, now() - $2::interval, '[]', CASE WHEN $3 THEN now() END)",
            process,
            age,
            process == ended,
        )
    await connection.execute(
        "INSERT INTO usage_requests (tenant_id, id, user_id, process_id, state) VALUES ($1, $1, $1, $2, 'open')",
        uuid7(),
        holding,
    )

    async with _waited_for(beats, prune_processes(connection)):
        await beats.execute("UPDATE processes SET beat = 2, beat_at = now() WHERE id = $1", beating)

    left = {row["id"] for row in await connection.fetch("SELECT id FROM processes")}
    assert left == {alive, holding, beating}


@asynccontextmanager
async def _waited_for(connection: Any, work: Any) -> AsyncIterator[None]:
    """A transaction that commits once `work`, started in it, waits for one of its locks."""
    async with connection.transaction():
        yield
        task = asyncio.create_task(work)

        async def waits() -> bool:
            await connection.execute("SELECT pg_stat_clear_snapshot()")
            return bool(await connection.fetchval(WAITING))

        await until(waits)
    await task


async def test_reports_go_after_ninety_days(connect: Callable[[], Any]) -> None:
    connection = await connect()
    for age in (89, 91):
        await connection.execute(
            "INSERT INTO reconciliations (id, ran_at, drifts, report) VALUES ($1, now() - $2::interval, $3, '{}')",
            uuid7(),
            timedelta(days=age),
            age,
        )

    await prune_reconciliations(connection)

    assert await connection.fetchval("SELECT array_agg(drifts) FROM reconciliations") == [89]


async def test_tag_values_of_old_days_go_and_marks_stay(connect: Callable[[], Any]) -> None:
    connection, tenant_id = await connect(), uuid7()
    for days, value in ((36, "old"), (36, ""), (34, "young"), (0, "today")):
        await connection.execute(
            "INSERT INTO tag_values VALUES ($1, 'feature', current_date - $2::integer, $3)", tenant_id, days, value
        )
    await prune_tag_values(connection)
    left = await connection.fetch("SELECT value FROM tag_values WHERE tenant_id = $1", tenant_id)
    assert {row["value"] for row in left} == {"", "young", "today"}
