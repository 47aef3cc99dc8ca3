"""The migration that adds the coarser rollups fills them from existing usage."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config

import migrations
from core.ids import uuid7
from core.postgres.database import Connections
from metering.counts import REPORTED_COLUMNS
from metering.journal.journal import open_batch, settle_batch
from metering.journal.records import Outcome
from metering.pricing.tokens import Usage
from metering.reconciliation.reconcile import reconcile
from tests import servers
from tests.harness import Books
from tests.metering.rows import request, settlement
from tests.servers import asyncpg_dsn

SUMS = ", ".join(f"sum({name})::bigint AS {name}" for name in REPORTED_COLUMNS)
USAGE = Usage(1, 2, 3, 4, 5)
"""Of the classes that version 0006 knows; a downgrade drops the others."""
TABLES = {
    "usage_daily": "tenant_id, user_id, day, period_id, key_id, model",
    "usage_monthly": "tenant_id, user_id, month, period_id, key_id, model",
    "usage_by_day": "tenant_id, day, period_id, model",
}


async def test_an_upgrade_fills_the_rollups(database_url: str) -> None:
    books = Books(database_url)
    accounts = [await books.account() for _ in range(3)]
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    for account in accounts:
        await connection.execute("INSERT INTO tenant_epochs VALUES ($1, 1)", account.tenant_id)
    for shard, outcome in enumerate(Outcome):
        asked = [request(account) for account in accounts]
        await open_batch(connection, asked, uuid7())
        await settle_batch(connection, [replace(settlement(one, USAGE), outcome=outcome) for one in asked], shard)
    moved = await _rollups(connection)
    assert [row["errors"] for row in moved["usage_monthly"]] == [6, 6, 6]
    await connection.close()

    await asyncio.to_thread(_downgrade, servers.owner(database_url), "0006")
    await asyncio.to_thread(servers.migrated, servers.owner(database_url))
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    assert await _rollups(connection) == moved
    await connection.close()
    pool = Connections(database_url)
    await pool.start()
    assert (await reconcile(pool, None)).drifts == 0
    await pool.close()
    await books.close()


async def _rollups(connection: Any) -> dict[str, Sequence[Any]]:
    """The rows by key, summed over the shards."""
    return {
        table: await connection.fetch(f"SELECT {key}, {SUMS} FROM {table} GROUP BY {key} ORDER BY {key}")
        for table, key in TABLES.items()
    }


def _downgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.downgrade(config, revision)
