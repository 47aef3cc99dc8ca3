"""Short-lived tokens: made with a key that acts for users, never more than that key; and the secrets that sign them."""

from typing import TYPE_CHECKING

import msgspec

from api.schemas.accounts.tokens import NewToken, SecretRotated, TokenMade
from api.services.context import ServiceContext, publish_after_commit
from core.clock import now_ms, to_datetime
from core.errors import Invalid
from core.identity.token_secrets import rotate_secret
from core.tenancy.derivation import ExceedsParentKey
from core.tenancy.principal import Principal, Scope
from metering.tags.tags import checked

if TYPE_CHECKING:  # the command line rotates secrets, and need not import the library that signs
    from core.identity.end_users import EndUsers
    from core.identity.tokens import Tokens

_MAX_CLAIMS = 4000
"""Bytes: the token has to fit into a header, beside others."""


async def make_token(principal: Principal, new: NewToken, *, end_users: "EndUsers", tokens: "Tokens") -> TokenMade:
    """Makes a token for a user, which it creates on first sight.

    Raises Forbidden without the scope `chat:as-user`, ExceedsParentKey, Invalid for tags, or a token that would be too
    long, UserUnknown, UserDisabled, TooManyNewUsers, Unavailable.
    """
    from core.identity.tokens import Claims, new_token_id  # noqa: PLC0415 - as above

    principal.require(Scope.CHAT_AS_USER)
    missing = sorted(name for name in new.models or () if not principal.allows_model(name))
    if missing:
        raise ExceedsParentKey(f"This key may not use models that the token would have: {', '.join(missing)}.")
    expires_s = now_ms() // 1000 + new.ttl_s
    if principal.expires_at_ms is not None and expires_s * 1000 > principal.expires_at_ms:
        ends_at = to_datetime(principal.expires_at_ms).isoformat()
        raise ExceedsParentKey(f"The token would outlive this key, which expires at {ends_at}.")
    tags = dict(checked((new.tags or {}).items()))
    user = await end_users.named(principal.tenant_id, new.user, key_id=principal.key_id, fresh=True)
    claims = Claims(
        id=new_token_id(),
        tenant_id=principal.tenant_id,
        key_id=principal.key_id,
        user_id=user.id,
        expires_s=expires_s,
        models=new.models,
        origins=new.origins,
        budget={} if new.limits is None else new.limits.budget,
        tags=tags,
    )
    if len(msgspec.json.encode(claims)) > _MAX_CLAIMS:
        raise Invalid("models, origins, tags: too long together for a token")
    return TokenMade(token=await tokens.issue(claims), expires_at=to_datetime(expires_s * 1000), id=claims.id)


async def rotate_token_secret(context: ServiceContext, *, at_once: bool) -> SecretRotated:
    """Signs tokens with a new secret from now on; older tokens stay valid until they expire, unless `at_once`."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        made = await rotate_secret(session, context.actor, at_once=at_once)
        publish_after_commit(session, None)
        return SecretRotated(id=made.id, created_at=made.created_at)
