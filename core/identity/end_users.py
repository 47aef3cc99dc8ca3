"""End users by the tenant's own names for them, made on first sight if the tenant allows it.

Names are compared after NFC and trimming. Known users are cached; a user that was disabled or erased since is refused
by Postgres when a request opens, and unmetered routes read with `fresh=True`. New users are made in batches, each
tenant's under its lock, so two processes make one user of a name, and the bound per minute is exact. Postgres down:
`Unavailable`.
"""

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from core.clock import offset_ms
from core.errors import Invalid, NakaError, Unavailable
from core.ids import uuid7, uuid7_floor
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.tenancy.principal import Forbidden, UserDisabled

MAX_NAME_LENGTH = 200
_MINUTE_MS = 60_000
_MAX_SENT = 4 * MAX_NAME_LENGTH
"""Characters before NFC, which a longer text could not shorten to a valid name at a reasonable cost."""
_REFUSED_CATEGORIES = frozenset({"Cc", "Cn", "Cs", "Zl", "Zp"})
"""Control characters, noncharacters, lone surrogates, line and paragraph separators."""

_FIND = """
SELECT u.tenant_id, u.external_id, u.id, u.disabled_at IS NOT NULL OR u.erased_at IS NOT NULL AS is_disabled
  FROM unnest($1::uuid[], $2::text[]) AS a (tenant_id, name)
  JOIN users u ON u.tenant_id = a.tenant_id AND u.external_id = a.name
"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('naka:new-users:' || $1::uuid, 0))"
"""A statement of its own: the next one has to see what the holder before committed."""
_PATIENCE = "SET LOCAL lock_timeout = '1s'"
"""A process that was stopped with the lock delays its tenant only, not the others of the batch."""
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_MAKE = """
WITH missing AS (
  SELECT a.name, a.id, row_number() OVER (ORDER BY a.number) AS place
    FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS a (name, id, number)
   WHERE NOT EXISTS (SELECT FROM users u WHERE u.tenant_id = $1 AND u.external_id = a.name)
), made AS (
  INSERT INTO users (tenant_id, id, external_id)
  SELECT $1, m.id, m.name
    FROM missing m
    JOIN tenants t ON t.id = $1 AND t.makes_users
   WHERE m.place <= t.new_users_per_minute - (SELECT count(*) FROM users u WHERE u.tenant_id = $1 AND u.id >= $6)
      ON CONFLICT DO NOTHING
  RETURNING id, external_id
)
INSERT INTO audit_log (tenant_id, id, actor, actor_key_id, action, target, after)
SELECT $1, a.entry_id, 'key:' || a.key_id, a.key_id, 'user.create', 'user:' || a.id,
       jsonb_build_object('external_id', m.external_id)
  FROM made m
  JOIN unnest($3::uuid[], $4::uuid[], $5::uuid[]) AS a (id, entry_id, key_id) ON a.id = m.id
"""
_MAKES_USERS = "SELECT makes_users FROM tenants WHERE id = $1"


class UserUnknown(Forbidden):
    """The tenant has no user of this name, and requests make none."""

    def __init__(self) -> None:
        super().__init__("There is no such user. Create it first, or let requests create users.", code="user_unknown")


class UserRequired(Invalid):
    """The key acts for users only, and the request names none."""

    def __init__(self) -> None:
        super().__init__("Name the user of this request: the header Naka-User, or the field user of /chat.")


class TooManyNewUsers(NakaError):
    """The tenant's users made in this minute are as many as it allows."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many new users in this minute. Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class EndUser:
    """A user of a tenant. One that is erased is disabled, too."""

    id: UUID
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class _Named:
    """A name in a tenant."""

    tenant_id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class _New:
    """A user to be made: by the key, whose audit entry it gets."""

    named: _Named
    key_id: UUID


def normal_name(text: str) -> str:
    """Returns the name in NFC, without surrounding white space. Raises Invalid, which does not repeat it."""
    if len(text) <= _MAX_SENT:
        name = unicodedata.normalize("NFC", text).strip()
        if 0 < len(name) <= MAX_NAME_LENGTH and _REFUSED_CATEGORIES.isdisjoint(map(unicodedata.category, name)):
            return name
    raise Invalid(f"user: 1 to {MAX_NAME_LENGTH} characters, and no control characters")


class EndUsers:
    """Finds and makes users. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._found: BatchedReads[_Named, EndUser] = BatchedReads("users", database, _find)
        self._made: BatchedReads[_New, EndUser | NakaError] = BatchedReads("new-users", database, _make)
        self._cache: TtlCache[_Named, EndUser] = TtlCache(ttl_s=ttl_s)

    async def named(
        self, tenant_id: UUID, name: str, *, key_id: UUID, creates: bool = True, fresh: bool = False
    ) -> EndUser:
        """Returns the tenant's user of this name, which `normal_name` returned; makes an unknown one if `creates`.

        `key_id`: the key that names it, for the audit log. Raises UserUnknown, UserDisabled, TooManyNewUsers,
        Unavailable, Overloaded.
        """
        named = _Named(tenant_id, name)
        found = None if fresh else self._cache.get(named)
        if found is None and fresh:
            found = await self._find_or_make(named, key_id, creates=creates)
        elif found is None and creates:
            found = await self._cache.load(named, lambda: self._find_or_make(named, key_id, creates=True))
        elif found is None:  # not shared with a load that makes the user
            found = await self._find_or_make(named, key_id, creates=False)
        if found.is_disabled:
            raise UserDisabled(tenant_id)
        return found

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the cached users of a tenant, or all."""
        self._cache.drop(None if tenant_id is None else lambda named, _: named.tenant_id == tenant_id)

    async def _find_or_make(self, named: _Named, key_id: UUID, *, creates: bool) -> EndUser:
        return await self._found.get(named) or await self._new(named, key_id, creates=creates)

    async def _new(self, named: _Named, key_id: UUID, *, creates: bool) -> EndUser:
        if not creates:
            raise UserUnknown
        made = await self._made.get(_New(named, key_id))
        if not isinstance(made, EndUser):
            raise made or UserUnknown()
        return made


async def _find(connection: Connection, asked: list[_Named]) -> dict[_Named, EndUser]:
    """Reads users by their names, also disabled ones."""
    rows = await connection.fetch(_FIND, [one.tenant_id for one in asked], [one.name for one in asked])
    return {_Named(row["tenant_id"], row["external_id"]): EndUser(row["id"], row["is_disabled"]) for row in rows}


async def _make(connection: Connection, asked: list[_New]) -> dict[_New, EndUser | NakaError]:
    """Makes users, each tenant's in a transaction of its own; answers each with the user or the refusal."""
    by_tenant: dict[UUID, list[_New]] = defaultdict(list)
    for new in asked:
        by_tenant[new.named.tenant_id].append(new)
    answers: dict[_New, EndUser | NakaError] = {}
    for tenant_id, news in by_tenant.items():
        try:
            answers |= await _make_of(connection, tenant_id, news)
        except asyncpg.LockNotAvailableError:
            answers |= dict.fromkeys(news, Unavailable("Too many new users at once. Try again."))
    return answers


async def _make_of(connection: Connection, tenant_id: UUID, news: list[_New]) -> dict[_New, EndUser | NakaError]:
    async with connection.transaction():
        await connection.execute(_PATIENCE)
        await connection.execute(_LOCK, tenant_id)
        wait_s = await _insert(connection, tenant_id, news)
        found = await _find(connection, [new.named for new in news])
        makes_users = await connection.fetchval(_MAKES_USERS, tenant_id)
    refusal = TooManyNewUsers(wait_s) if makes_users else UserUnknown()
    return {new: found.get(new.named, refusal) for new in news}


async def _insert(connection: Connection, tenant_id: UUID, news: list[_New]) -> int:
    """Inserts as many of the users as the minute still allows; returns the seconds until the next one.

    Ids are of Postgres's time, so those of a minute are a range of the primary key.
    """
    at_ms: int = await connection.fetchval(_NOW) + offset_ms()
    minute_ms = at_ms - at_ms % _MINUTE_MS
    keys = {new.named.name: new.key_id for new in news}
    await connection.execute(
        _MAKE,
        tenant_id,
        list(keys),
        [uuid7(at_ms) for _ in keys],
        [uuid7(at_ms) for _ in keys],
        list(keys.values()),
        uuid7_floor(minute_ms),
    )
    return max(1, -(-(minute_ms + _MINUTE_MS - at_ms) // 1000))
