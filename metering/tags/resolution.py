"""Decides, before a request is admitted, which of its tags are added up, and under which values.

A tenant declares keys (`metering.tags.declared`); each takes a bounded number of distinct values a day. A value that
this process has not seen today is entered in `tag_values` first; past the bound it becomes `other`, except a value with
limits, which would escape them. A request that is refused afterwards has entered its value, too. The day is that of
this process: at midnight a value may be entered on the day before that of its request. A request without tags costs
nothing here. Postgres down: keys and values that this process knows serve until they expire, then `Unavailable`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

import asyncpg

from core.errors import Unavailable
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.tenancy.principal import Principal
from metering.sql import load
from metering.tags.declared import FROM_START
from metering.tags.tags import OTHER, TOKEN_KEY, RequestTags, Tags, with_overflow

_DECLARED = "SELECT tenant_id, key, max_values, removed_at FROM tag_keys WHERE tenant_id = ANY ($1)"
_LIMITED = "SELECT tenant_id, key, value FROM tag_limits WHERE tenant_id = ANY ($1)"
_VALUES_TTL_S = 3600
_PATIENCE_MS = 1_000
"""How long a tenant's values wait for their locks, so that those of other tenants in the batch are answered in time."""
_IDLE_MS = 5_000
"""Postgres ends the transaction of a process that is suspended while it holds the locks."""


@dataclass(frozen=True, slots=True)
class _DeclaredKey:
    """The most distinct values of a key in a day, and the values that have limits, which are added up in any case."""

    most: int
    limited: frozenset[str]


_Value = tuple[UUID, str, date, str]
_Asked = tuple[_Value, int]


class TagResolver:
    """Resolves tags. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        """`ttl_s`: of declared keys."""
        self._keys: TtlCache[UUID, Mapping[str, _DeclaredKey]] = TtlCache(ttl_s=ttl_s)
        self._key_reads: BatchedReads[UUID, Mapping[str, _DeclaredKey]] = BatchedReads("tag-keys", database, _read_keys)
        self._values: TtlCache[_Value, bool] = TtlCache(ttl_s=_VALUES_TTL_S)
        self._value_reads: BatchedReads[_Asked, bool | Unavailable] = BatchedReads(
            "tag-values", database, _enter_values
        )

    async def resolve(self, principal: Principal, tags: Tags, day: date) -> RequestTags:
        """The tags that the row of a request stores. `tags` are checked. Raises Unavailable.

        A token with a budget is added up by its id, beyond the bound of distinct values.
        """
        declared = await self._declared(principal.tenant_id) if tags else {}
        keys = [key for key, _ in tags if key in declared]
        overflow = [
            key
            for key, value in tags
            if key in declared
            and value != OTHER
            and value not in declared[key].limited
            and not await self._is_within((principal.tenant_id, key, day, value), declared[key].most)
        ]
        stored = dict(tags)
        if principal.token_id:
            stored[TOKEN_KEY] = principal.token_id
            keys += [TOKEN_KEY] if principal.budget else []
        return with_overflow(stored, keys, overflow)

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the cache of a tenant, or all of it."""
        self._keys.drop(None if tenant_id is None else lambda key, _: key == tenant_id)
        self._values.drop(None if tenant_id is None else lambda value, _: value[0] == tenant_id)

    async def _declared(self, tenant_id: UUID) -> Mapping[str, _DeclaredKey]:
        """The declared keys of a tenant."""

        async def read() -> Mapping[str, _DeclaredKey]:
            return await self._key_reads.get(tenant_id) or {}

        found = self._keys.get(tenant_id)
        return await self._keys.load(tenant_id, read) if found is None else found

    async def _is_within(self, value: _Value, most: int) -> bool:
        """Whether the value is one of the distinct values of its day, entered now if there is room."""

        async def enter() -> bool:
            is_within = await self._value_reads.get((value, most))
            if isinstance(is_within, Unavailable):
                raise is_within
            return bool(is_within)

        found = self._values.get(value)
        return await self._values.load(value, enter) if found is None else found


async def _read_keys(connection: Connection, tenants: list[UUID]) -> Mapping[UUID, Mapping[str, _DeclaredKey]]:
    most = {tenant_id: dict(FROM_START) for tenant_id in tenants}
    for row in await connection.fetch(_DECLARED, tenants):
        if row["removed_at"] is None:
            most[row["tenant_id"]][row["key"]] = row["max_values"]
        else:
            most[row["tenant_id"]].pop(row["key"], None)
    limited: dict[tuple[UUID, str], set[str]] = {}
    for row in await connection.fetch(_LIMITED, tenants):
        limited.setdefault((row["tenant_id"], row["key"]), set()).add(row["value"])
    return {
        tenant_id: {
            key: _DeclaredKey(number, frozenset(limited.get((tenant_id, key), ()))) for key, number in keys.items()
        }
        for tenant_id, keys in most.items()
    }


async def _enter_values(connection: Connection, asked: list[_Asked]) -> Mapping[_Asked, bool | Unavailable]:
    """Enters values, each tenant's in a transaction of its own; those whose locks are taken are Unavailable."""
    by_tenant: dict[UUID, list[_Asked]] = defaultdict(list)
    for one in asked:
        by_tenant[one[0][0]].append(one)
    answers: dict[_Asked, bool | Unavailable] = {}
    for some in by_tenant.values():
        try:
            answers |= await _enter_values_of_tenant(connection, some)
        except asyncpg.LockNotAvailableError:
            answers |= dict.fromkeys(some, Unavailable("Too many new tag values at once. Try again."))
    return answers


async def _enter_values_of_tenant(connection: Connection, asked: Sequence[_Asked]) -> Mapping[_Asked, bool]:
    """Enters values, for each key and day under a lock, so that no two processes enter more than there is room for."""
    columns = [list(column) for column in zip(*(value for value, _ in asked), strict=True)]
    most = [most for _, most in asked]
    async with connection.transaction():
        await lock_values(connection, *columns[:3])
        rows = await connection.fetch(load("tag_values_enter"), *columns, most)
    return {((row["tenant_id"], row["key"], row["day"], row["value"]), row["most"]): row["is_within"] for row in rows}


async def lock_values(
    connection: Connection, tenants: Sequence[UUID], keys: Sequence[str], days: Sequence[date]
) -> None:
    """Locks the distinct values of keys until the end of the transaction. Raises asyncpg.LockNotAvailableError."""
    await connection.execute(
        f"SET LOCAL lock_timeout = {_PATIENCE_MS}; SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}"
    )
    await connection.execute(load("tag_values_lock"), tenants, keys, days)
