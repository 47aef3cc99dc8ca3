"""Brings a database to the newest revision, from code: `naka migrate`, `naka up` and the tests."""

import asyncio
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from core.postgres_connection import connect
from core.postgres_url import PostgresUrl, postgres_url
from core.queue import upgrade_queue
from metering.partitions import ensure_partitions

_CONNECT_S = 60


def migrate(url: str | PostgresUrl) -> None:
    """Runs the missing revisions, then brings up the queue and the months of `usage_requests`. Safe to repeat.

    Two at once wait for each other. Runs event loops of its own, so not to be called from within one.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    parsed = postgres_url(url)
    config.attributes["url"] = parsed
    command.upgrade(config, "head")
    asyncio.run(_complete(parsed))


def newest_revision() -> str:
    """The revision that this version's code needs."""
    return str(ScriptDirectory(str(Path(__file__).parent)).get_current_head())


async def _complete(url: PostgresUrl) -> None:
    connection = await connect(url, "naka migrate", timeout_s=_CONNECT_S)
    try:
        await upgrade_queue(connection)
        await ensure_partitions(connection)
    finally:
        await connection.close()
