"""Sessions of the browser: an opaque token in exchange for a key, good as long as the key is, and no longer than set.

What is stored is the SHA-256 of 256 random bits. Their time is Postgres's own: a test clock that jumps a month ahead
signs nobody out. Postgres away: raises what the session raises.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import uuid7
from core.tenancy.models import WebSession
from core.tenancy.principal import Principal

_PREFIX = "ns_"
_BYTES = 32
TOKEN_LENGTH = len(_PREFIX) + 43
_KEPT_FOR = timedelta(days=1)


def is_token(text: str) -> bool:
    """Whether `text` can be a token at all."""
    return len(text) == TOKEN_LENGTH and text.startswith(_PREFIX) and text.isascii()


def hash_token(token: str) -> bytes:
    """What is stored and looked up: 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


async def begin_session(session: AsyncSession, principal: Principal, *, ttl_s: int) -> str:
    """A new session of the principal's key; its token, which is kept nowhere."""
    token = _PREFIX + secrets.token_urlsafe(_BYTES)
    session.add(
        WebSession(
            tenant_id=principal.tenant_id,
            id=uuid7(),
            key_id=principal.key_id,
            hash=hash_token(token),
            expires_at=func.clock_timestamp() + timedelta(seconds=ttl_s),
        )
    )
    return token


async def end_session(session: AsyncSession, token: str) -> tuple[UUID, UUID] | None:
    """Ends it, if it runs; its tenant, whose caches are to be dropped then, and its key."""
    ended = update(WebSession).where(WebSession.hash == hash_token(token), WebSession.ended_at.is_(None))
    returned = ended.values(ended_at=func.clock_timestamp()).returning(WebSession.tenant_id, WebSession.key_id)
    found = (await session.execute(returned)).one_or_none()
    return None if found is None else (found.tenant_id, found.key_id)


async def prune_sessions(connection: Any) -> None:
    """Sessions that are over for a day, on an asyncpg connection."""
    await connection.execute("DELETE FROM web_sessions WHERE expires_at < clock_timestamp() - $1::interval", _KEPT_FOR)
