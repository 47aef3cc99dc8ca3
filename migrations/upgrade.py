"""Brings a database to the newest revision, from code: `naka migrate`, `naka up` and the tests."""

import asyncio
import logging
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from core.database import asyncpg_dsn
from core.errors import NakaError
from core.queue import upgrade_queue
from metering.partitions import ensure_partitions
from migrations.privileges import apply_access
from migrations.roles import ensure_roles


class NotOwner(NakaError):
    """The migrating role may not change the schema, or not grant privileges on it."""


def migrate(url: str, application_url: str = "") -> None:
    """Makes the roles, runs the missing revisions, brings up the queue, the months and the privileges. Safe to repeat.

    `url` is the owner's of the schema, `application_url` what the application connects by: the same, unless given. Two
    at once wait for each other. Runs event loops of its own, so not to be called from within one. Raises RolesMissing,
    NotOwner.
    """
    try:
        _migrate(url, application_url or url)
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotOwner("this role does not own the schema: set DATABASE_MIGRATION_URL to the owner's URL") from error


def _migrate(url: str, application_url: str) -> None:
    asyncio.run(_make_roles(url, application_url))
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


async def _make_roles(url: str, application_url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        await ensure_roles(connection, application_url)
    finally:
        await connection.close()


async def _complete(url: str) -> None:
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        await upgrade_queue(connection)
        await ensure_partitions(connection)
        await apply_access(connection)
    finally:
        await connection.close()
