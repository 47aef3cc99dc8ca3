"""Upgrades a database to the newest revision: for `naka migrate`, `naka up` and the tests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

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
    """The migrating role may not change the schema or grant privileges on it."""


def migrate(url: str | PostgresUrl, application_url: str | PostgresUrl = "") -> None:
    """Creates the roles, runs the missing revisions, and updates the queue, the months, large indexes and privileges.

    Idempotent; concurrent migrations wait for each other. `url`: the schema owner's; `application_url`: the
    application's (default: the same). Runs its own event loops, so it cannot be called from one. Raises RolesMissing,
    NotOwner.
    """
    try:
        _migrate(postgres_url(url), postgres_url(application_url or url))
    except asyncpg.InsufficientPrivilegeError as error:
        raise NotOwner("this role does not own the schema: set DATABASE_MIGRATION_URL to the owner's URL") from error


def _migrate(url: PostgresUrl, application_url: PostgresUrl) -> None:
    asyncio.run(_run(url, partial(ensure_roles, application_url=application_url)))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    command.upgrade(config, "head")
    asyncio.run(_run(url, upgrade_queue, ensure_partitions, apply_access, build_indexes))


def newest_revision() -> str:
    """The revision that this version of the code needs."""
    return str(ScriptDirectory(str(Path(__file__).parent)).get_current_head())


async def _run(url: PostgresUrl, *steps: Callable[[Any], Awaitable[object]]) -> None:
    connection = await connect(url, "naka migrate", timeout_s=_CONNECT_S)
    try:
        for step in steps:
            await step(connection)
    finally:
        await connection.close()
