"""From a key to a principal: cached in the process, dropped everywhere by `core.changes`.

The cache answers fast and may be a moment old; that is safe, because a metered request is opened in Postgres only
if the key is still good there, and everything that is not metered asks with `fresh=True`. Postgres away:
`Unavailable`, never "wrong key".
"""

from uuid import UUID

from sqlalchemy import func, select

from core.cache import TtlCache
from core.clock import now_ms, to_ms
from core.database import Database
from core.tenancy.keys import hash_key, is_well_formed
from core.tenancy.models import ApiKey, WebSession
from core.tenancy.principal import Principal, Unauthenticated
from core.tenancy.sessions import hash_token, is_token
from core.tenancy.traces import Traces


class Directory:
    """Finds keys. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._database = database
        self._cache: TtlCache[bytes, Principal] = TtlCache(ttl_s=ttl_s)
        self.traces = Traces()

    async def authenticate(self, plaintext: str | None, *, fresh: bool = False) -> Principal:
        """The principal of a key.

        Raises Unauthenticated when there is none, Unavailable when Postgres does not answer.
        """
        if plaintext is None or not is_well_formed(plaintext):
            raise Unauthenticated
        key_hash = hash_key(plaintext)
        if fresh:
            return self._good(await self._find(key_hash))
        return self._good(self._cache.get(key_hash) or await self._cache.load(key_hash, lambda: self._find(key_hash)))

    async def authenticate_session(self, token: str, *, fresh: bool = False) -> Principal:
        """The principal of the key that a browser signed in with. Raises as `authenticate`."""
        if not is_token(token):
            raise Unauthenticated
        token_hash = hash_token(token)
        if fresh:
            return self._good(await self._find_session(token_hash))
        return self._good(
            self._cache.get(token_hash) or await self._cache.load(token_hash, lambda: self._find_session(token_hash))
        )

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops what is cached of a tenant, or everything."""
        if tenant_id is None:
            self._cache.drop()
        else:
            self._cache.drop(lambda _, principal: principal.tenant_id == tenant_id)

    def _good(self, principal: Principal) -> Principal:
        _require_unexpired(principal)
        self.traces.used(principal)
        return principal

    async def _find(self, key_hash: bytes) -> Principal:
        async with self._database.session() as session:
            key = await session.scalar(select(ApiKey).where(ApiKey.hash == key_hash, ApiKey.revoked_at.is_(None)))
        return _principal(key)

    async def _find_session(self, token_hash: bytes) -> Principal:
        """By Postgres's own clock: a session is about a person at a screen, whatever a test clock says."""
        query = (
            select(ApiKey)
            .join(WebSession, (WebSession.tenant_id == ApiKey.tenant_id) & (WebSession.key_id == ApiKey.id))
            .where(
                WebSession.hash == token_hash,
                WebSession.ended_at.is_(None),
                WebSession.expires_at > func.clock_timestamp(),
                ApiKey.revoked_at.is_(None),
            )
        )
        async with self._database.session() as session:
            return _principal(await session.scalar(query))


def _principal(key: ApiKey | None) -> Principal:
    if key is None:
        raise Unauthenticated
    return Principal(
        tenant_id=key.tenant_id,
        user_id=key.user_id,
        key_id=key.id,
        scopes=frozenset(key.scopes),
        models=None if key.models is None else frozenset(key.models),
        expires_at_ms=None if key.expires_at is None else to_ms(key.expires_at),
        key_prefix=key.prefix,
    )


def _require_unexpired(principal: Principal) -> None:
    if principal.expires_at_ms is not None and principal.expires_at_ms <= now_ms():
        raise Unauthenticated
