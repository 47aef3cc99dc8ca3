"""The check behind `/readyz`: whether Postgres would accept the row of a request now. Two short statements.

It finds whatever blocks every tenant (a replica, no table for this month, a lock), and not a lock on one tenant's rows.
"""

from enum import StrEnum

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
    """The reason why no request can be opened."""

    AWAY = "away"  # no connection, or no answer in time
    READ_ONLY = "read_only"
    NO_SCHEMA = "no_schema"  # no table for this month, or no privilege to write it
    LOCKED = "locked"  # another transaction blocks every insert


async def unready_reason(pool: Connections, *, within_s: float) -> UnreadyReason | None:
    """The reason why no request can be opened, or None. Returns within the time."""
    found = UnreadyReason.AWAY
    try:
        async with within(within_s), pool.acquire() as connection:
            asked = await connection.fetchrow(_ASK, months_around(now_ms())[_THIS_MONTH][0])
            if asked["read_only"]:
                connection.terminate()  # a new connection may reach the primary, or have other settings
                return UnreadyReason.READ_ONLY
            if not (asked["has_month"] and asked["may_insert"]):
                return UnreadyReason.NO_SCHEMA
            found = UnreadyReason.LOCKED
            async with connection.transaction():  # takes the lock of an insert, and releases it
                await connection.execute(_LOCK)
    except (Unavailable, *STORE_ERRORS):
        return found
    return None
