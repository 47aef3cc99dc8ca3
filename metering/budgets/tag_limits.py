"""The limits of a tenant's tags: stored, replaced, and cached for admission; invalidated by `core.redis.changes`.

A limit binds the requests whose tag is added up, so its key has to be declared. What was used before the declaration is
not in the rollup, and does not count. Postgres down: cached limits serve until they expire, then `Unavailable`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, Invalid, NotFound
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.tenancy.audit import Actor, record
from core.tenancy.principal import Principal
from metering.models import TagLimitRow
from metering.quota.budgets import Budget, Tag, TagLimits, budgets_of, tag_budgets
from metering.quota.limits import Limit
from metering.tags.declared import declared_keys, lock_key
from metering.tags.tags import Tags

MOST_LIMITED_TAGS = 1_000
"""Of one tenant: every process keeps them in memory."""
_LIMITS = msgspec.json.Decoder(tuple[Limit, ...])
_NONE: TagLimits = MappingProxyType({})
_READ = "SELECT tenant_id, key, value, limits::text AS limits FROM tag_limits WHERE tenant_id = ANY ($1)"


class TagLimitCache:
    """The limits as admission reads them. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._cache: TtlCache[UUID, TagLimits] = TtlCache(ttl_s=ttl_s)
        self._reads: BatchedReads[UUID, TagLimits] = BatchedReads("tag-limits", database, _read)

    async def budgets(self, principal: Principal, added_up: Tags) -> tuple[Budget, ...]:
        """The budgets of a request whose tags `added_up` are added up. Raises Unavailable. Without tags: no I/O."""
        if not added_up:
            return ()
        return budgets_of(principal, added_up, await self._of(principal.tenant_id))

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the cache of a tenant, or all of it."""
        self._cache.drop(None if tenant_id is None else lambda key, _: key == tenant_id)

    async def _of(self, tenant_id: UUID) -> TagLimits:
        async def read() -> TagLimits:
            return await self._reads.get(tenant_id) or _NONE

        found = self._cache.get(tenant_id)
        return await self._cache.load(tenant_id, read) if found is None else found


async def _read(connection: Connection, tenants: list[UUID]) -> Mapping[UUID, TagLimits]:
    found: dict[UUID, dict[tuple[str, str], tuple[Limit, ...]]] = {}
    for row in await connection.fetch(_READ, tenants):
        found.setdefault(row["tenant_id"], {})[row["key"], row["value"]] = _LIMITS.decode(row["limits"])
    return found


async def list_tag_limits(
    session: AsyncSession, tenant_id: UUID, *, key: str | None = None, after: Tag | None = None, size: int | None = None
) -> list[tuple[Tag, tuple[Budget, ...]]]:
    """The tags of a tenant that have limits, by key and value: of one key if named, at most `size` after a tag."""
    query = select(TagLimitRow).where(TagLimitRow.tenant_id == tenant_id)
    if key is not None:
        query = query.where(TagLimitRow.key == key)
    if after is not None:
        query = query.where(tuple_(TagLimitRow.key, TagLimitRow.value) > tuple_(*after))
    rows = await session.scalars(query.order_by(TagLimitRow.key, TagLimitRow.value).limit(size))
    return [((row.key, row.value), tag_budgets((row.key, row.value), _limits(row))) for row in rows]


async def set_tag_limits(
    session: AsyncSession, actor: Actor, tenant_id: UUID, key: str, value: str, limits: tuple[Limit, ...]
) -> None:
    """Replaces the limits of a tag, of which there is at least one. Key and value are checked.

    Raises Invalid for a key that is not declared, Conflict for one tag too many. Notify `core.redis.changes` after the
    commit.
    """
    await lock_key(session, tenant_id, key)
    if key not in await declared_keys(session, tenant_id):
        raise Invalid(f"tag limits: declare the key `{key}` first; usage of other keys is not added up")
    row = await session.get(TagLimitRow, (tenant_id, key, value))
    if row is None:
        known = select(func.count()).select_from(TagLimitRow).where(TagLimitRow.tenant_id == tenant_id)
        if await session.scalar(known) >= MOST_LIMITED_TAGS:  # type: ignore[operator]
            raise Conflict(f"A tenant can limit {MOST_LIMITED_TAGS} tags at most. Remove one first.")
    before = None if row is None else row.limits
    stored: list[Any] = msgspec.to_builtins(limits)
    statement = insert(TagLimitRow).values(tenant_id=tenant_id, key=key, value=value, limits=stored)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["tenant_id", "key", "value"], set_={"limits": stored})
    )
    was = None if before is None else {"limits": before}
    target, after = f"tag:{key}={value}", {"limits": stored}
    record(session, actor, "tag_limits.replace", tenant_id=tenant_id, target=target, before=was, after=after)


async def remove_tag_limits(session: AsyncSession, actor: Actor, tenant_id: UUID, key: str, value: str) -> None:
    """Removes the limits of a tag. Raises NotFound. Notify `core.redis.changes` after the commit."""
    row = await session.get(TagLimitRow, (tenant_id, key, value), with_for_update=True)
    if row is None:
        raise NotFound("no such tag limit")
    was, target = {"limits": row.limits}, f"tag:{key}={value}"
    await session.delete(row)
    record(session, actor, "tag_limits.remove", tenant_id=tenant_id, target=target, before=was)


def _limits(row: TagLimitRow) -> tuple[Limit, ...]:
    return msgspec.convert(row.limits, tuple[Limit, ...])
