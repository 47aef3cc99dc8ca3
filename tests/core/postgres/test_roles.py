"""Creating the roles in a new cluster: by an administrator's file, or by an owner with CREATEROLE."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from core.postgres.database import Database
from core.postgres.roles import TENANT
from core.postgres.url import postgres_url
from migrations.privileges import differences
from migrations.roles import RolesMissing, ensure_roles
from migrations.upgrade import NotOwner, migrate
from sandbox.postgres import Postgres
from tests.harness import ROOT
from tests.servers import asyncpg_dsn

PASSWORD = "the application's own: ümlaut & co"
ROLES = (ROOT / "deploy" / "postgres" / "roles.sql").read_text()


def at(url: str, user: str, password: str, database: str = "app") -> str:
    """Returns the URL of another user of this database."""
    parts = make_url(url).set(username=user, password=password, database=database)
    return parts.render_as_string(hide_password=False)


async def execute(url: str, *statements: str) -> Any:
    """Runs statements and returns the value of the last."""
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return await connection.fetchval(statements[-1])
    finally:
        await connection.close()


async def has_no_difference(url: str) -> bool:
    """Whether the URL's login has the declared privileges and can serve a tenant."""
    connection = await asyncpg.connect(asyncpg_dsn(url))
    try:
        assert await differences(connection) == []
    finally:
        await connection.close()
    database = Database(url, pool_size=1)
    try:
        async with database.session(tenant_id=uuid4()) as session:
            assert await session.scalar(text("SELECT count(*) FROM users")) == 0
            return bool(await session.scalar(text("SELECT current_user")) == TENANT)
    finally:
        await database.close()


@pytest.mark.slow
async def test_an_owner_that_may_not_create_roles_says_what_to_run(private_postgres: Callable[..., Postgres]) -> None:
    admin = private_postgres().url
    owner, login = at(admin, "plain", "plain"), at(admin, "naka_service", PASSWORD)
    await execute(admin, "CREATE ROLE plain LOGIN PASSWORD 'plain'", "CREATE DATABASE app OWNER plain")
    with pytest.raises(RolesMissing, match=r"let an administrator run deploy/postgres/roles\.sql"):
        await asyncio.to_thread(migrate, owner, login)
    assert await execute(at(admin, "plain", "plain"), "SELECT to_regclass('tenants')") is None, "nothing was half done"

    quoted = PASSWORD.replace("'", "''")
    await execute(admin, ROLES.replace(':"login"', '"naka_service"').replace(":'password'", f"'{quoted}'"), "SELECT 1")
    await asyncio.to_thread(migrate, owner, login)
    assert await has_no_difference(login)
    with pytest.raises(NotOwner, match="DATABASE_MIGRATION_URL"):
        await asyncio.to_thread(_undo_and_migrate, owner, login)


def _undo_and_migrate(owner: str, login: str) -> None:
    """Returns the application's login after a migration."""
    asyncio.run(execute(owner, "DROP POLICY naka_all ON users", "SELECT 1"))
    migrate(login)


@pytest.mark.slow
async def test_an_owner_that_may_create_roles_makes_them_and_the_login(
    private_postgres: Callable[..., Postgres],
) -> None:
    """Uses a managed Postgres's administrator, no superuser. No statement log contains the password."""
    server = private_postgres(log_statement="all")
    owner, login = at(server.url, "boss", "boss"), at(server.url, "naka_service", PASSWORD)
    await execute(server.url, "CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'boss'", "CREATE DATABASE app OWNER boss")
    await asyncio.to_thread(migrate, owner, login)
    assert await has_no_difference(login)
    assert await execute(login, "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user") is False
    log = (server.home / "postgres.log").read_text()
    assert "CREATE ROLE" in log
    assert "ümlaut" not in log

    await asyncio.to_thread(migrate, owner, at(server.url, "naka_service", "another password"))
    assert await has_no_difference(login), "a login that exists keeps its password"

    await asyncio.to_thread(migrate, owner)
    assert await has_no_difference(owner), "one role for everything, as before: it confines itself"


async def test_many_databases_of_a_new_cluster_are_migrated_at_once(private_postgres: Callable[..., Postgres]) -> None:
    """Roles belong to the cluster: concurrent migrations may create the same one."""
    url = private_postgres().url
    login = at(url, "naka_service", PASSWORD, make_url(url).database or "")
    connections = [await asyncpg.connect(url) for _ in range(12)]
    try:
        await asyncio.gather(*(ensure_roles(connection, postgres_url(login)) for connection in connections))
    finally:
        await asyncio.gather(*(connection.close() for connection in connections))
    assert await execute(login, "SELECT pg_has_role('naka_tenant', 'MEMBER')")
