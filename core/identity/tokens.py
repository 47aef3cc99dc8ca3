"""Short-lived tokens for browsers: signed, not stored, and never more than the key that made them.

A token names its key and its user, so it ends with either: Postgres checks both when a request opens, and unmetered
routes read them again. A verified token is cached by its hash, so it costs no more than a key. Postgres down: cached
tokens are known, others get `Unavailable`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from core.clock import now_ms
from core.identity.delegation import Delegations
from core.identity.token_secrets import TokenSecrets
from core.ids import uuid7
from core.resilience.cache import TtlCache
from core.tenancy.principal import Forbidden, Principal, Unauthenticated

PREFIX = "nk_tmp_"
_MAX_LENGTH = 8192
_ALGORITHM = "HS256"
_MAX_CACHED = 20_000


class TokenOriginNotAllowed(Forbidden):
    """The token is bound to origins, and the request comes from none of them."""

    def __init__(self) -> None:
        super().__init__("This token may not be used from this origin.", code="origin_not_allowed")


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a token says. None: no bound of its own. `budget`: by meter, for the token's life."""

    id: str
    tenant_id: UUID
    key_id: UUID
    user_id: UUID
    expires_s: int
    models: Sequence[str] | None = None
    origins: Sequence[str] | None = None
    budget: Mapping[str, int] = {}
    tags: Mapping[str, str] = {}


_decode = msgspec.json.Decoder(Claims).decode


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    origins: frozenset[str] | None


class Tokens:
    """Makes and verifies tokens. One per process."""

    def __init__(self, secrets: TokenSecrets, delegations: Delegations, *, ttl_s: float) -> None:
        self._secrets = secrets
        self._delegations = delegations
        self._cache: TtlCache[bytes, _Verified] = TtlCache(ttl_s=ttl_s, max_size=_MAX_CACHED)

    async def issue(self, claims: Claims) -> str:
        """Returns the signed token. The caller made sure that its key may do all of this. Raises Unavailable."""
        secret = await self._secrets.newest()
        header = {"alg": _ALGORITHM, "kid": secret.id}
        key = OctKey.import_key(secret.secret)
        return PREFIX + jws.serialize_compact(header, msgspec.json.encode(claims), key, algorithms=[_ALGORITHM])

    def recognises(self, credential: str) -> bool:
        """Whether the credential looks like a token."""
        return credential.startswith(PREFIX)

    async def principal_of(self, credential: str, *, origin: str | None, fresh: bool) -> Principal:
        """Returns the principal of the token's user.

        Raises Unauthenticated for a token that is not ours, expired, or whose key ended; UserDisabled,
        TokenOriginNotAllowed, Unavailable.
        """
        hashed = hashlib.sha256(credential.encode()).digest()
        found = None if fresh else self._cache.get(hashed)
        if found is None and fresh:
            found = await self._verify(credential)
        elif found is None:
            found = await self._cache.load(hashed, lambda: self._verify(credential))
        principal = found.principal
        if principal.expires_at_ms is not None and principal.expires_at_ms <= now_ms():
            raise Unauthenticated(tenant_id=principal.tenant_id)
        if found.origins is not None and (origin or "").lower() not in found.origins:
            raise TokenOriginNotAllowed
        return principal

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the verified tokens of a tenant; all of them, and the secrets, with None."""
        if tenant_id is None:
            self._secrets.forget()
            self._cache.drop()
        else:
            self._cache.drop(lambda _, found: found.principal.tenant_id == tenant_id)

    async def _verify(self, credential: str) -> _Verified:
        claims = await self._read(credential)
        expires_ms = claims.expires_s * 1000
        if expires_ms <= now_ms():  # before Postgres is asked
            raise Unauthenticated(tenant_id=claims.tenant_id)
        key = await self._delegations.of(claims.tenant_id, claims.key_id, claims.user_id)
        return _Verified(
            replace(
                key,
                models=_within(key.models, claims.models),
                expires_at_ms=expires_ms if key.expires_at_ms is None else min(expires_ms, key.expires_at_ms),
                tags=tuple(sorted(claims.tags.items())),
                token_id=claims.id,
                budget=tuple(sorted(claims.budget.items())),
            ),
            None if claims.origins is None else frozenset(claims.origins),
        )

    async def _read(self, credential: str) -> Claims:
        """Returns the claims of a token with a valid signature. Raises Unauthenticated, Unavailable."""
        if len(credential) > _MAX_LENGTH or not credential.isascii():
            raise Unauthenticated
        try:
            token = jws.extract_compact(credential.removeprefix(PREFIX).encode())
            secret_id = token.headers().get("kid")
            secret = await self._secrets.find(secret_id) if isinstance(secret_id, str) else None
            if secret is None:
                raise Unauthenticated
            if not jws.validate_compact(token, OctKey.import_key(secret.secret), algorithms=[_ALGORITHM]):
                raise Unauthenticated
            return _decode(token.payload)
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError, msgspec.MsgspecError) as error:
            raise Unauthenticated from error


def new_token_id() -> str:
    """Returns the id of a new token: its usage is added up under it."""
    return uuid7().hex


def _within(key: frozenset[str] | None, token: Sequence[str] | None) -> frozenset[str] | None:
    """Returns the models that both allow; None for any."""
    if token is None:
        return key
    return frozenset(token) if key is None else key.intersection(token)
