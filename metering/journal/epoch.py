"""The tenant's epoch: a change of limits or usage increments it in the same transaction.

A grant made under an older epoch is refused when its row is inserted, so no request starts under outdated counters.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from metering.sql import load

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Runs a statement with its arguments (`$1` and so on) and returns its rows."""


def fetch_in(session: AsyncSession) -> Fetch:
    """A `Fetch` that runs statements in the session's transaction."""

    async def fetch(statement: str, *args: Any) -> Sequence[Any]:
        connection = await session.connection()
        return (await connection.exec_driver_sql(statement, args)).mappings().all()

    return fetch


async def move_epoch(fetch: Fetch, tenant_id: UUID) -> None:
    """Refuses grants made before this transaction, so that they are asked again against counters that include it."""
    await fetch(load("bump_epoch"), tenant_id, 0)
