"""From a key to a principal: cached in the process, dropped everywhere by `core.changes`.

The cache answers fast and may be a moment old; that is safe, because a metered request is opened in Postgres only
if the key is still good there, and everything that is not metered asks with `fresh=True`. Postgres away:
`Unavailable`, never "wrong key".
"""

from uuid import UUID

from sqlalchemy import select

from core.cache import TtlCache
from core.clock import now_ms, to_ms
from core.database import Database
from core.tenancy.keys import hash_key, is_well_formed
from core.tenancy.models import ApiKey
from core.tenancy.principal import Principal, Unauthenticated


class Directory:
    """Finds keys. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._database = database
        self._cache: TtlCache[bytes, Principal] = TtlCache(ttl_s=ttl_s)

    async def authenticate(self, plaintext: str | None, *, fresh: bool = False) -> Principal:
        """The principal of a key.

        Raises Unauthenticated when there is none, Unavailable when Postgres does not answer.
        """
        if plaintext is None or not is_well_formed(plaintext):
            raise Unauthenticated
        key_hash = hash_key(plaintext)
        if fresh:
            principal = await self._find(key_hash)
        else:
            principal = self._cache.get(key_hash) or await self._cache.load(key_hash, lambda: self._find(key_hash))
        if principal.expires_at_ms is not None and principal.expires_at_ms <= now_ms():
            raise Unauthenticated
        return principal

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops what is cached of a tenant, or everything."""
        if tenant_id is None:
            self._cache.drop()
        else:
            self._cache.drop(lambda _, principal: principal.tenant_id == tenant_id)

    async def _find(self, key_hash: bytes) -> Principal:
        async with self._database.session() as session:
            key = await session.scalar(select(ApiKey).where(ApiKey.hash == key_hash, ApiKey.revoked_at.is_(None)))
        if key is None:
            raise Unauthenticated
        return Principal(
            tenant_id=key.tenant_id,
            user_id=key.user_id,
            key_id=key.id,
            scopes=frozenset(key.scopes),
            models=None if key.models is None else frozenset(key.models),
            expires_at_ms=None if key.expires_at is None else to_ms(key.expires_at),
        )
