"""The tenant's epoch: a change of limits or usage increments it in the same transaction.

A grant that was made under an older epoch is refused when its row is inserted, so no request starts under outdated
counters. Works on an asyncpg connection (`connection.fetch`) or in a session (`fetch_in`).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from metering.sql import load

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Runs a statement with its arguments, `$1` and so on, and answers its rows."""


def fetch_in(session: AsyncSession) -> Fetch:
    """Runs statements in the session's transaction."""

    async def fetch(statement: str, *args: Any) -> Sequence[Any]:
        connection = await session.connection()
        return (await connection.exec_driver_sql(statement, args)).mappings().all()

    return fetch


async def move_epoch(fetch: Fetch, tenant_id: UUID) -> None:
    """What was granted before is asked again, of counters that know what this transaction wrote."""
    await fetch(load("bump_epoch"), tenant_id, 0)
