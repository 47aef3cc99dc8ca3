"""Detaches old months of `usage_requests`, once their sums are stored and none of their rows can change.

A month is detached when it is older than the retention, none of its rows is open or held, and no current period began
in it or before: limits are rebuilt from rows. Its sums by tenant, day and period are stored with it, so reconciliation
still adds up. The table stays, renamed to `..._detached`, unless it is to be dropped. Detaching needs a lock that stops
admission: it waits for it at most half a second, and is tried again an hour later.
"""

from typing import Any

import asyncpg

from core.clock import now_ms, to_datetime
from core.logs import get_logger
from core.postgres.database import Connections
from metering.reconciliation.drifts import Month
from metering.reconciliation.reconcile import STATEMENT_S

LEAST_MONTHS = 2
_DETACH = "SELECT naka_detach_month($1, $2, $3)"

log = get_logger(__name__)


async def detach_old_months(connections: Connections, *, keep_months: int, drop: bool = False) -> list[str]:
    """Detaches months older than `keep_months` whole months (0: none), oldest first; returns their names.

    Idempotent, and safe in several workers at once. A month that cannot be detached yet also keeps those after it.
    """
    if not keep_months:
        return []
    limit = Month(f"{to_datetime(now_ms()):%Y-%m}").later(-max(keep_months, LEAST_MONTHS))
    detached: list[str] = []
    async with connections.acquire(patient=True) as connection:
        for month in await _attached(connection):
            if month >= limit or not await _detach(connection, month, drop=drop):
                break
            detached.append(month.name)
    return detached


async def _attached(connection: Any) -> list[Month]:
    names = await connection.fetch(
        "SELECT right(relname, 7) AS month FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'usage_requests'::regclass AND relname ~ '^usage_requests_[0-9]{4}_[0-9]{2}$'"
    )
    return sorted(Month(row["month"].replace("_", "-")) for row in names)


async def _detach(connection: Any, month: Month, *, drop: bool) -> bool:
    """Detaches the month; whether it is detached now.

    A function of the schema's owner does it, since the application may not change tables: it checks that no row of the
    month can change, stores the sums, detaches the month, and checks again under the lock.
    """
    try:
        await connection.execute(_DETACH, month.first, now_ms(), drop, timeout=STATEMENT_S)
    except (asyncpg.ObjectInUseError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        log.info("month_stays", month=month.name, because=str(error))
        return False
    log.info("month_detached", month=month.name, dropped=drop)
    return True
