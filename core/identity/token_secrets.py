"""The secrets that short-lived tokens are signed with, and their rotation without a restart.

The newest signs. A rotation lets older ones verify until their last token has expired, or retires them at once. Cached
per process, invalidated by `core.redis.changes`; an unknown one is looked up at most once a second. Postgres down: the
cached ones serve until they expire, then `Unavailable`.
"""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import uuid7
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.resilience.shares import own_work
from core.tenancy.audit import PLATFORM, Actor, record
from core.tenancy.models import TokenSecret

MAX_TTL_S = 86_400
"""The longest life of a token."""
_BYTES = 32
_AGAIN_S = 1.0
_ALL = ""
_FIRST = Actor("naka")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('naka:token-secrets', 0))")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret; `id` is the `kid` of its tokens. One that has a retirement date signs no more."""

    id: str
    secret: bytes
    signs: bool


class TokenSecrets:
    """Reads the secrets, and makes the first one. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._database = database
        self._cache: TtlCache[str, Sequence[Secret]] = TtlCache(ttl_s=ttl_s, max_size=1)
        self._read_s = float("-inf")

    async def newest(self) -> Secret:
        """Returns the secret that signs. Raises Unavailable."""
        known = await self._known()
        return next(one for one in known if one.signs)

    async def find(self, secret_id: str) -> Secret | None:
        """Returns a secret that verifies; None for an unknown or retired one. Raises Unavailable."""
        found = _find(await self._known(), secret_id)
        if found is None and time.monotonic() - self._read_s >= _AGAIN_S:
            found = _find(await self._cache.reload(_ALL, self._read), secret_id)
        return found

    def forget(self) -> None:
        """Drops the cached secrets."""
        self._cache.drop()

    async def _known(self) -> Sequence[Secret]:
        return self._cache.get(_ALL) or await self._cache.load(_ALL, self._read)

    async def _read(self) -> Sequence[Secret]:
        self._read_s = time.monotonic()
        with own_work():
            async with self._database.session() as session:
                found = await _valid(session)
                if not any(one.signs for one in found):
                    await session.execute(_LOCK)  # the first token of an installation, perhaps on two processes
                    found = await _valid(session)
                if not any(one.signs for one in found):
                    await _add(session, _FIRST)
                    found = await _valid(session)
        return found


async def rotate_secret(session: AsyncSession, actor: Actor, *, at_once: bool) -> TokenSecret:
    """Adds a secret that signs from now on. `at_once`: every token signed before is refused.

    Otherwise older secrets verify for the longest life of a token. Publish the change after the commit.
    """
    await session.execute(_LOCK)
    ends_at = func.clock_timestamp() + text(f"interval '{0 if at_once else MAX_TTL_S} seconds'")
    still = or_(TokenSecret.retired_at.is_(None), TokenSecret.retired_at > ends_at)
    await session.execute(update(TokenSecret).where(still).values(retired_at=ends_at))
    return await _add(session, actor)


async def _valid(session: AsyncSession) -> list[Secret]:
    """Reads the secrets that verify, the newest first."""
    is_valid = or_(TokenSecret.retired_at.is_(None), TokenSecret.retired_at > func.clock_timestamp())
    query = select(TokenSecret).where(is_valid).order_by(TokenSecret.id.desc())
    rows = await session.scalars(query.execution_options(populate_existing=True))
    return [Secret(row.id, row.secret, row.retired_at is None) for row in rows]


async def _add(session: AsyncSession, actor: Actor) -> TokenSecret:
    made = TokenSecret(id=uuid7().hex, secret=secrets.token_bytes(_BYTES))
    session.add(made)
    record(session, actor, "token_secret.rotate", tenant_id=PLATFORM, target=f"token_secret:{made.id}")
    await session.flush()
    await session.refresh(made)
    return made


def _find(known: Sequence[Secret], secret_id: str) -> Secret | None:
    return next((one for one in known if one.id == secret_id), None)
