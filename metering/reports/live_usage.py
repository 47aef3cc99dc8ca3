"""Live usage: running requests, and those admitted and settled in the last 60 seconds, over all processes.

For live views, never on the path of a request: one statement for all tenants that are watched. It counts settlements
without later revisions, which are in the reports. Postgres down: raises the connection's error.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from core.clock import now_ms
from core.ids import uuid7_floor
from metering.journal.records import ERROR_OUTCOMES
from metering.sql import load

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class LiveUsage:
    """Running requests; those admitted and settled in the last minute, their errors, tokens and cost."""

    running: int = 0
    admitted: int = 0
    settled: int = 0
    errors: int = 0
    tokens: int = 0
    cost_nano_usd: int = 0

    def __add__(self, other: "LiveUsage") -> "LiveUsage":
        return LiveUsage(*(getattr(self, name) + getattr(other, name) for name in _NAMES))


_NAMES = tuple(field.name for field in fields(LiveUsage))


async def read_live_usage(
    connection: Any, watched: Collection[UUID | None], *, longest_ms: int
) -> Mapping[UUID | None, LiveUsage]:
    """The live usage of each tenant in `watched`; None: of all together. A request runs for at most `longest_ms`."""
    tenants, now = [tenant_id for tenant_id in watched if tenant_id is not None], now_ms()
    oldest, a_minute_ago = uuid7_floor(now - longest_ms - _MINUTE_MS), uuid7_floor(now - _MINUTE_MS)
    rows = await connection.fetch(load("live_usage"), tenants, None in watched, oldest, a_minute_ago, ERROR_OUTCOMES)
    found = {row["tenant_id"]: LiveUsage(*(row[name] for name in _NAMES)) for row in rows}
    total = sum(found.values(), LiveUsage())
    return {tenant_id: total if tenant_id is None else found.get(tenant_id, LiveUsage()) for tenant_id in watched}
