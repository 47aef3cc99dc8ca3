"""Whether Postgres would take the row of a request now: what `/readyz` asks, at the price of two short statements.

It has to take writes (not a replica after a failover), have this month's table, let this role insert, and give the lock
that an insert takes. Whatever keeps a request from being opened for every tenant is seen here; the lock of one
tenant's rows is not.
"""

from enum import StrEnum
from typing import Any

from core.clock import now_ms
from core.errors import Unavailable
from core.postgres.database import Connections
from core.resilience.deadline import within
from core.resilience.outage import STORE_ERRORS
from metering.journal.partitions import months_around

_THIS_MONTH = 1  # months_around begins with the month before
_ASK = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
       to_regclass($1) IS NOT NULL AS has_month,
       to_regclass('usage_requests') IS NOT NULL AND has_table_privilege('usage_requests', 'INSERT') AS may_insert
"""
_LOCK = "LOCK TABLE ONLY usage_requests, ONLY tenant_epochs IN ROW EXCLUSIVE MODE"


class UnreadyReason(StrEnum):
    """Why no request can be opened."""

    AWAY = "away"  # it cannot be connected to, or does not answer in time
    READ_ONLY = "read_only"
    NO_SCHEMA = "no_schema"  # this month's table is missing, or this role may not write it
    LOCKED = "locked"  # another transaction keeps every insert waiting


async def unready_reason(pool: Connections, *, within_s: float) -> UnreadyReason | None:
    """What keeps requests from being opened; None when nothing does. Answers within the time."""
    found = UnreadyReason.AWAY
    try:
        async with within(within_s), pool.acquire() as connection:
            asked = await connection.fetchrow(_ASK, months_around(now_ms())[_THIS_MONTH][0])
            if asked["read_only"]:
                connection.terminate()  # a new one may lead to the primary, or have other settings
                return UnreadyReason.READ_ONLY
            if not (asked["has_month"] and asked["may_insert"]):
                return UnreadyReason.NO_SCHEMA
            found = UnreadyReason.LOCKED
            await _lock(connection)
    except (Unavailable, *STORE_ERRORS):
        return found
    return None


async def _lock(connection: Any) -> None:
    """Takes the lock of an insert, and lets it go."""
    async with connection.transaction():
        await connection.execute(_LOCK)
