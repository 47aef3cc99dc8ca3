"""Old months of `usage_requests` are detached, once their sums are stored and nothing in them can move any more.

A month goes when it is older than the retention, no row of it is open or still held, and no period that is counted now
began in it or before: limits are rebuilt from rows. Its sums by tenant, day and period are stored in the transaction
that detaches it, so reconciliation adds up before and after. The table stays, under its own name with `_detached`,
unless it is to be dropped: then the requests are gone, and their sums, rollups, meters and bills are not.

Detaching takes a lock that stops admission, so it waits for it half a second at most, and comes back an hour later.
"""

from datetime import UTC, datetime
from typing import Any

import asyncpg

from core.clock import now_ms, to_datetime, to_ms
from core.database import Connections
from core.logs import get_logger
from metering.drifts import Month
from metering.journal import sql
from metering.reconcile import STATEMENT_S

LEAST_MONTHS = 2
_LOCK_MS = 500

log = get_logger(__name__)


class _StillNeeded(Exception):
    """The month has to stay; the text says why."""


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

    Its rows are added up before anything is locked: without open rows nothing in it moves, and that is looked at again
    once nobody else can.
    """
    table = f"usage_requests_{month.name.replace('-', '_')}"
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('naka_partitions'))")
            if await connection.fetchval("SELECT to_regclass($1)", table) is None:
                return True  # another worker was quicker
            await _require_over(connection, table, month)
            summed = sql("checkpoint").replace("{table}", table)
            await connection.execute(summed, month.first, timeout=STATEMENT_S)
            await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MS}")
            await connection.execute(f"ALTER TABLE usage_requests DETACH PARTITION {table}")
            await _require_over(connection, table, month)
            await connection.execute(
                f"DROP TABLE {table}" if drop else f"ALTER TABLE {table} RENAME TO {table}_detached"
            )
    except (_StillNeeded, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
        log.info("month_stays", month=month.name, because=str(error))
        return False
    log.info("month_detached", month=month.name, dropped=drop)
    return True


async def _require_over(connection: Any, table: str, month: Month) -> None:
    """Raises _StillNeeded while something in the month can move, or is counted from its rows."""
    if await connection.fetchval(sql("month_moves").replace("{table}", table)):
        raise _StillNeeded("requests in it are open or held")
    if await connection.fetchval(sql("counted_periods"), _first_ms(month.later(1)), now_ms()):
        raise _StillNeeded("a period that began in it is still counted")


def _first_ms(month: Month) -> int:
    """The first millisecond of a month in UTC, where its partition begins."""
    return to_ms(datetime(month.first.year, month.first.month, 1, tzinfo=UTC))
