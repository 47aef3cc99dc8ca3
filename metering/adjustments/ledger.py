"""The ledger's access to Postgres: appends entries, and adds them to the rollups, the meters and the epoch.

Works in the caller's transaction, on an asyncpg connection (`connection.fetch`) or in a session (`fetch_in`). Redis is
not told: since the epoch moved, its counters are rebuilt from Postgres. Postgres down: the driver's error.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from core.logs import get_logger
from core.resilience.outage import COLLISIONS, driver_error
from metering.adjustments.measurement import Entry
from metering.counts import COUNT_COLUMNS, NamedRow
from metering.journal.epoch import Fetch, move_epoch
from metering.sql import load

T = TypeVar("T")

SHARD = -1
"""The shard of meters and days for entries: no process settles into it, so neither waits for the other."""
_TRIES = 5
_COLUMNS = tuple(field.name for field in fields(Entry) if field.name != "counts")

log = get_logger(__name__)


async def retry_collisions(
    begin: Callable[[], AbstractAsyncContextManager[Any]], work: Callable[[], Awaitable[T]]
) -> T:
    """Runs `work` in a block of `begin`, again up to four times if it collided with another transaction.

    All transactions lock in one order, so a collision is logged: some new code does not.
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


async def lock_request(fetch: Fetch, tenant_id: UUID, request_id: UUID) -> NamedRow | None:
    """The row of a request in any state, locked until the end of the transaction."""
    rows = await fetch(
        "SELECT * FROM usage_requests WHERE tenant_id = $1 AND id = $2 FOR UPDATE", tenant_id, request_id
    )
    return rows[0] if rows else None


async def entries_of(fetch: Fetch, tenant_id: UUID, request_id: UUID) -> Sequence[NamedRow]:
    """The iterations, revisions and corrections of a request, oldest first."""
    return await fetch(
        "SELECT * FROM usage_entries WHERE tenant_id = $1 AND request_id = $2 ORDER BY id", tenant_id, request_id
    )


async def entry_by_reference(fetch: Fetch, tenant_id: UUID, reference: str) -> NamedRow | None:
    """The tenant's entry with that reference."""
    rows = await fetch("SELECT * FROM usage_entries WHERE tenant_id = $1 AND reference = $2", tenant_id, reference)
    return rows[0] if rows else None


async def append(fetch: Fetch, entries: Sequence[Entry]) -> Sequence[NamedRow]:
    """Appends entries of one tenant and adds them to its totals; returns those that were appended.

    An entry whose reference the tenant already has is not appended and changes nothing.
    """
    columns = [[getattr(entry, name) for entry in entries] for name in _COLUMNS]
    counts = [[getattr(entry.counts, name) for entry in entries] for name in COUNT_COLUMNS]
    appended = await fetch(load("entry_append"), *columns, *counts, SHARD)
    if appended:
        await move_epoch(fetch, entries[0].tenant_id)
    return appended


async def end_hold(fetch: Fetch, row: NamedRow) -> None:
    """Ends the hold of a request that was kept beyond its settlement."""
    await fetch(
        "UPDATE usage_requests SET hold_until = NULL WHERE tenant_id = $1 AND id = $2 RETURNING id",
        row["tenant_id"],
        row["id"],
    )


async def set_modifiers(fetch: Fetch, row: NamedRow, modifiers: str | None) -> None:
    """Sets the modifiers of a request's price."""
    await fetch(
        "UPDATE usage_requests SET modifiers = $3 WHERE tenant_id = $1 AND id = $2 RETURNING id",
        row["tenant_id"],
        row["id"],
        modifiers,
    )
