"""The tag keys of a tenant whose usage is added up by value, and how many values each has today.

`conversation` is declared from the start. Usage from before a key was declared, or after it was removed, is not added
up by it: tags and keys are fixed when a request opens. Postgres down: the driver's error.
"""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, Invalid, NotFound
from core.tenancy.audit import Actor, record
from metering.models import TagKeyRow, TagLimitRow, TagValueRow
from metering.tags.tags import KEY_RULE, is_key

FROM_START = {"conversation": 10_000}
"""Keys that every tenant has until it changes or removes them, and the most values of each in a day."""
MAX_KEYS = 16
MAX_VALUES = 100_000
USUAL_VALUES = 1000
OVERFLOW = ""
"""The value in `tag_values` that marks a day on which a key had more values than its bound."""


@dataclass(frozen=True, slots=True)
class TagKey:
    """A declared key: the most values in a day, its values today, and the last day on which there were more."""

    key: str
    max_values: int
    values_today: int = 0
    overflowed: date | None = None


async def list_keys(session: AsyncSession, tenant_id: UUID, today: date) -> list[TagKey]:
    """The declared keys of a tenant, by name."""
    declared = await declared_keys(session, tenant_id)
    return [await _with_values(session, tenant_id, key, declared[key], today) for key in sorted(declared)]


async def list_names(session: AsyncSession, tenant_id: UUID | None) -> list[str]:
    """The keys that a tenant declares or had declared, or (None) any tenant in reach, by name; at most 50."""
    query = select(TagKeyRow.key).distinct().order_by(TagKeyRow.key).limit(50)
    found = await session.scalars(query if tenant_id is None else query.where(TagKeyRow.tenant_id == tenant_id))
    return sorted({*FROM_START, *found})


async def declare_key(
    session: AsyncSession, actor: Actor, tenant_id: UUID, key: str, max_values: int, today: date
) -> TagKey:
    """Declares a key, or changes its bound. Raises Invalid. Notify `core.redis.changes` after the commit."""
    if not is_key(key):
        raise Invalid(KEY_RULE)
    before = await declared_keys(session, tenant_id)
    if key not in before and len(before) >= MAX_KEYS:
        raise Invalid(f"a tenant declares at most {MAX_KEYS} tag keys: remove one first")
    await _store(session, tenant_id, key, max_values=max_values, removed_at=None)
    was = {"max_values": before[key]} if key in before else None
    after = {"max_values": max_values}
    record(session, actor, "tag_key.declare", tenant_id=tenant_id, target=f"tag_key:{key}", before=was, after=after)
    return await _with_values(session, tenant_id, key, max_values, today)


async def remove_key(session: AsyncSession, actor: Actor, tenant_id: UUID, key: str) -> None:
    """Ends a key: later requests are not added up by it. Notify as `declare_key`.

    Raises NotFound, and Conflict while tags with this key have limits, which would bind no request any more.
    """
    await lock_key(session, tenant_id, key)
    before = await declared_keys(session, tenant_id)
    if key not in before:
        raise NotFound("no such tag key")
    limited = select(func.count()).where(TagLimitRow.tenant_id == tenant_id, TagLimitRow.key == key)
    if await session.scalar(limited):
        raise Conflict(f"Tags with the key {key} have budgets. Remove those first.")
    await _store(session, tenant_id, key, max_values=before[key], removed_at=func.clock_timestamp())
    was = {"max_values": before[key]}
    record(session, actor, "tag_key.remove", tenant_id=tenant_id, target=f"tag_key:{key}", before=was)


async def lock_key(session: AsyncSession, tenant_id: UUID, key: str) -> None:
    """Keeps a key from being removed, and its tags from getting limits, until the end of the transaction."""
    named = func.hashtextextended(f"naka tag key {tenant_id} {key}", 0)
    await session.execute(select(func.pg_advisory_xact_lock(named)))


async def declared_keys(session: AsyncSession, tenant_id: UUID) -> dict[str, int]:
    """The declared keys of a tenant, and the most values of each in a day."""
    query = select(TagKeyRow.key, TagKeyRow.max_values, TagKeyRow.removed_at).where(TagKeyRow.tenant_id == tenant_id)
    rows = (await session.execute(query)).all()
    removed = {row.key for row in rows if row.removed_at is not None}
    known = FROM_START | {row.key: row.max_values for row in rows}
    return {key: most for key, most in known.items() if key not in removed}


async def _store(session: AsyncSession, tenant_id: UUID, key: str, **values: object) -> None:
    statement = insert(TagKeyRow).values(tenant_id=tenant_id, key=key, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "key"], set_=values))


async def _with_values(session: AsyncSession, tenant_id: UUID, key: str, most: int, today: date) -> TagKey:
    of_key = (TagValueRow.tenant_id == tenant_id, TagValueRow.key == key)
    values = select(func.count()).where(*of_key, TagValueRow.day == today, TagValueRow.value != OVERFLOW)
    overflowed = select(func.max(TagValueRow.day)).where(*of_key, TagValueRow.value == OVERFLOW)
    return TagKey(key, most, int(await session.scalar(values) or 0), await session.scalar(overflowed))
