"""Runs the revisions on an async engine. `naka migrate` passes the URL; for alembic itself it is DATABASE_URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool

import metering.models  # noqa: F401 - registers the tables
from core.postgres.database import Base, engine_of
from core.postgres.url import postgres_url

_CONNECT_S = 60
_LOCK = 0x6E616B61  # "naka"; concurrent migrations wait for each other


def _include(name: str | None, kind: str, _: object) -> bool:
    return not (kind == "table" and name is not None and name.startswith("usage_requests_"))


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, include_name=_include, compare_server_default=False
    )
    with context.begin_transaction():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        context.run_migrations()


async def _online() -> None:
    url = postgres_url(context.config.attributes.get("url") or os.environ["DATABASE_URL"])
    engine = engine_of(url, timeout_s=_CONNECT_S, command_timeout_s=None, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(_online())
