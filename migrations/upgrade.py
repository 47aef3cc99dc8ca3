"""Brings a database to the newest revision, from code: `naka migrate`, `naka up` and the tests."""

import asyncio
import logging
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config

from core.database import asyncpg_dsn
from metering.partitions import ensure_partitions


def migrate(url: str) -> None:
    """Runs the missing revisions, then makes the months of `usage_requests` that are missing. Safe to repeat.

    Two at once wait for each other. Runs event loops of its own, so not to be called from within one.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.upgrade(config, "head")
    asyncio.run(_make_partitions(url))


async def _make_partitions(url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        await ensure_partitions(connection)
    finally:
        await connection.close()
