"""Indexes of large tables, built during traffic with `CREATE INDEX CONCURRENTLY`, which cannot run in a transaction.

Runs after every migration: an index that exists stays, and an invalid one, left by an interrupted build, is rebuilt.
Attaching a month's index to the parent's needs an exclusive lock, so it is tried with a short time-out; a month's index
also works while it is not attached.
"""

from dataclasses import dataclass
from typing import Any

import asyncpg

from core.logs import get_logger
from migrations.locks import exclusively, lock_briefly

_ATTACH_TRIES = 20
_LOCK_TIMEOUT_MS = 300

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Index:
    """An index on columns of a table."""

    name: str
    table: str
    columns: str


PLAIN = (
    Index("ix_usage_entries_id", "usage_entries", "id"),
    Index("ix_usage_entries_user", "usage_entries", "tenant_id, user_id, id"),
    Index("ix_audit_log_id", "audit_log", "id"),
)
BY_MONTH = Index("ix_usage_requests_id", "usage_requests", "id")
"""The index of the months; a revision creates the parent's index."""


async def build_indexes(connection: Any) -> None:
    """Builds missing indexes, on an asyncpg connection outside a transaction. Idempotent."""
    async with exclusively(connection):
        for index in PLAIN:
            await _build(connection, index)
        for row in await connection.fetch(_MISSING, BY_MONTH.table, BY_MONTH.name):
            await _build_month(connection, row["month"])


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


async def _build_month(connection: Any, month: str) -> None:
    index = Index(f"{month}_{BY_MONTH.columns.replace(', ', '_')}_idx", month, BY_MONTH.columns)
    await _build(connection, index)
    attach = f"ALTER INDEX {BY_MONTH.name} ATTACH PARTITION {index.name}"
    try:
        await lock_briefly(connection, [attach], timeout_ms=_LOCK_TIMEOUT_MS, tries=_ATTACH_TRIES)
    except asyncpg.LockNotAvailableError:
        log.warning("index_not_attached", index=index.name, to=BY_MONTH.name)


async def _build(connection: Any, index: Index) -> None:
    """Builds the index. Drops an invalid one first: an interrupted build left it."""
    valid = await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", index.name)
    if valid:
        return
    if valid is not None:
        await connection.execute(f"DROP INDEX CONCURRENTLY {index.name}")
    await connection.execute(f"CREATE INDEX CONCURRENTLY {index.name} ON {index.table} ({index.columns})")
    log.info("index_built", index=index.name)
