"""The directory of API keys and sessions: cached per process, invalidated by `core.redis.changes`.

Cache misses are read in batches (`core.postgres.batched_reads`). An outdated entry is safe: Postgres opens a metered
request only if key and user are still valid, and unmetered routes read with `fresh=True`. Postgres down: `Unavailable`,
never "invalid key".
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.clock import now_ms, to_ms
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.tenancy.activity_log import ActivityLog
from core.tenancy.keys import hash_key, is_well_formed
from core.tenancy.principal import Principal, Unauthenticated, UserDisabled
from core.tenancy.sessions import hash_token, is_token

# Sessions expire by Postgres's clock, whatever the test clock is.
_KEYS = """
SELECT k.hash AS asked, false AS of_session, k.tenant_id, k.user_id, k.id, k.scopes, k.models, k.expires_at, k.prefix,
       k.revoked_at IS NOT NULL AS is_revoked, u.disabled_at IS NOT NULL AS is_disabled
  FROM api_keys k
  JOIN users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
 WHERE k.hash = ANY ($1::bytea[])
UNION ALL
SELECT s.hash, true, k.tenant_id, k.user_id, k.id, k.scopes, k.models, k.expires_at, k.prefix, false,
       u.disabled_at IS NOT NULL
  FROM web_sessions s
  JOIN api_keys k ON k.tenant_id = s.tenant_id AND k.id = s.key_id
  JOIN users u ON u.tenant_id = k.tenant_id AND u.id = k.user_id
 WHERE s.hash = ANY ($2::bytea[]) AND s.ended_at IS NULL AND s.expires_at > clock_timestamp()
   AND k.revoked_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class _Known:
    """The principal of a credential, and whether its user is disabled."""

    principal: Principal
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class _Credential:
    """The hash of a key, or of a session's token."""

    hash: bytes
    of_session: bool = False


class Directory:
    """Finds principals. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._found: BatchedReads[_Credential, _Known] = BatchedReads("keys", database, _fetch)
        self._cache: TtlCache[bytes, _Known] = TtlCache(ttl_s=ttl_s)
        self.activity_log = ActivityLog()

    async def authenticate(self, plaintext: str | None, *, fresh: bool = False) -> Principal:
        """Returns the principal of a key. Raises Unauthenticated, UserDisabled, Unavailable, Overloaded."""
        if plaintext is None or not is_well_formed(plaintext):
            raise Unauthenticated
        return await self._principal(_Credential(hash_key(plaintext)), fresh=fresh)

    async def authenticate_session(self, token: str, *, fresh: bool = False) -> Principal:
        """Returns the principal of the key that a browser signed in with. Raises as `authenticate`."""
        if not is_token(token):
            raise Unauthenticated
        return await self._principal(_Credential(hash_token(token), of_session=True), fresh=fresh)

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the cached entries of a tenant, or all."""
        if tenant_id is None:
            self._cache.drop()
        else:
            self._cache.drop(lambda _, known: known.principal.tenant_id == tenant_id)

    async def _principal(self, asked: _Credential, *, fresh: bool) -> Principal:
        if fresh:
            return self._good(await self._find(asked))
        cached = self._cache.get(asked.hash)
        return self._good(cached or await self._cache.load(asked.hash, lambda: self._find(asked)))

    def _good(self, known: _Known) -> Principal:
        principal = known.principal
        if principal.expires_at_ms is not None and principal.expires_at_ms <= now_ms():
            raise Unauthenticated(tenant_id=principal.tenant_id)
        if known.is_disabled:
            raise UserDisabled(principal.tenant_id)
        self.activity_log.used(principal)
        return principal

    async def _find(self, asked: _Credential) -> _Known:
        found = await self._found.get(asked)
        if found is None:
            raise Unauthenticated
        return found


async def _fetch(connection: Connection, asked: list[_Credential]) -> dict[_Credential, _Known]:
    """Reads the principals of keys, also of revoked ones, and of valid sessions."""
    keys = [one.hash for one in asked if not one.of_session]
    tokens = [one.hash for one in asked if one.of_session]
    rows = await connection.fetch(_KEYS, keys, tokens)
    return {_Credential(row["asked"], row["of_session"]): _known(row) for row in rows}


def _known(row: Any) -> _Known:
    """A revoked key is one that expired long ago, so that its refusals are counted for its tenant."""
    expires_at_ms = None if row["expires_at"] is None else to_ms(row["expires_at"])
    principal = Principal(
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        key_id=row["id"],
        scopes=frozenset(row["scopes"]),
        models=None if row["models"] is None else frozenset(row["models"]),
        expires_at_ms=0 if row["is_revoked"] else expires_at_ms,
        key_prefix=row["prefix"],
    )
    return _Known(principal, row["is_disabled"])
