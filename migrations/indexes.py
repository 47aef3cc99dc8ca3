"""Indexes of large tables, built while the traffic goes on: `CREATE INDEX CONCURRENTLY`, which no transaction may run.

Run after the revisions, each time: what is there is left alone, what a build that broke off left behind is built anew.
A build reads its table twice, and waits for transactions that were under way; requests open and settle meanwhile.
Attaching a month's index to the table's needs a lock that nobody may hold up, so it is given up after a moment and
tried again; a month's index serves as well while it is not attached.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg

from core.logs import get_logger

_LOCK = 0x6E616B62  # two migrations at once build one after the other
_ATTACH_TRIES = 20
_LOCK_MS = 300
_AGAIN_S = 0.5

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table, by its columns."""

    name: str
    table: str
    columns: str


PLAIN = (
    Index("ix_usage_entries_id", "usage_entries", "id"),
    Index("ix_usage_entries_user", "usage_entries", "tenant_id, user_id, id"),
    Index("ix_audit_log_id", "audit_log", "id"),
)
BY_MONTH = (Index("ix_usage_requests_id", "usage_requests", "id"),)
"""The index of the table itself is a revision's; here are those of its months."""


async def build_indexes(connection: Any) -> None:
    """Builds what is missing, on an asyncpg connection outside of a transaction. Safe to repeat."""
    # Waiting within a statement would be waited for by the other's build, which waits for every statement.
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110 - see above
        await asyncio.sleep(_AGAIN_S)
    try:
        for index in PLAIN:
            await _build(connection, index)
        for index in BY_MONTH:
            for row in await connection.fetch(_MISSING, index.table, index.name):
                await _build_month(connection, index, row["month"])
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


_MISSING = """
SELECT m.inhrelid::regclass::text AS month
  FROM pg_inherits m
 WHERE m.inhparent = $1::text::regclass
   AND NOT EXISTS (
     SELECT FROM pg_index i
       JOIN pg_inherits p ON p.inhrelid = i.indexrelid AND p.inhparent = $2::text::regclass
      WHERE i.indrelid = m.inhrelid AND i.indisvalid)
 ORDER BY 1 DESC
"""


async def _build_month(connection: Any, parent: Index, month: str) -> None:
    index = Index(f"{month}_{parent.columns.replace(', ', '_')}_idx", month, parent.columns)
    await _build(connection, index)
    for _ in range(_ATTACH_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                await connection.execute(f"ALTER INDEX {parent.name} ATTACH PARTITION {index.name}")
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(_AGAIN_S)
        else:
            return
    log.warning("index_not_attached", index=index.name, to=parent.name)


async def _build(connection: Any, index: Index) -> None:
    """The index, whole. One that is not valid was left behind by a build that broke off."""
    valid = await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", index.name)
    if valid:
        return
    if valid is not None:
        await connection.execute(f"DROP INDEX CONCURRENTLY {index.name}")
    await connection.execute(f"CREATE INDEX CONCURRENTLY {index.name} ON {index.table} ({index.columns})")
    log.info("index_built", index=index.name)
