"""From a key to a principal: cached in the process, dropped everywhere by `core.redis.changes`.

Misses are read in batches (`core.postgres.batched_reads`), so that a crowd of keys that nobody has seen yet costs a
few statements. The
cache answers fast and may be a moment old; that is safe, because a metered request is opened in Postgres only
if the key is still good there, and everything that is not metered asks with `fresh=True`. Postgres away:
`Unavailable`, never "wrong key".
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.clock import now_ms, to_ms
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.tenancy.keys import hash_key, is_well_formed
from core.tenancy.principal import Principal, Unauthenticated
from core.tenancy.sessions import hash_token, is_token
from core.tenancy.traces import ActivityLog

# A session goes by Postgres's own clock: it is about a person at a screen, whatever a test clock says.
_KEYS = """
SELECT k.hash AS asked, false AS of_session, k.tenant_id, k.user_id, k.id, k.scopes, k.models, k.expires_at, k.prefix
  FROM api_keys k
 WHERE k.hash = ANY ($1::bytea[]) AND k.revoked_at IS NULL
UNION ALL
SELECT s.hash, true, k.tenant_id, k.user_id, k.id, k.scopes, k.models, k.expires_at, k.prefix
  FROM web_sessions s
  JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.id = s.key_id
 WHERE s.hash = ANY ($2::bytea[]) AND s.ended_at IS NULL AND s.expires_at > clock_timestamp()
   AND k.revoked_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The hash of a key, or of a session's token."""

    hash: bytes
    of_session: bool = False


class Directory:
    """Finds keys. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._found: BatchedReads[_Asked, Principal] = BatchedReads("keys", database, _fetch)
        self._cache: TtlCache[bytes, Principal] = TtlCache(ttl_s=ttl_s)
        self.traces = ActivityLog()

    async def authenticate(self, plaintext: str | None, *, fresh: bool = False) -> Principal:
        """The principal of a key.

        Raises Unauthenticated when there is none, Unavailable when Postgres does not answer, Overloaded when it has
        too much to do.
        """
        if plaintext is None or not is_well_formed(plaintext):
            raise Unauthenticated
        return await self._principal(_Asked(hash_key(plaintext)), fresh=fresh)

    async def authenticate_session(self, token: str, *, fresh: bool = False) -> Principal:
        """The principal of the key that a browser signed in with. Raises as `authenticate`."""
        if not is_token(token):
            raise Unauthenticated
        return await self._principal(_Asked(hash_token(token), of_session=True), fresh=fresh)

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops what is cached of a tenant, or everything."""
        if tenant_id is None:
            self._cache.drop()
        else:
            self._cache.drop(lambda _, principal: principal.tenant_id == tenant_id)

    async def _principal(self, asked: _Asked, *, fresh: bool) -> Principal:
        if fresh:
            return self._good(await self._find(asked))
        cached = self._cache.get(asked.hash)
        return self._good(cached or await self._cache.load(asked.hash, lambda: self._find(asked)))

    def _good(self, principal: Principal) -> Principal:
        _require_unexpired(principal)
        self.traces.used(principal)
        return principal

    async def _find(self, asked: _Asked) -> Principal:
        found = await self._found.get(asked)
        if found is None:
            raise Unauthenticated
        return found


async def _fetch(connection: Connection, asked: list[_Asked]) -> dict[_Asked, Principal]:
    """The principals of keys and sessions that are good."""
    keys = [one.hash for one in asked if not one.of_session]
    tokens = [one.hash for one in asked if one.of_session]
    rows = await connection.fetch(_KEYS, keys, tokens)
    return {_Asked(row["asked"], row["of_session"]): _principal(row) for row in rows}


def _principal(row: Any) -> Principal:
    return Principal(
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        key_id=row["id"],
        scopes=frozenset(row["scopes"]),
        models=None if row["models"] is None else frozenset(row["models"]),
        expires_at_ms=None if row["expires_at"] is None else to_ms(row["expires_at"]),
        key_prefix=row["prefix"],
    )


def _require_unexpired(principal: Principal) -> None:
    if principal.expires_at_ms is not None and principal.expires_at_ms <= now_ms():
        raise Unauthenticated
