"""The activity log of authentication: last use of keys and failed attempts, written off the hot path.

A use is noted once per key and ten minutes; failures are summed per address and minute, beyond a bound as "others", so
an attacker with many addresses fills neither memory nor audit log. A failed write or a killed process loses entries.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.clock import now_ms, to_datetime
from core.ids import uuid7
from core.postgres.database import Connections
from core.tenancy.audit import PLATFORM
from core.tenancy.models import ApiKey, KeyUse
from core.tenancy.principal import Principal

USE_EVERY_MS = 600_000
FAILURES_EVERY_MS = 60_000
MAX_KEYS = 50_000
MAX_ADDRESSES = 20
REFUSED = "key.refused"
_OTHERS = "others"
_WRITE_S = 5
_USED = """
INSERT INTO key_uses AS known (tenant_id, key_id, last_used_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) ORDER BY 1, 2
ON CONFLICT (tenant_id, key_id) DO UPDATE SET last_used_at = excluded.last_used_at
WHERE known.last_used_at < excluded.last_used_at
"""
_FAILED = """
INSERT INTO audit_log (tenant_id, id, actor, action, target, after)
SELECT $1, id, 'unknown', $2, target, after::jsonb
FROM unnest($3::uuid[], $4::text[], $5::text[]) AS failed (id, target, after)
"""


class ActivityLog:
    """One per process."""

    def __init__(self) -> None:
        self._slot_ms = 0
        self._seen: set[UUID] = set()
        self._used: dict[UUID, tuple[UUID, int]] = {}
        self._failed: dict[str, Counter[str]] = {}
        self._failures_due_ms = 0

    def used(self, principal: Principal) -> None:
        """Notes a use of the key."""
        at_ms = now_ms()
        slot_ms = at_ms - at_ms % USE_EVERY_MS
        if slot_ms != self._slot_ms:
            self._slot_ms = slot_ms
            self._seen.clear()
        if principal.key_id not in self._seen and len(self._seen) < MAX_KEYS:
            self._seen.add(principal.key_id)
            self._used[principal.key_id] = (principal.tenant_id, at_ms)

    def failed(self, address: str, prefix: str) -> None:
        """Counts a refused key or session. `prefix`: the visible part of the key, empty for a session."""
        where = address if address in self._failed or len(self._failed) < MAX_ADDRESSES else _OTHERS
        seen = self._failed.setdefault(where, Counter())
        seen[prefix if prefix in seen or len(seen) < MAX_ADDRESSES else _OTHERS] += 1

    async def flush(self, pool: Connections) -> None:
        """Writes the due entries, if any. Raises as `write`, and Unavailable."""
        if self._used or (self._failed and now_ms() >= self._failures_due_ms):
            async with pool.acquire() as connection:
                await self.write(connection)

    async def write(self, connection: Any) -> None:
        """Writes the due entries. Raises what asyncpg raises; the entries are lost then."""
        if self._used:
            used, self._used = self._used, {}
            columns = [(tenant_id, key_id, to_datetime(at_ms)) for key_id, (tenant_id, at_ms) in used.items()]
            await connection.execute(_USED, *map(list, zip(*columns, strict=True)), timeout=_WRITE_S)
        if self._failed and now_ms() >= self._failures_due_ms:
            failed, self._failed = self._failed, {}
            self._failures_due_ms = now_ms() + FAILURES_EVERY_MS
            rows = [(uuid7(), f"address:{address}", _as_json(seen)) for address, seen in failed.items()]
            columns_of = map(list, zip(*rows, strict=True))
            await connection.execute(_FAILED, PLATFORM, REFUSED, *columns_of, timeout=_WRITE_S)


def _as_json(seen: Counter[str]) -> str:
    keys = {prefix or "session or no key": count for prefix, count in seen.items()}
    return msgspec.json.encode({"attempts": seen.total(), "keys": keys}).decode()


async def last_uses(session: AsyncSession, keys: Sequence[ApiKey]) -> dict[UUID, datetime]:
    """Returns when each key was last used, to ten minutes; unused keys are missing."""
    query = select(KeyUse.key_id, KeyUse.last_used_at).where(
        KeyUse.tenant_id.in_({key.tenant_id for key in keys}), KeyUse.key_id.in_([key.id for key in keys])
    )
    return {row.key_id: row.last_used_at for row in (await session.execute(query)).all()}
