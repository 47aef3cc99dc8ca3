"""Authentication by a JWT of a registered issuer: the tenant's, acting for the user that a claim names.

The issuer and the audiences find the registrations, and the signature the one that counts; a JWT that holds for several
tenants is refused. The issuer's key acts for the user, so Postgres checks key, owner and user when a metered request
opens. Verified signatures are cached, times are checked each time, and unmetered routes read issuer, key and user with
`fresh=True`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from core.clock import now_ms, to_ms
from core.errors import Invalid, NakaError
from core.identity.end_users import EndUsers, normal_name
from core.identity.issuers import GRANTABLE, PEM
from core.identity.jwks import JwksCache, KeySource, KeysUnavailable, UnknownKey
from core.identity.jwts import TIMES, NotAccepted, UnverifiedJwt, check_claims, looks_like_jwt, read_jwt, verify
from core.identity.verification_keys import VerificationKey, parse_pem
from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.resilience.rates import RateLimited
from core.settings import Settings
from core.tenancy.principal import Principal, Unauthenticated, UserDisabled

_VERIFIED_S = 60
_MAX_VERIFIED = 20_000
_MAX_TAG_VALUE = 200
_READ = """
SELECT i.tenant_id, i.id, i.key_id, i.issuer, i.audience, i.verification_keys, i.user_claim, i.tag_claims, i.scopes,
       i.scopes_claim, i.leeway_s, k.user_id, k.scopes AS key_scopes, k.models, k.expires_at, k.prefix,
       k.revoked_at IS NOT NULL AS is_revoked, o.disabled_at IS NOT NULL OR o.erased_at IS NOT NULL AS is_disabled
  FROM issuers i
  JOIN api_keys k ON k.tenant_id = i.tenant_id AND k.id = i.key_id
  JOIN users o ON o.tenant_id = k.tenant_id AND o.id = k.user_id
 WHERE i.issuer = ANY ($1::text[]) AND i.audience = ANY ($2::text[]) AND i.removed_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a JWT says of its issuer and its audiences."""

    issuer: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Registered:
    """A registered issuer. `key`: the principal of its key, with the scopes of the issuer's users.

    `is_disabled`: the user that owns the key.
    """

    id: UUID
    key: Principal
    verification_keys: str
    user_claim: str
    tag_claims: Mapping[str, str]
    scopes_claim: str | None
    leeway_s: int
    is_disabled: bool

    @property
    def source(self) -> KeySource | None:
        """Where its keys are fetched; None for a key in PEM."""
        if self.verification_keys.startswith(PEM):
            return None
        return KeySource(self.key.tenant_id, self.id, self.verification_keys)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a verified JWT says, and the issuer and the key that it was verified with. Small, whatever else it says."""

    issuer_id: UUID
    key: VerificationKey
    times: Mapping[str, Any]
    name: str
    tags: tuple[tuple[str, str], ...]
    scopes: frozenset[str]


class IssuerTokens:
    """Finds the principals of JWTs. One per process."""

    def __init__(self, database: Database, settings: Settings, end_users: EndUsers) -> None:
        self._reads: BatchedReads[_Asked, tuple[_Registered, ...]] = BatchedReads("issuers", database, _fetch)
        self._issuers: TtlCache[_Asked, tuple[_Registered, ...]] = TtlCache(ttl_s=settings.directory_ttl_s)
        self._verified: TtlCache[bytes, _Said] = TtlCache(ttl_s=_VERIFIED_S, max_size=_MAX_VERIFIED)
        self._jwks = JwksCache(settings)
        self._end_users = end_users

    def recognises(self, credential: str) -> bool:
        """Whether the credential is to be read as a JWT."""
        return looks_like_jwt(credential)

    async def principal_of(self, credential: str, *, origin: str | None, fresh: bool) -> Principal:  # noqa: ARG002
        """Returns the principal of the user that the JWT names, who is made on first sight.

        Raises Unauthenticated, UserUnknown, UserDisabled, TooManyNewUsers, RateLimited, KeysUnavailable, Unavailable.
        """
        jwt = read_jwt(credential)
        asked, generation = _Asked(jwt.issuer, jwt.audiences), self._issuers.generation
        known = None if fresh else self._issuers.get(asked)
        found = known or await self._reads.get(asked) or ()
        issuer, said = await self._signer(jwt, found)
        if known is None:  # not before: an unsigned JWT may name any audiences
            self._issuers.put(asked, found, generation=generation)
        tenant_id, now = issuer.key.tenant_id, now_ms()
        expires_at_ms = 1000 * check_claims(said.times, now_s=now // 1000, leeway_s=issuer.leeway_s)
        if issuer.is_disabled:
            raise UserDisabled(tenant_id)
        user = await self._end_users.named(tenant_id, said.name, key_id=issuer.key.key_id, fresh=fresh)
        return replace(
            issuer.key,
            user_id=user.id,
            scopes=said.scopes,
            expires_at_ms=min(expires_at_ms, issuer.key.expires_at_ms or expires_at_ms),
            tags=said.tags,
            is_delegated=True,
        )

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the cached issuers of a tenant, or of all."""
        if tenant_id is None:
            self._issuers.drop()
        else:
            self._issuers.drop(lambda _, found: any(one.key.tenant_id == tenant_id for one in found))

    async def stop(self) -> None:
        """Ends the fetches of keys in progress."""
        await self._jwks.stop()

    async def _signer(self, jwt: UnverifiedJwt, found: Sequence[_Registered]) -> tuple[_Registered, _Said]:
        """The registered issuer that signed the JWT, the oldest of a tenant's, and what the JWT says.

        Anybody may register a key of their own for another's issuer, so a registration counts only if its key holds.
        Raises Unauthenticated, KeysUnavailable, RateLimited.
        """
        valid = [each for each in found if each.key.expires_at_ms is None or each.key.expires_at_ms > now_ms()]
        if found and not valid:
            raise Unauthenticated(tenant_id=found[0].key.tenant_id)
        signed: list[tuple[_Registered, _Said]] = []
        refusal: NakaError = NotAccepted()
        for issuer in sorted(valid, key=lambda each: each.id):
            try:
                signed.append((issuer, await self._said(jwt, issuer)))
            except NotAccepted:
                pass
            except (Unauthenticated, KeysUnavailable, RateLimited) as error:
                refusal = error
        if not signed:
            raise refusal
        if len({issuer.key.tenant_id for issuer, _ in signed}) > 1:  # not up to the caller whose request it is
            raise NotAccepted
        return signed[0]

    async def _said(self, jwt: UnverifiedJwt, issuer: _Registered) -> _Said:
        """What the JWT says, verified; cached while the issuer has the key.

        Raises Unauthenticated, KeysUnavailable, RateLimited.
        """
        digest, source = hashlib.sha256(jwt.text.encode()).digest(), issuer.source
        known = self._verified.get(digest)
        if source is None:
            key = _pem(issuer.verification_keys)
        else:
            key = self._jwks.peek(source, jwt.kid, jwt.algorithm) or await self._fetched(source, jwt)
        if known is not None and known.issuer_id == issuer.id and known.key is key:
            return known
        claims = verify(jwt, key)
        times = {name: claims[name] for name in TIMES if name in claims}
        check_claims(times, now_s=now_ms() // 1000, leeway_s=issuer.leeway_s)  # of what is wrong, the time comes first
        name, tags = _name(claims, issuer.user_claim), _tags(claims, issuer.tag_claims)
        said = _Said(issuer.id, key, times, name, tags, _scopes(claims, issuer))
        self._verified.put(digest, said)
        return said

    async def _fetched(self, source: KeySource, jwt: UnverifiedJwt) -> VerificationKey:
        try:
            return await self._jwks.find(source, jwt.kid, jwt.algorithm)
        except UnknownKey:
            raise NotAccepted from None


@lru_cache(maxsize=1000)
def _pem(text: str) -> VerificationKey:
    """The key that was valid when it was registered. Raises NotAccepted if it no longer is."""
    try:
        return parse_pem(text)
    except Invalid as error:
        raise NotAccepted from error


def _name(claims: Mapping[str, Any], claim: str) -> str:
    """The user's name. Raises Unauthenticated, which does not repeat it."""
    value = _claim(claims, claim)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    try:
        return normal_name(value if isinstance(value, str) else "")
    except Invalid:
        raise Unauthenticated(f"This token names no valid user in its claim {claim}.") from None


def _tags(claims: Mapping[str, Any], tag_claims: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The tags of the claims that the token has. Raises Unauthenticated for a claim that is no tag's value."""
    found = []
    for claim, key in tag_claims.items():
        value = _claim(claims, claim)
        if value is None:
            continue
        text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool | int) else ""
        try:
            tag = normal_name(text)
        except Invalid:
            tag = ""
        if not tag.isprintable() or not tag:  # the rule of `metering.tags.tags`: a request could not name it otherwise
            raise Unauthenticated(f"This token's claim {claim} is no tag: 1 to {_MAX_TAG_VALUE} printable characters.")
        found.append((key, tag))
    return tuple(sorted(found))


def _scopes(claims: Mapping[str, Any], issuer: _Registered) -> frozenset[str]:
    """The issuer's scopes; with a claim for them, those that it names: a list, or a text with blanks (RFC 8693)."""
    if issuer.scopes_claim is None:
        return issuer.key.scopes
    named = _claim(claims, issuer.scopes_claim)
    words = named.split() if isinstance(named, str) else named if isinstance(named, list) else []
    return issuer.key.scopes & {word for word in words if isinstance(word, str)}


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by the names of objects on the way to it (`metadata.team`); None without it."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


async def _fetch(connection: Connection, asked: list[_Asked]) -> dict[_Asked, tuple[_Registered, ...]]:
    """Reads the issuers that fit, also those whose key was revoked."""
    audiences = {audience for one in asked for audience in one.audiences}
    rows = await connection.fetch(_READ, list({one.issuer for one in asked}), list(audiences))
    found = {
        one: tuple(_registered(row) for row in rows if row["issuer"] == one.issuer and row["audience"] in one.audiences)
        for one in asked
    }
    return {one: each for one, each in found.items() if each}


def _registered(row: Any) -> _Registered:
    """A revoked key is one that expired long ago, so that its refusals are counted for its tenant."""
    expires_at_ms = None if row["expires_at"] is None else to_ms(row["expires_at"])
    key = Principal(
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        key_id=row["key_id"],
        scopes=frozenset(row["scopes"]) & frozenset(row["key_scopes"]) & GRANTABLE,
        models=None if row["models"] is None else frozenset(row["models"]),
        expires_at_ms=0 if row["is_revoked"] else expires_at_ms,
        key_prefix=row["prefix"],
    )
    return _Registered(
        id=row["id"],
        key=key,
        verification_keys=row["verification_keys"],
        user_claim=row["user_claim"],
        tag_claims=msgspec.json.decode(row["tag_claims"], type=dict[str, str]),
        scopes_claim=row["scopes_claim"],
        leeway_s=row["leeway_s"],
        is_disabled=row["is_disabled"],
    )
