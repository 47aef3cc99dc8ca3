"""The entries' gateway to Postgres: append-only, and what an entry says moves rollup, meters and epoch with it.

Works in the caller's transaction, on an asyncpg connection (`connection.fetch`) or in a session (`fetch_in`). Away:
what the driver raises; nothing was appended. Redis is not told: the epoch moved, so the next grant bounces and the
shadow is built anew from what stands here.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from core.logs import get_logger
from core.resilience.outage import COLLISIONS, driver_error
from metering.adjustments.measurement import COUNT_NAMES, Entry, Named
from metering.journal.epoch import Fetch, move_epoch
from metering.sql import load

T = TypeVar("T")

SHARD = -1
"""Of the meters: no process settles into it, so an entry waits for no busy one, and none for it."""
_TRIES = 5
_COLUMNS = (
    "tenant_id",
    "id",
    "kind",
    "request_id",
    "user_id",
    "key_id",
    "model",
    "period_id",
    "day",
    "source",
    "outcome",
    "actor",
    "actor_key_id",
    "reason",
    "reference",
)

log = get_logger(__name__)


async def retry_collisions(
    begin: Callable[[], AbstractAsyncContextManager[Any]], work: Callable[[], Awaitable[T]]
) -> T:
    """The answer of `work`, run in a block of `begin`; again when it collided with another transaction, a few times.

    Everybody locks in one order, so a collision means that somebody new does not.
    """
    for _ in range(_TRIES - 1):
        try:
            async with begin():
                return await work()
        except (*COLLISIONS, DBAPIError) as error:
            if not isinstance(driver_error(error), COLLISIONS):
                raise
            log.warning("entry_collided", error=type(error).__name__)
    async with begin():
        return await work()


async def lock_request(fetch: Fetch, tenant_id: UUID, request_id: UUID) -> Named | None:
    """The row of a request, whatever its state, locked to the end of the transaction."""
    rows = await fetch(
        "SELECT * FROM usage_requests WHERE tenant_id = $1 AND id = $2 FOR UPDATE", tenant_id, request_id
    )
    return rows[0] if rows else None


async def entries_of(fetch: Fetch, tenant_id: UUID, request_id: UUID) -> Sequence[Named]:
    """The revisions and corrections of a request, oldest first."""
    return await fetch(
        "SELECT * FROM usage_entries WHERE tenant_id = $1 AND request_id = $2 ORDER BY id", tenant_id, request_id
    )


async def entry_by_reference(fetch: Fetch, tenant_id: UUID, reference: str) -> Named | None:
    """The entry with the tenant's reference."""
    rows = await fetch("SELECT * FROM usage_entries WHERE tenant_id = $1 AND reference = $2", tenant_id, reference)
    return rows[0] if rows else None


async def append(fetch: Fetch, entries: Sequence[Entry]) -> Sequence[Named]:
    """Appends entries of one tenant and moves its books by them; answers those that were appended.

    One whose reference the tenant has already is not appended, and moves nothing.
    """
    columns = [[getattr(entry, name) for entry in entries] for name in _COLUMNS]
    counts = [[getattr(entry.counts, name) for entry in entries] for name in COUNT_NAMES]
    appended = await fetch(load("entry_append"), *columns, *counts, SHARD)
    if appended:
        await move_epoch(fetch, entries[0].tenant_id)
    return appended


async def end_hold(fetch: Fetch, row: Named) -> None:
    """The hold of a request, which was kept beyond its settlement, counts no more."""
    await fetch(
        "UPDATE usage_requests SET hold_until = NULL WHERE tenant_id = $1 AND id = $2 RETURNING id",
        row["tenant_id"],
        row["id"],
    )
