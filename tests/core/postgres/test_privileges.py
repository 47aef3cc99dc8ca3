"""Postgres roles: the privileges of each on every table, and the rows a tenant's transaction sees."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.ids import uuid7
from core.postgres.database import Database
from core.postgres.roles import APPLICATION, READER, TENANT, TENANT_SETTING
from migrations import access
from migrations.access import MONTH, TABLES, is_declared
from migrations.privileges import differences
from tests.core.refusals import refuses
from tests.harness import Account, Books

APPEND_ONLY = ("audit_log", "usage_entries", "alert_deliveries", "razorpay_reconciliations", "plans", "price_bands")
ALL_TABLES = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_(catalog|toast|temp)' AND n.nspname <> 'information_schema'
   AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1
"""
WITH_TENANT = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND c.relnamespace = 'public'::regnamespace AND c.relname !~ '_detached$' ORDER BY 1
"""
COLUMNS = """
SELECT attname AS name, format_type(atttypid, NULL) AS type, attnotnull AND NOT atthasdef AS is_needed,
       (SELECT substring(pg_get_constraintdef(k.oid) FROM '''([^'']*)''') FROM pg_constraint k
         WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND a.attnum = ANY (k.conkey) LIMIT 1) AS allowed
  FROM pg_attribute a WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
"""


@pytest.fixture
async def accounts(database_url: str) -> tuple[Account, Account]:
    """Two tenants with a row each in every table that has a tenant."""
    books = Books(database_url)
    made = (await books.account(), await books.account())
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")  # without foreign keys
        for (table,) in await connection.fetch(WITH_TENANT):
            for account in made:
                await _insert(connection, table, account.tenant_id)
    await books.close()
    return made


async def _insert(connection: Any, table: str, tenant_id: UUID) -> None:
    """Returns a row of the tenant with a value in every required column."""
    row: dict[str, str] = {"tenant_id": f"'{tenant_id}'"}
    for column in await connection.fetch(COLUMNS, table):
        if column["is_needed"] and column["name"] not in row:
            row[column["name"]] = _value(column["type"], column["allowed"], column["name"])
    await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})")


def _value(kind: str, allowed: str | None, name: str) -> str:
    if allowed is not None:
        return f"'{allowed}'"
    return {
        "uuid": f"'{uuid7()}'",
        "text": f"'{name} {uuid7()}'",
        "bytea": f"'\\x{uuid7().hex}'",
        "jsonb": "'{}'",
        "date": "'2026-11-01'",
        "text[]": "'{}'",
        "timestamp with time zone": "now()",
        "boolean": "false",
    }.get(kind, "1")


async def test_every_table_is_declared_and_the_database_is_as_declared(owner: Any, application: Any) -> None:
    tables = [row[0] for row in await owner.fetch(ALL_TABLES)]
    assert [name for name in tables if not is_declared(name)] == []
    assert set(TABLES) <= set(tables), "what is declared exists"
    for connection in (owner, application):
        assert await differences(connection) == []


async def test_the_application_can_change_no_schema(application: Any) -> None:
    for statement in (
        "CREATE TABLE mine ()",
        "CREATE TEMP TABLE mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER ROLE naka_app SUPERUSER",
        "COPY audit_log TO PROGRAM 'cat'",
        "SET session_replication_role = replica",
        "SET ROLE naka_read",
    ):
        await refuses(application, statement)
    for (table,) in await application.fetch(ALL_TABLES):
        for statement in (
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            f"TRUNCATE {table}",
            f"CREATE RULE r AS ON INSERT TO {table} DO INSTEAD NOTHING",
            f"CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ):
            await refuses(application, statement)


@pytest.mark.parametrize("role", [APPLICATION, TENANT, READER])
async def test_each_role_may_do_with_every_table_what_is_declared_and_nothing_else(owner: Any, role: str) -> None:
    """Checks has_table_privilege itself, not the lists that granted the privileges."""
    for (table,) in await owner.fetch(ALL_TABLES):
        columns = [row["name"] for row in await owner.fetch(COLUMNS, table)]
        declared = TABLES.get(table, access.Access(""))
        wanted = access.grants(declared, frozenset(columns))[role] if table in TABLES else frozenset()
        for privilege in ("SELECT", "INSERT", "UPDATE"):
            for column in columns:
                may = await owner.fetchval(
                    "SELECT has_column_privilege($1, $2::text, $3::text, $4)", role, table, column, privilege
                )
                assert may == bool({(privilege, None), (privilege, column)} & wanted), (table, column, privilege)
        for privilege in ("DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"):
            may = await owner.fetchval("SELECT has_table_privilege($1, $2::text, $3)", role, table, privilege)
            assert may == ((privilege, None) in wanted), (table, privilege)


async def test_what_is_append_only_stays_as_it_was_written(
    owner: Any, application: Any, accounts: tuple[Account, Account]
) -> None:
    del accounts
    for table in APPEND_ONLY:
        first = (await owner.fetch(COLUMNS, table))[0]["name"]
        await refuses(application, f"UPDATE {table} SET {first} = {first}")
        await refuses(application, f"DELETE FROM {table}")
    await refuses(application, "UPDATE bills SET total_paise = 0")
    await refuses(application, "DELETE FROM bills")
    await refuses(application, "UPDATE webhook_events SET body = ''")
    await refuses(application, "DELETE FROM usage_requests")
    assert await application.execute("UPDATE bills SET state = 'paid'") == "UPDATE 2"
    months = [name for (name,) in await owner.fetch(ALL_TABLES) if MONTH.fullmatch(name)]
    assert months
    for month in months:
        await refuses(application, f"SELECT FROM {month}")


async def test_a_tenants_transaction_sees_no_other_tenants_row_in_any_table(
    owner: Any, application: Any, accounts: tuple[Account, Account]
) -> None:
    mine, other = accounts
    tables = [row[0] for row in await owner.fetch(WITH_TENANT)]
    assert len(tables) > 25
    readable = [name for name in tables if "SELECT" in TABLES[f"public.{name}"].tenant]
    for table in readable:
        everybody = await application.fetchval(f"SELECT count(DISTINCT tenant_id) FROM {table}")
        assert everybody == 2, table
    async with application.transaction():
        await application.execute(f"SET LOCAL ROLE {TENANT}")
        await application.execute(f"SELECT set_config('{TENANT_SETTING}', '{mine.tenant_id}', true)")
        for table in readable:
            seen = await application.fetch(f"SELECT DISTINCT tenant_id FROM {table}")
            assert [row[0] for row in seen] == [mine.tenant_id], table
        assert [row[0] for row in await application.fetch("SELECT id FROM tenants")] == [mine.tenant_id]
        for table in tables:
            if table in readable:
                assert not await application.fetchval(
                    f"SELECT EXISTS (SELECT FROM {table} WHERE tenant_id = $1)", other.tenant_id
                )
            else:
                await refuses(application, f"SELECT FROM {table}")
        await refuses(
            application,
            f"INSERT INTO users (tenant_id, id, external_id) VALUES ('{other.tenant_id}', '{uuid7()}', 'x')",
        )
        await refuses(application, f"UPDATE api_keys SET tenant_id = '{other.tenant_id}'")
        await refuses(application, "UPDATE api_keys SET scopes = '{platform:admin}'")
        await refuses(application, "UPDATE limit_sets SET subject_id = tenant_id")
        assert (
            await application.execute(f"DELETE FROM alert_endpoints WHERE tenant_id <> '{mine.tenant_id}'")
            == "DELETE 0"
        )


async def test_without_a_tenant_everything_refuses(
    application: Any, owner: Any, accounts: tuple[Account, Account]
) -> None:
    """Also in a session that had a tenant before: the parameter is empty then, not unset."""
    tables = ["tenants", *(row[0] for row in await owner.fetch(WITH_TENANT))]
    for table in tables:
        if table == "tenants" or "SELECT" in TABLES[f"public.{table}"].tenant:
            await refuses(application, f"SET LOCAL ROLE {TENANT}; SELECT * FROM {table}", asyncpg.UndefinedObjectError)
    async with application.transaction():
        await application.execute(f"SELECT set_config('{TENANT_SETTING}', '{accounts[0].tenant_id}', true)")
    for table in tables:
        if table == "tenants" or "SELECT" in TABLES[f"public.{table}"].tenant:
            statement = f"SET LOCAL ROLE {TENANT}; SELECT * FROM {table}"
            await refuses(application, statement, asyncpg.InvalidTextRepresentationError)


async def test_a_session_of_a_tenant_is_confined_until_its_end_and_the_next_one_is_not(
    database_url: str, accounts: tuple[Account, Account]
) -> None:
    mine, other = accounts
    database = Database(database_url, pool_size=1)
    count = text("SELECT count(DISTINCT tenant_id) FROM users")
    try:
        async with database.session(tenant_id=mine.tenant_id) as session:
            assert await session.scalar(count) == 1
            assert await session.scalar(text("SELECT current_user")) == TENANT
        async with database.session() as session:
            assert await session.scalar(count) == 2
        async with database.session(tenant_id=mine.tenant_id) as session:
            values = {"tenant": other.tenant_id, "id": uuid7()}
            with pytest.raises(DBAPIError, match="row-level security"):
                await session.execute(text("INSERT INTO users VALUES (:tenant, :id, 'x')"), values)
            await session.rollback()
        async with database.session() as session:
            assert await session.scalar(text("SELECT current_user")) != TENANT
    finally:
        await database.close()


async def test_a_reader_sees_every_tenant_and_no_secret(owner: Any, accounts: tuple[Account, Account]) -> None:
    del accounts
    async with owner.transaction():
        await owner.execute(f"SET LOCAL ROLE {READER}")
        assert await owner.fetchval("SELECT count(DISTINCT tenant_id) FROM bills") == 2
        assert await owner.fetchval("SELECT count(prefix) FROM api_keys") >= 2
        for secret in ("hash FROM api_keys", "hash FROM web_sessions", "secret FROM alert_endpoints"):
            await refuses(owner, f"SELECT {secret}")
        await refuses(owner, "INSERT INTO plans (code, version, name, limits) VALUES ('x', 1, 'x', '{}')")


async def test_the_functions_of_the_owner_take_a_month_and_nothing_else(application: Any) -> None:
    for month in ("NULL", "'2026-11-02'", "'1999-12-01'", "'2100-01-01'", "'infinity'"):
        await refuses(application, f"SELECT naka_make_month({month}::date)", asyncpg.InvalidParameterValueError)
    for month in ("NULL", "'2026-11-02'", "'infinity'"):
        await refuses(
            application, f"SELECT naka_detach_month({month}::date, 0, true)", asyncpg.InvalidParameterValueError
        )
    await refuses(application, f"SET LOCAL ROLE {TENANT}; SELECT naka_make_month('2031-01-01')")
