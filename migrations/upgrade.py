"""Brings a database to the newest revision, from code: `naka migrate`, `naka up` and the tests."""

import asyncio
import logging
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from core.errors import NakaError
from core.postgres.connection import connect
from core.postgres.url import PostgresUrl, postgres_url
from core.queue import upgrade_queue
from metering.journal.partitions import ensure_partitions
from migrations.indexes import build_indexes
from migrations.privileges import apply_access
from migrations.roles import ensure_roles

_CONNECT_S = 60


class NotOwner(NakaError):
    """The migrating role may not change the schema, or not grant privileges on it."""


def migrate(url: str | PostgresUrl, application_url: str | PostgresUrl = "") -> None:
    """Makes the roles, runs the missing revisions, brings up the queue, the months, large indexes and the privileges.

    Safe to repeat. `url` is the owner's of the schema, `application_url` what the application connects by: the same,
    unless given. Two at once wait for each other. Runs event loops of its own, so not to be called from within one.
    Raises RolesMissing, NotOwner.
    """
    try:
        _migrate(postgres_url(url), postgres_url(application_url or url))
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotOwner("this role does not own the schema: set DATABASE_MIGRATION_URL to the owner's URL") from error


def _migrate(url: PostgresUrl, application_url: PostgresUrl) -> None:
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


async def _make_roles(url: PostgresUrl, application_url: PostgresUrl) -> None:
    connection = await connect(url, "naka migrate", timeout_s=_CONNECT_S)
    try:
        await ensure_roles(connection, application_url)
    finally:
        await connection.close()


async def _complete(url: PostgresUrl) -> None:
    connection = await connect(url, "naka migrate", timeout_s=_CONNECT_S)
    try:
        await upgrade_queue(connection)
        await ensure_partitions(connection)
        await apply_access(connection)
        await build_indexes(connection)
    finally:
        await connection.close()
