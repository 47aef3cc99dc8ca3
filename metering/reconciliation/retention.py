"""Old months of `usage_requests` are detached, once their sums are stored and nothing in them can move any more.

A month goes when it is older than the retention, no row of it is open or still held, and no period that is counted now
began in it or before: limits are rebuilt from rows. Its sums by tenant, day and period are stored in the transaction
that detaches it, so reconciliation adds up before and after. The table stays, under its own name with `_detached`,
unless it is to be dropped: then the requests are gone, and their sums, rollups, meters and bills are not.

Detaching takes a lock that stops admission, so it waits for it half a second at most, and comes back an hour later.
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
    """Detaches what is older than `keep_months` whole months (0: nothing is), oldest first; the names of the months.

    Safe to run in several workers at once, and to repeat. A month that must stay yet stops those after it, too.
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
    """Whether the month is detached now.

    One function of the schema's owner does all of it, because the application may change no table: it looks whether
    anything in the month can move, stores its sums, detaches it, and looks again once nobody else can.
    """
    try:
        await connection.execute(_DETACH, month.first, now_ms(), drop, timeout=STATEMENT_S)
    except (asyncpg.ObjectInUseError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        log.info("month_stays", month=month.name, because=str(error))
        return False
    log.info("month_detached", month=month.name, dropped=drop)
    return True
