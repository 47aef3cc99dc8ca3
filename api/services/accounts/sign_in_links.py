"""One-time sign-in links, in development only: a person opens one instead of typing a key.

Redis keeps the key's id under the SHA-256 of the link's 256 random bits, until it is taken or expires. The key itself
is stored nowhere. Redis down: Unavailable.
"""

import hashlib
import secrets
from typing import cast
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import select

from core.errors import Unavailable
from core.postgres.database import Database
from core.tenancy.models import ApiKey
from core.tenancy.principal import Principal, Unauthenticated

LINK_TTL_S = 900
_BYTES = 32


async def make_link(redis: "Redis", principal: Principal) -> str:
    """The path of a link that signs in once as the principal, within `LINK_TTL_S`. Raises Unavailable."""
    token = secrets.token_urlsafe(_BYTES)
    try:
        await redis.set(_name(token), f"{principal.tenant_id} {principal.key_id}", ex=LINK_TTL_S)
    except (RedisError, OSError) as error:
        raise Unavailable from error
    return f"/sign-in/link/{token}"


async def take_link(redis: "Redis", database: Database, token: str) -> Principal:
    """The principal of a link, which works no more. Raises Unauthenticated, Unavailable."""
    try:
        found = cast("bytes | None", await redis.getdel(_name(token)))  # `connect_redis` decodes nothing
    except (RedisError, OSError) as error:
        raise Unavailable from error
    if found is None:
        raise Unauthenticated
    tenant_id, key_id = map(UUID, found.decode().split())
    async with database.session(tenant_id=tenant_id) as session:
        key = await session.scalar(
            select(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        )
    if key is None:
        raise Unauthenticated
    return Principal(key.tenant_id, key.user_id, key.id, frozenset(key.scopes), key_prefix=key.prefix)


def _name(token: str) -> str:
    return f"naka:sign-in-link:{hashlib.sha256(token.encode()).hexdigest()}"
