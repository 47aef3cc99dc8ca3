"""Registering the issuers of JWTs that a tenant trusts for its own users, and removing them.

An issuer gets a key whose secret nobody has: its users have at most that key's rights, and revoking the key ends them
all at once. An issuer with an audience belongs to one tenant, and only the operator registers an issuer that another
tenant has or had: nobody proves that an issuer is theirs. Each change is audited in the caller's transaction.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7
from core.network.tenant_urls import checked_url
from core.tenancy import accounts
from core.tenancy.audit import Actor, record
from core.tenancy.models import ApiKey, Issuer, User
from core.tenancy.principal import Scope

GRANTABLE = frozenset({Scope.CHAT, Scope.USAGE_READ})
"""Permissions that the users of an issuer may have."""
MAX_ISSUERS = 20
"""Of one tenant."""
MAX_TAG_CLAIMS = 8
MAX_NAME = 200
"""Characters of an issuer, an audience or a claim's name."""
MAX_LEEWAY_S = 300
PEM = "-----BEGIN "
_LOCK = "naka:issuers:"
_TAG_KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")


@dataclass(frozen=True, slots=True)
class IssuerTerms:
    """An issuer to register. `verification_keys`: the URL of a JWKS, or a public key in PEM.

    `scopes_claim`: the claim that names those of `scopes` that a token has; None: every token has all.
    """

    issuer: str
    audience: str
    verification_keys: str
    user_claim: str
    tag_claims: Mapping[str, str]
    scopes: Sequence[Scope]
    scopes_claim: str | None
    leeway_s: int
    models: list[str] | None = None


async def register_issuer(
    session: AsyncSession, actor: Actor, tenant_id: UUID, terms: IssuerTerms, *, production: bool, shared: bool = False
) -> Issuer:
    """Registers an issuer and makes its key. `shared`: even one that another tenant has or had, as Google's.

    Raises Invalid, Conflict when the issuer has this audience already, of whichever tenant, or is another tenant's, and
    what `create_key` raises.
    """
    _require_valid(terms)
    verification_keys = _checked_keys(terms.verification_keys.strip(), production=production)
    for locked in (tenant_id, terms.issuer):
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{_LOCK}{locked}", 0))))
    if len(await list_issuers(session, tenant_id)) >= MAX_ISSUERS:
        raise Invalid(f"a tenant has at most {MAX_ISSUERS} issuers")
    if not shared:
        await _require_own(session, tenant_id, terms.issuer)
    user = await _service_user(session, actor, tenant_id, f"issuer:{terms.issuer}"[:MAX_NAME])
    key, _ = await accounts.create_key(
        session,
        actor,
        user,
        name=f"issuer for {terms.audience}"[:MAX_NAME],
        scopes=[*terms.scopes, Scope.CHAT_AS_USER],
        models=terms.models,
        expires_at=None,
        live=production,
    )
    values = {
        "issuer": terms.issuer,
        "audience": terms.audience,
        "verification_keys": verification_keys,
        "user_claim": terms.user_claim,
        "tag_claims": dict(terms.tag_claims),
        "scopes": sorted({scope.value for scope in terms.scopes}),
        "scopes_claim": terms.scopes_claim,
        "leeway_s": terms.leeway_s,
    }
    made = insert(Issuer).values(tenant_id=tenant_id, id=uuid7(), key_id=key.id, **values)
    row: Issuer | None = await session.scalar(made.on_conflict_do_nothing().returning(Issuer))
    if row is None:  # the row in the way may be of another tenant, which row-level security hides
        raise Conflict("this issuer is registered for this audience already")
    after = values | {"key_id": str(key.id)}
    record(session, actor, "issuer.create", tenant_id=tenant_id, target=f"issuer:{row.id}", after=after)
    return row


async def remove_issuer(session: AsyncSession, actor: Actor, issuer_id: UUID, *, tenant_id: UUID | None) -> Issuer:
    """Removes an issuer of `tenant_id` (None: any tenant) and revokes its key, so that no request opens any more.

    Idempotent. Raises NotFound.
    """
    query = select(Issuer).where(Issuer.id == issuer_id).with_for_update()
    row = await session.scalar(query if tenant_id is None else query.where(Issuer.tenant_id == tenant_id))
    if row is None:
        raise NotFound("no such issuer")
    if row.removed_at is None:
        row.removed_at = await session.scalar(select(func.clock_timestamp()))
        await accounts.revoke_key(session, actor, await session.get_one(ApiKey, (row.tenant_id, row.key_id)))
        before = {"issuer": row.issuer, "audience": row.audience}
        record(session, actor, "issuer.remove", tenant_id=row.tenant_id, target=f"issuer:{row.id}", before=before)
        await session.flush()
    return row


async def list_issuers(session: AsyncSession, tenant_id: UUID) -> Sequence[Issuer]:
    """Returns the issuers of a tenant that are not removed, oldest first. There are at most MAX_ISSUERS."""
    query = select(Issuer).where(Issuer.tenant_id == tenant_id, Issuer.removed_at.is_(None))
    return (await session.scalars(query.order_by(Issuer.id))).all()


def _require_valid(terms: IssuerTerms) -> None:
    """Raises Invalid."""
    tag_claims = terms.tag_claims
    if not terms.scopes or not GRANTABLE.issuperset(terms.scopes):
        raise Invalid("scopes: users of an issuer may have chat and usage:read")
    if len(tag_claims) > MAX_TAG_CLAIMS or len(set(tag_claims.values())) < len(tag_claims):
        raise Invalid(f"tag_claims: at most {MAX_TAG_CLAIMS} claims, each with a tag of its own")
    if not all(_TAG_KEY.fullmatch(key) for key in tag_claims.values()):
        raise Invalid("tag_claims: a tag is 1 to 40 of a-z, 0-9, _, . and -, and begins with a letter or a digit")


async def _require_own(session: AsyncSession, tenant_id: UUID, issuer: str) -> None:
    """Raises Conflict for an issuer that another tenant has or had, whose tokens might be taken over."""
    if await session.scalar(select(func.naka_is_issuer_of_another(tenant_id, issuer))):
        raise Conflict("this issuer is registered for another account: ask the operator to register it for yours")


def _checked_keys(text: str, *, production: bool) -> str:
    """The URL, or the PEM of a public key. Raises Invalid."""
    if not text.startswith(PEM):
        return checked_url(text, production=production, name="the URL of the JWKS")
    from core.identity.verification_keys import MAX_PEM, parse_pem  # noqa: PLC0415 - lists need no cryptography

    if len(text) > MAX_PEM:
        raise Invalid(f"the public key has more than {MAX_PEM} characters")
    parse_pem(text)
    return text


async def _service_user(session: AsyncSession, actor: Actor, tenant_id: UUID, name: str) -> User:
    """The user that owns the keys of an issuer; made with its first one."""
    found = await session.scalar(select(User).where(User.tenant_id == tenant_id, User.external_id == name))
    return found or await accounts.create_user(session, actor, tenant_id, external_id=name)
