"""A migrated database for each test: the worker's own one, emptied between tests.

Deleting what a test wrote takes milliseconds; dropping and copying a database takes Postgres two checkpoints. A test
that changed the schema, a privilege or a setting leaves another catalog behind: then the database is copied anew.
"""

import asyncio
from functools import partial
from io import BytesIO
from typing import Any

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from core.postgres import database
from tests import servers

_LOOKS, _LOOK_S = 2_000, 0.005
_CATALOGS = (
    "pg_class",
    "pg_attribute",
    "pg_attrdef",
    "pg_constraint",
    "pg_index",
    "pg_inherits",
    "pg_namespace",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_trigger",
    "pg_type",
    "pg_default_acl",
    "pg_db_role_setting",
)
_FINGERPRINT = "SELECT concat_ws(' ', {}, (SELECT xmin FROM pg_database WHERE datname = current_database()))".format(
    ", ".join(f"(SELECT count(*) || ':' || max(xmin::text::bigint) FROM {catalog})" for catalog in _CATALOGS)
)
_TABLES = """
SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
 WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
_OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_SEQUENCES = "SELECT format('%I.%I', schemaname, sequencename) AS name, last_value, start_value FROM pg_sequences"


def share_compiled_statements() -> None:
    """Lets all engines of this process use the statements that any of them has compiled.

    Each test opens an engine, and compiling took a fifth of a test of billing. A statement is cached under its dialect
    object; those of our engines differ in nothing, so they are made equal.
    """
    compiled: dict[Any, Any] = {}
    database.engine_of = partial(database.engine_of, execution_options={"compiled_cache": compiled})
    PGDialect_asyncpg.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]
    PGDialect_asyncpg.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]


class TestDatabase:
    """One worker's database `name`, a copy of `template`. `fresh()` gives it with the template's rows and no others."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(self, server: str, name: str, template: str) -> None:
        self._server, self._name, self._template = server, name, template
        self._runner = asyncio.Runner()
        self._connection: Any = None
        self._catalog = self._filled = ""
        self._rows: dict[str, bytes] = {}
        self._sequences: dict[str, Any] = {}

    def fresh(self) -> str:
        """The owner's URL of the database, as the template has it."""
        if not self._catalog or not self._runner.run(self._emptied()):
            self._runner.run(self._disconnect())
            servers.create_database(self._server, self._name, template=self._template)
            self._runner.run(self._learn())
        return servers.at_path(self._server, self._name)

    def drop(self) -> None:
        """Removes the database."""
        self._runner.run(self._disconnect())
        self._runner.close()
        servers.drop_database(self._server, self._name)

    async def _connected(self) -> Any:
        """The connection, which is kept from test to test: its statements are planned already."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(servers.asyncpg_dsn(servers.at_path(self._server, self._name)))
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _learn(self) -> None:
        """Reads what the template has: catalog, rows, sequences."""
        connection = await self._connected()
        self._catalog = await connection.fetchval(_FINGERPRINT)
        tables = [row[0] for row in await connection.fetch(_TABLES)]
        self._filled = " UNION ALL ".join(
            f"SELECT '{table}' WHERE EXISTS (SELECT FROM ONLY {table})" for table in tables
        )
        self._sequences = {row["name"]: row["last_value"] for row in await connection.fetch(_SEQUENCES)}
        self._rows = {}
        for row in await connection.fetch(self._filled):
            copied = BytesIO()
            await connection.copy_from_query(f"SELECT * FROM ONLY {row[0]}", output=copied, format="binary")
            self._rows[row[0]] = copied.getvalue()

    async def _emptied(self) -> bool:
        """Gives every table and sequence the template's content; False when the catalog is another."""
        connection = await self._connected()
        for _ in range(_LOOKS):
            if not await connection.fetchval(_OTHERS):
                break
            await asyncio.sleep(_LOOK_S)
        if await connection.fetchval(_FINGERPRINT) != self._catalog:
            return False
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # no triggers, no foreign keys
            for row in await connection.fetch(self._filled):
                await connection.execute(f"DELETE FROM ONLY {row[0]}")
            for table, rows in self._rows.items():
                schema, _, name = table.partition(".")
                await connection.copy_to_table(name, schema_name=schema, source=BytesIO(rows), format="binary")
            for row in await connection.fetch(_SEQUENCES):
                if row["last_value"] != self._sequences[row["name"]]:
                    value = self._sequences[row["name"]]
                    start = row["start_value"] if value is None else value
                    await connection.execute(
                        "SELECT setval($1::regclass, $2, $3)", row["name"], start, value is not None
                    )
        return True
