"""How the books stand, over all processes: one cheap statement. Postgres away: raises what the connection raises."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from metering.sql import load


@dataclass(frozen=True, slots=True)
class Gauges:
    """Numbers that identify nobody. `drifts` and `age_s` are of the last check of the books, if there was one.

    `writable`: 0 on a replica, or where transactions are read-only.

    `worker_overdue_s`: how long the work of the hour has waited for a worker; None before the first worker.
    """

    open_requests: int
    overdue_requests: int
    living_processes: int
    drifts: int | None
    age_s: float | None
    worker_overdue_s: float | None
    writable: int


async def read_gauges(connection: Any, *, dead_after_s: float) -> Gauges:
    """Right now. A process lives when its beat is younger than `dead_after_s`, by Postgres's clock."""
    return Gauges(*await connection.fetchrow(load("gauges"), timedelta(seconds=dead_after_s)))
