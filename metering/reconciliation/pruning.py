"""Deletes rows of processes that ended, old reconciliation reports and old tag values, one statement each.

Safe while processes beat and open requests: a row that changes meanwhile stays, and the next beat of a process that was
only suspended inserts its row again. Postgres down: raises the connection's error.
"""

from datetime import timedelta
from typing import Any

from metering.sql import load

SILENT_FOR = timedelta(days=1)
REPORTS_FOR = timedelta(days=90)
TAG_VALUES_FOR = timedelta(days=35)
"""The distinct values of a day bound that day alone; the last weeks are kept for the count of each key."""


async def prune_processes(connection: Any) -> None:
    """Deletes processes that ended or have not beaten for a day, and have no open requests."""
    await connection.execute(load("prune_processes"), SILENT_FOR)


async def prune_reconciliations(connection: Any) -> None:
    """Deletes reports older than 90 days."""
    await connection.execute("DELETE FROM reconciliations WHERE ran_at < clock_timestamp() - $1::interval", REPORTS_FOR)


async def prune_tag_values(connection: Any) -> None:
    """Deletes the distinct values of tags of old days. The marks of days with too many values stay."""
    await connection.execute(
        "DELETE FROM tag_values WHERE value <> '' AND day < (clock_timestamp() - $1::interval)::date", TAG_VALUES_FOR
    )
