"""Brings a database to the newest revision, from code: `naka migrate`, `naka up` and the tests."""

import asyncio
import logging
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from core.database import asyncpg_dsn
from core.queue import upgrade_queue
from metering.partitions import ensure_partitions
from migrations.indexes import build_indexes


def migrate(url: str) -> None:
    """Runs the missing revisions, then brings up the queue, the months of `usage_requests` and large indexes.

    Safe to repeat. Two at once wait for each other. Runs event loops of its own, so not to be called from within one.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.upgrade(config, "head")
    asyncio.run(_complete(url))


def newest_revision() -> str:
    """The revision that this version's code needs."""
    return str(ScriptDirectory(str(Path(__file__).parent)).get_current_head())


async def _complete(url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        await upgrade_queue(connection)
        await ensure_partitions(connection)
        await build_indexes(connection)
    finally:
        await connection.close()
