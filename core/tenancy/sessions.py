"""Browser sessions: an opaque token in exchange for a key, valid until the session or the key expires.

The SHA-256 of 256 random bits is stored. Expiry uses Postgres's clock, so a test clock signs nobody out. Postgres down:
raises what the session raises.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import uuid7
from core.tenancy.models import WebSession
from core.tenancy.principal import Principal

_PREFIX = "ns_"
_BYTES = 32
TOKEN_LENGTH = len(_PREFIX) + 43
_KEPT_FOR = timedelta(days=1)


def is_token(text: str) -> bool:
    """Whether `text` has the format of a token."""
    return len(text) == TOKEN_LENGTH and text.startswith(_PREFIX) and text.isascii()


def hash_token(token: str) -> bytes:
    """Returns the stored hash: 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


async def begin_session(session: AsyncSession, principal: Principal, *, ttl_s: int) -> str:
    """Starts a session of the principal's key and returns its token, which is not stored."""
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


async def end_session(session: AsyncSession, hashed: bytes) -> tuple[UUID, UUID] | None:
    """Ends the session of a token's hash; returns its tenant, whose caches must be invalidated, and its key.

    None if it had ended.
    """
    ended = update(WebSession).where(WebSession.hash == hashed, WebSession.ended_at.is_(None))
    returned = ended.values(ended_at=func.clock_timestamp()).returning(WebSession.tenant_id, WebSession.key_id)
    found = (await session.execute(returned)).one_or_none()
    return None if found is None else (found.tenant_id, found.key_id)


async def end_sessions(session: AsyncSession, tenant_id: UUID, key_id: UUID) -> int:
    """Ends every session of a key, whose tenant's caches must be invalidated; returns how many ended."""
    running = update(WebSession).where(*_running(tenant_id, key_id)).values(ended_at=func.clock_timestamp())
    return len((await session.scalars(running.returning(WebSession.id))).all())


async def count_sessions(session: AsyncSession, tenant_id: UUID, key_id: UUID) -> int:
    """Returns the number of running sessions of a key."""
    return await session.scalar(select(func.count(WebSession.id)).where(*_running(tenant_id, key_id))) or 0


def _running(tenant_id: UUID, key_id: UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        WebSession.tenant_id == tenant_id,
        WebSession.key_id == key_id,
        WebSession.ended_at.is_(None),
        WebSession.expires_at > func.clock_timestamp(),
    )


async def prune_sessions(connection: Any) -> None:
    """Deletes sessions that expired a day ago or earlier."""
    await connection.execute("DELETE FROM web_sessions WHERE expires_at < clock_timestamp() - $1::interval", _KEPT_FOR)
