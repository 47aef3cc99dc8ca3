"""Locks of a migration: one migration at a time, and short waits for a table in use.

A migration never waits inside a statement for longer than a moment: other statements would queue behind it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

_MIGRATION = 0x6E616B62
"""The number of the advisory lock. The revisions have their own, in `migrations.env`."""
_PAUSE_S = 0.5


@asynccontextmanager
async def exclusively(connection: Any) -> AsyncIterator[None]:
    """Runs the block while no other migration is in one, on an asyncpg connection outside a transaction."""
    # A statement that waits for the lock holds a snapshot, and CREATE INDEX CONCURRENTLY waits for every snapshot: the
    # two migrations would wait for each other.
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _MIGRATION):  # noqa: ASYNC110 - see above
        await asyncio.sleep(_PAUSE_S)
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATION)


async def lock_briefly(connection: Any, statements: Sequence[str], *, timeout_ms: int, tries: int) -> None:
    """Runs the statements in a transaction that waits at most `timeout_ms` for a lock, again if that was too short.

    Raises LockNotAvailableError or DeadlockDetectedError after the last try.
    """
    for left in reversed(range(tries)):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {timeout_ms}")
                for statement in statements:
                    await connection.execute(statement)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            if not left:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            return
