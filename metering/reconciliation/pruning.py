"""Deletes rows of processes that ended and old reconciliation reports, one statement each.

Safe while processes beat and open requests: a row that changes meanwhile stays, and the next beat of a process that was
only suspended inserts its row again. Postgres down: raises the connection's error.
"""

from datetime import timedelta
from typing import Any

from metering.sql import load

SILENT_FOR = timedelta(days=1)
REPORTS_FOR = timedelta(days=90)


async def prune_processes(connection: Any) -> None:
    """Deletes processes that ended or have not beaten for a day, and have no open requests."""
    await connection.execute(load("prune_processes"), SILENT_FOR)


async def prune_reconciliations(connection: Any) -> None:
    """Deletes reports older than 90 days."""
    await connection.execute("DELETE FROM reconciliations WHERE ran_at < clock_timestamp() - $1::interval", REPORTS_FOR)
