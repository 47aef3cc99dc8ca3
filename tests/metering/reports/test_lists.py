"""A page of requests, entries or changes costs the same at any size, and the pages together are the list."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from core.postgres import index_pages as walks
from core.postgres.database import Database
from metering.reports.requests import RequestFilter, list_requests, stream_requests
from migrations.indexes import build_indexes
from tests import servers
from tests.request_rows import FILTERS, OLD_MODEL, RARE, WHALE, fill, lists, page_cost
from tests.servers import asyncpg_dsn

ROWS = 12_000
MOST_ROWS = 300
MOST_BLOCKS = 200
"""A scan of the whole table would read 1,000."""


@pytest.fixture
async def filled(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Rows of three months; a page reads 300."""
    monkeypatch.setattr(walks, "MOST_ROWS", MOST_ROWS)
    connection = await asyncpg.connect(asyncpg_dsn(servers.owner(database_url)))
    await fill(connection, ROWS, months=3)
    await connection.close()
    database = Database(database_url)
    yield database
    await database.close()


@pytest.mark.slow
async def test_no_page_reads_much_whatever_is_asked_for_and_all_pages_are_the_whole_list(filled: Database) -> None:
    costs = {}
    for name, read in lists().items():
        costs[name], _ = await page_cost(filled, read)
    assert {name: cost for name, cost in costs.items() if cost > MOST_BLOCKS} == {}

    for wanted in (FILTERS[name] for name in ("all", "tenant, model (all old)", "key, void", "tenant, open")):
        async with filled.session() as session:
            found = [usage.id async for some in stream_requests(session, wanted, batch_rows=500) for usage in some]
            rows = await session.connection()
            conditions = " AND ".join(
                f"{name} = '{getattr(wanted, name)}'"
                for name in ("tenant_id", "user_id", "key_id", "model", "state")
                if getattr(wanted, name) is not None
            )
            query = f"SELECT id FROM usage_requests WHERE {conditions or 'true'} ORDER BY id DESC"
            assert found == list((await rows.exec_driver_sql(query)).scalars())


@pytest.mark.slow
async def test_a_page_that_finds_little_says_where_to_go_on(filled: Database) -> None:
    async with filled.session() as session:
        first = await list_requests(session, RequestFilter(model=OLD_MODEL), limit=50)
        assert first.rows == []
        assert first.next is not None
        pages = [first]
        while (following := pages[-1].next) is not None:
            wanted = RequestFilter(model=OLD_MODEL, before=following)
            pages.append(await list_requests(session, wanted, limit=50))
        assert ROWS / MOST_ROWS - 5 < len(pages) < ROWS / MOST_ROWS + 5
        assert sum(len(page.rows) for page in pages) == ROWS // 10 // 50 - ROWS // 5_000 // 10
        rare = await list_requests(session, RequestFilter(tenant_id=RARE), limit=50)
        assert (len(rare.rows), rare.next) == (len([n for n in range(1, ROWS + 1) if n % 5_000 == 7]), None)
        planner = await session.connection()
        assert (await planner.exec_driver_sql("SHOW enable_sort")).scalar_one() == "on"


async def test_indexes_are_built_beside_the_traffic_and_what_a_build_left_behind_is_built_anew(
    database_url: str,
) -> None:
    connection, other = [await asyncpg.connect(asyncpg_dsn(servers.owner(database_url))) for _ in range(2)]

    async def invalid() -> list[Any]:
        rows = await connection.fetch("SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid")
        return [row["name"] for row in rows]

    await connection.execute("DROP INDEX ix_usage_requests_id, ix_audit_log_id")
    await connection.execute("CREATE INDEX ix_usage_requests_id ON ONLY usage_requests (id)")
    await connection.execute("CREATE INDEX ix_audit_log_id ON audit_log (id)")
    await connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_audit_log_id'::regclass")
    assert sorted(await invalid()) == ["ix_audit_log_id", "ix_usage_requests_id"]
    insert = "INSERT INTO usage_requests (tenant_id, id, user_id, state) VALUES ($1, $2, $1, 'void')"
    async with other.transaction():
        await other.execute("SELECT 1")
        await build_indexes(connection)  # a transaction that only is open, holds nobody up, nor is it held up
        month = await connection.fetchval(_MONTH)
        await other.execute(insert, WHALE, month)
    assert await invalid() == []
    await build_indexes(connection)
    await connection.close()
    await other.close()


_MONTH = "SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid"
