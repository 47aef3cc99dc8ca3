"""What nobody will ask for again goes: rows of processes that are over, and old reports of the check of the books.

One statement each, and safe beside processes that beat and open: a row that moves meanwhile stays, and a process that
only slept is there again with its next beat. Postgres away: raises what the connection raises.
"""

from datetime import timedelta
from typing import Any

from metering.sql import load

SILENT_FOR = timedelta(days=1)
REPORTS_FOR = timedelta(days=90)


async def prune_processes(connection: Any) -> None:
    """Rows of processes that said goodbye, or were silent for a day, and have no open requests."""
    await connection.execute(load("prune_processes"), SILENT_FOR)


async def prune_reconciliations(connection: Any) -> None:
    """Reports older than 90 days."""
    await connection.execute("DELETE FROM reconciliations WHERE ran_at < clock_timestamp() - $1::interval", REPORTS_FOR)
