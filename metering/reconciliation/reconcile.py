"""Compares rollups and meters with request rows and entries, and Redis with Postgres.

One snapshot per tenant and month, so traffic causes no false drifts. A period's name begins with the month in which it
starts, as `2026-11`. A month whose rows were detached is compared with its checkpoint. The first stored month is not
compared: it may be incomplete. Writes nothing but a row in `reconciliations`. Postgres down: Unavailable, and nothing
is stored. Redis down: that check says so, and the others go on.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from core.clock import now_ms, to_datetime
from core.errors import Unavailable
from core.ids import uuid7
from core.logs import get_logger
from core.postgres.database import Connections
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.records import ERROR_OUTCOMES
from metering.reconciliation.drifts import (
    DAILY,
    METERS,
    MOST_KEPT,
    OPEN,
    REDIS,
    ROLLUP,
    Drift,
    Month,
    Reconciliation,
    Unpriced,
    counts,
)
from metering.reconciliation.redis_check import RedisCheck
from metering.sql import load

STATEMENT_S = 3600
"""The time-out of a statement that sums a tenant's month."""

_OVERDUE_AFTER = timedelta(seconds=60)  # recovery has settled what was left open long before
_LONGEST_PERIOD_MONTHS = 14  # a trial lasts a year at most, and may begin on the last day of a month
_PARTITION = re.compile(r"usage_requests_(\d{4})_(\d{2})")

log = get_logger(__name__)

Progress = Callable[[int, int], None]
"""Called after each tenant: (done, of)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenants to compare (None: all), and the first month (None: the first that is stored)."""

    tenants: tuple[UUID, ...] | None = None
    since: Month | None = None


EVERYTHING = Scope()


async def run_reconciliation(connections: Connections, quota: QuotaScripts | None) -> Reconciliation:
    """The nightly run: this month, the previous one, and the months of last week's entries. Raises Unavailable.

    Its cost follows the traffic, not the history; `naka reconcile` compares all months.
    """
    now = Month(f"{to_datetime(now_ms()):%Y-%m}")
    return await reconcile(connections, quota, Scope(since=now.later(-1)))


async def reconcile(
    connections: Connections, quota: QuotaScripts | None, scope: Scope = EVERYTHING, *, progress: Progress | None = None
) -> Reconciliation:
    """Compares, and stores the findings. Raises Unavailable."""
    async with connections.acquire(patient=True) as connection:
        stored = await stored_months(connection)
        wanted = list(scope.tenants or await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM tenants") or ())
    since = max(stored[0].later(1), scope.since or stored[0])
    found = Reconciliation(uuid7(), to_datetime(now_ms()), since)
    redis = None if quota is None else RedisCheck(connections, quota)
    if redis is None:
        found.checks[REDIS].not_done = "no Redis is configured"
    for tenant_id in wanted:
        await _books(connections, tenant_id, stored, found)
        if redis is not None and not found.checks[REDIS].failed:
            await _counters(redis, tenant_id, found)
        found.tenants += 1
        if progress is not None:
            progress(found.tenants, len(wanted))
    await _store(connections, found)
    return found


async def stored_months(connection: Any) -> list[Month]:
    """The months (in UTC) that have rows or stored sums, oldest first."""
    names = await connection.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'usage_requests'::regclass"
        " UNION SELECT 'usage_requests_' || to_char(month, 'YYYY_MM') FROM usage_checkpoints"
    )
    found = [_PARTITION.fullmatch(row["relname"]) for row in names]
    return sorted(Month("-".join(match.groups())) for match in found if match) or [Month("1970-01")]


@asynccontextmanager
async def snapshot(connections: Connections) -> AsyncIterator[Any]:
    """A connection in a read-only transaction with one snapshot."""
    async with (
        connections.acquire(patient=True) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def _books(connections: Connections, tenant_id: UUID, stored: list[Month], found: Reconciliation) -> None:
    """The checks of one tenant that need only Postgres."""
    async with snapshot(connections) as connection:
        months = await _months(connection, tenant_id, stored, found.since)
        rows = await connection.fetch(load("reconcile_overdue"), tenant_id, _OVERDUE_AFTER, MOST_KEPT)
        found.checks[OPEN].add([_overdue(tenant_id, row) for row in rows], rows[0]["found"] if rows else 0)
    for month in months:
        async with snapshot(connections) as connection:
            drifts, total = await rollup_drifts(connection, tenant_id, month)
            found.checks[ROLLUP].add(drifts, total)
            found.checks[METERS].add(await meter_drifts(connection, tenant_id, month))
            rows = await connection.fetch(load("reconcile_unpriced"), *_days(tenant_id, month), timeout=STATEMENT_S)
            found.unpriced += [Unpriced(tenant_id, row["model"], row["requests"], row["cost_nano_usd"]) for row in rows]


async def _months(connection: Any, tenant_id: UUID, stored: list[Month], since: Month) -> list[Month]:
    first, after = zip(*(month.ids() for month in stored), strict=True)
    rows = await connection.fetch(
        load("reconcile_months"),
        tenant_id,
        since.name,
        stored[0].later(1).name,
        [month.name for month in stored],
        list(first),
        list(after),
        timeout=STATEMENT_S,
    )
    return [Month(row["month"]) for row in rows]


async def rollup_drifts(connection: Any, tenant_id: UUID, month: Month) -> tuple[list[Drift], int]:
    """The drifts of the rollups in the days of a month: the first `MOST_KEPT` keys, and their number."""
    where = *_days(tenant_id, month), MOST_KEPT
    if await is_archived(connection, tenant_id, month):
        rows = await connection.fetch(load("reconcile_archived"), *where, timeout=STATEMENT_S)
    else:
        rows = await connection.fetch(load("reconcile_rollup"), *where, ERROR_OUTCOMES, timeout=STATEMENT_S)
    return [_rollup(tenant_id, row) for row in rows], rows[0]["found"] if rows else 0


async def is_archived(connection: Any, tenant_id: UUID, month: Month) -> bool:
    """Whether rows of a month's days were detached, so that only their sums by day and period are left."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM usage_checkpoints WHERE tenant_id = $1 AND day >= $2 AND day < $3)",
            tenant_id,
            month.first,
            month.later(1).first,
        )
    )


async def meter_drifts(connection: Any, tenant_id: UUID, month: Month) -> list[Drift]:
    """The drifts of the meters of periods that begin in a month."""
    ids = month.ids(_LONGEST_PERIOD_MONTHS)
    rows = await connection.fetch(load("reconcile_meters"), tenant_id, month.name, *ids, timeout=STATEMENT_S)
    return [
        Drift(METERS, tenant_id, {"period": row["period_id"]}, counts(row["expected"]), counts(row["actual"]))
        for row in rows
    ]


def _days(tenant_id: UUID, month: Month) -> tuple[Any, ...]:
    return tenant_id, month.first, month.later(1).first, *month.ids()


def _rollup(tenant_id: UUID, row: Any) -> Drift:
    """The drift of a row; its subject names the key, and the rollup unless it is the daily one."""
    columns = ("rollup", "user_id", "day", "period_id", "key_id", "model", "tag_key", "tag_value")
    subject = {name.removesuffix("_id"): str(row[name]) for name in columns if row.get(name) is not None}
    if subject["rollup"] == DAILY:
        del subject["rollup"]
    return Drift(ROLLUP, tenant_id, subject, counts(row["expected"]), counts(row["actual"]))


def _overdue(tenant_id: UUID, row: Any) -> Drift:
    held = {
        "held_requests": 1,
        "held_prompt": row["held_prompt_tokens"],
        "held_output": row["held_output_tokens"],
        "held_nano_usd": row["held_nano_usd"],
    }
    return Drift(OPEN, tenant_id, {"request": str(row["id"]), "user": str(row["user_id"])}, {}, held)


async def _counters(redis: RedisCheck, tenant_id: UUID, found: Reconciliation) -> None:
    try:
        found.checks[REDIS].add(await redis.drifts(tenant_id))
    except Unavailable as error:
        log.warning("redis_not_reconciled", error=str(error))
        found.checks[REDIS].not_done = f"not compared: {error}"
        found.checks[REDIS].failed = True


async def _store(connections: Connections, found: Reconciliation) -> None:
    async with connections.acquire(patient=True) as connection:
        await connection.execute(
            "INSERT INTO reconciliations (id, ran_at, drifts, report) VALUES ($1, $2, $3, $4)",
            found.id,
            found.ran_at,
            min(found.drifts, 2**31 - 1),
            json.dumps(found.as_json()),
        )
    if found.drifts:
        log.error("books_drifted", drifts=found.drifts, reconciliation=str(found.id))
