"""The gauges of Prometheus over all processes: one cheap statement. Postgres down: raises the connection's error."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from metering.sql import load


@dataclass(frozen=True, slots=True)
class Gauges:
    """Numbers that identify nobody. `drifts` and `age_s` are of the last reconciliation, if there was one.

    `writable`: 0 on a replica, or if transactions are read-only. `worker_overdue_s`: for how long the hourly jobs have
    been due; None before the first worker ran.
    """

    open_requests: int
    overdue_requests: int
    living_processes: int
    drifts: int | None
    age_s: float | None
    worker_overdue_s: float | None
    writable: int


async def read_gauges(connection: Any, *, dead_after_s: float) -> Gauges:
    """The current gauges. A process lives while its beat is younger than `dead_after_s`, by Postgres's clock."""
    return Gauges(*await connection.fetchrow(load("gauges"), timedelta(seconds=dead_after_s)))
