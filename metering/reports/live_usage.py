"""The present minute: what runs now, and what was admitted and settled in the last 60 seconds, over all processes.

For whoever looks at a live view, never for a request: one statement for all tenants that are looked at. It counts the
settlements as they were made; what is learnt later is in the reports. Postgres away: raises what the connection raises.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from core.clock import now_ms
from core.ids import uuid7_floor
from metering.journal.records import ERRORS
from metering.sql import load

_MINUTE_MS = 60_000
_ERRORS = sorted(outcome.value for outcome in ERRORS)


@dataclass(frozen=True, slots=True)
class LiveUsage:
    """Requests that run, and of the last minute: admitted, settled, errors among them, and what was settled."""

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
    """Of each tenant in `watched`; None is all of them together. A request runs for `longest_ms` at most."""
    tenants, now = [tenant_id for tenant_id in watched if tenant_id is not None], now_ms()
    oldest, a_minute_ago = uuid7_floor(now - longest_ms - _MINUTE_MS), uuid7_floor(now - _MINUTE_MS)
    rows = await connection.fetch(load("present"), tenants, None in watched, oldest, a_minute_ago, _ERRORS)
    found = {row["tenant_id"]: LiveUsage(*(row[name] for name in _NAMES)) for row in rows}
    every = sum(found.values(), LiveUsage())
    return {tenant_id: every if tenant_id is None else found.get(tenant_id, LiveUsage()) for tenant_id in watched}
