"""The months of the journal; and the migrated schema equals the models."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

import billing.models
import core.tenancy.models
import metering.models
from core.clock import to_ms
from core.ids import uuid7, uuid7_floor
from core.postgres.database import Base, Database
from metering.journal.partitions import ensure_partitions, months_around
from migrations.upgrade import migrate
from tests import servers
from tests.harness import ROOT
from tests.servers import asyncpg_dsn

MODELS = (billing.models, core.tenancy.models, metering.models)
PARTITIONS = """
    SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'usage_requests'::regclass ORDER BY c.relname
"""
MOMENTS = st.integers(to_ms(datetime(2024, 1, 1, tzinfo=UTC)), to_ms(datetime(2099, 12, 31, tzinfo=UTC)))


def month_ms(year: int, month: int) -> int:
    return to_ms(datetime(year, month, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def scratch(shared_servers: servers.Servers, worker: str, database_template: str) -> Iterator[str]:
    """A migrated database whose partitions and revisions these tests may change."""
    name = f"naka_partitions_{worker}"
    yield servers.create_database(shared_servers.postgres, name, template=database_template)
    servers.drop_database(shared_servers.postgres, name)


def test_the_months_around_a_moment() -> None:
    at = to_ms(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert months_around(at) == [
        ("usage_requests_2026_11", month_ms(2026, 11), month_ms(2026, 12)),
        ("usage_requests_2026_12", month_ms(2026, 12), month_ms(2027, 1)),
        ("usage_requests_2027_01", month_ms(2027, 1), month_ms(2027, 2)),
        ("usage_requests_2027_02", month_ms(2027, 2), month_ms(2027, 3)),
    ]
    assert months_around(at + 1_000)[0] == ("usage_requests_2026_12", month_ms(2026, 12), month_ms(2027, 1))


@given(MOMENTS)
def test_months_touch_and_cover_the_moment(at_ms: int) -> None:
    months = months_around(at_ms)
    assert [ends for *_, ends in months[:-1]] == [starts for _, starts, _ in months[1:]]
    assert months[1][1] <= at_ms < months[1][2]
    assert len({name for name, *_ in months}) == 4


async def test_making_them_again_and_all_at_once_changes_nothing(scratch: str) -> None:
    connections = [await asyncpg.connect(asyncpg_dsn(scratch)) for _ in range(8)]
    at = month_ms(2031, 6) + 1
    try:
        before = await connections[0].fetch(PARTITIONS)
        await asyncio.gather(*(ensure_partitions(connection, at) for connection in connections))
        after = await connections[0].fetch(PARTITIONS)
        assert {row["relname"] for row in after} - {row["relname"] for row in before} == {
            f"usage_requests_2031_{month:02}" for month in (5, 6, 7, 8)
        }
        await ensure_partitions(connections[0], at)
        assert await connections[0].fetch(PARTITIONS) == after
    finally:
        for connection in connections:
            await connection.close()


async def test_an_id_at_the_border_of_a_month_goes_where_its_moment_says(scratch: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(scratch))
    border = month_ms(2032, 4)
    try:
        await ensure_partitions(connection, border)
        for request_id, partition in (
            (UUID(int=uuid7_floor(border).int - 1), "usage_requests_2032_03"),
            (uuid7(border - 1), "usage_requests_2032_03"),
            (uuid7_floor(border), "usage_requests_2032_04"),
            (uuid7(border), "usage_requests_2032_04"),
        ):
            query = "INSERT INTO usage_requests (tenant_id, id, user_id, state) VALUES ($1, $2, $1, 'void')"
            found = await connection.fetchval(f"{query} RETURNING tableoid::regclass::text", uuid7(), request_id)
            assert found == partition
    finally:
        await connection.close()


async def test_the_migrated_schema_is_what_the_models_say(scratch: str) -> None:
    def include(name: str | None, kind: str, _: object) -> bool:
        return not (kind == "table" and str(name).startswith("usage_requests_"))

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"include_name": include, "compare_type": True})
        return list(compare_metadata(context, Base.metadata))

    assert all(MODELS)
    database = Database(scratch)
    try:
        async with database.engine.connect() as connection:
            assert await connection.run_sync(compare) == []
    finally:
        await database.close()


@pytest.mark.slow
def test_down_to_nothing_and_up_again(scratch: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(ROOT) / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = scratch
    before = asyncio.run(_tables(scratch))
    command.downgrade(config, "base")
    assert asyncio.run(_tables(scratch)) == {"alembic_version"}
    migrate(scratch)
    migrate(scratch)
    assert {name for name in before if not name.startswith("usage_requests_")} <= asyncio.run(_tables(scratch))
    assert asyncio.run(_count(scratch, "prices")) == 22


async def _tables(url: str) -> set[str]:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    return {row["tablename"] for row in rows}


async def _count(url: str, table: str) -> int:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    count = await connection.fetchval(f"SELECT count(*) FROM {table}")
    await connection.close()
    return int(count)
