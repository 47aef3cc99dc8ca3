"""Proves the books: what was counted, against what it is made of.

Rollups and meters are compared with the rows and entries in one snapshot per tenant and month, so that traffic makes
no false drift. The sums are made by Postgres; only drifts come back. Redis is compared in
`metering.reconciliation.redis_check`.
A period's name begins with the month that it starts in, as `2026-11`. A month whose rows were detached is compared with
its checkpoint (`metering.reconciliation.retention`). What is older than all of it is not: the first month is taken for
the rest of the one before it.

Nothing is changed here (see `metering.reconciliation.repair`), but for a row in `reconciliations`. Postgres away:
Unavailable, and nothing is stored. Redis away: that check says so, and the others go on.
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
from metering.journal.records import ERRORS
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
"""The longest that one statement may take: the sums of a tenant's month."""

_OVERDUE_AFTER = timedelta(seconds=60)  # recovery settles what is left open; this is well past it
_LONGEST_PERIOD_MONTHS = 14  # a trial lasts a year at most, and may begin on the last day of a month
_PARTITION = re.compile(r"usage_requests_(\d{4})_(\d{2})")

log = get_logger(__name__)

Progress = Callable[[int, int], None]
"""Told after each tenant: (done, of)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at: these tenants, or all; from this month on, or from the first that is stored."""

    tenants: tuple[UUID, ...] | None = None
    since: Month | None = None


EVERYTHING = Scope()


async def run_reconciliation(connections: Connections, quota: QuotaScripts | None) -> Reconciliation:
    """What a schedule runs every night: this month, the one before, and what last week's entries touched.

    So its cost follows the traffic, not the history; `naka reconcile` looks at all of it. Raises Unavailable.
    """
    now = Month(f"{to_datetime(now_ms()):%Y-%m}")
    return await reconcile(connections, quota, Scope(since=now.later(-1)))


async def reconcile(
    connections: Connections, quota: QuotaScripts | None, scope: Scope = EVERYTHING, *, progress: Progress | None = None
) -> Reconciliation:
    """Compares, and stores what was found. Raises Unavailable."""
    async with connections.acquire(patient=True) as connection:
        stored = await stored_months(connection)
        wanted = list(scope.tenants or await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM tenants") or ())
    since = max(stored[0].later(1), scope.since or stored[0])
    found = Reconciliation(uuid7(), to_datetime(now_ms()), since)
    redis = _redis_check(connections, quota, found)
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
    """The months (in UTC) of which there are rows, or the sums of them, oldest first."""
    names = await connection.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'usage_requests'::regclass"
        " UNION SELECT 'usage_requests_' || to_char(month, 'YYYY_MM') FROM usage_checkpoints"
    )
    found = [_PARTITION.fullmatch(row["relname"]) for row in names]
    return sorted(Month("-".join(match.groups())) for match in found if match) or [Month("1970-01")]


@asynccontextmanager
async def snapshot(connections: Connections) -> AsyncIterator[Any]:
    """A connection that sees one moment and changes nothing."""
    async with (
        connections.acquire(patient=True) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def _books(connections: Connections, tenant_id: UUID, stored: list[Month], found: Reconciliation) -> None:
    """The checks of one tenant that Postgres answers alone."""
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
    """Where the rollups differ in the days of a month: the first `MOST_KEPT` keys, and how many there are."""
    where = *_days(tenant_id, month), MOST_KEPT
    if await is_archived(connection, tenant_id, month):
        rows = await connection.fetch(load("reconcile_archived"), *where, timeout=STATEMENT_S)
    else:
        rows = await connection.fetch(load("reconcile_rollup"), *where, sorted(ERRORS), timeout=STATEMENT_S)
    return [_rollup(tenant_id, row) for row in rows], rows[0]["found"] if rows else 0


async def is_archived(connection: Any, tenant_id: UUID, month: Month) -> bool:
    """Whether rows of a month's days were detached: then only sums by day and period are left of them."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM usage_checkpoints WHERE tenant_id = $1 AND day >= $2 AND day < $3)",
            tenant_id,
            month.first,
            month.later(1).first,
        )
    )


async def meter_drifts(connection: Any, tenant_id: UUID, month: Month) -> list[Drift]:
    """Where the meters differ, in the periods that begin in a month."""
    ids = month.ids(_LONGEST_PERIOD_MONTHS)
    rows = await connection.fetch(load("reconcile_meters"), tenant_id, month.name, *ids, timeout=STATEMENT_S)
    return [
        Drift(METERS, tenant_id, {"period": row["period_id"]}, counts(row["expected"]), counts(row["actual"]))
        for row in rows
    ]


def _days(tenant_id: UUID, month: Month) -> tuple[Any, ...]:
    return tenant_id, month.first, month.later(1).first, *month.ids()


def _rollup(tenant_id: UUID, row: Any) -> Drift:
    """Its subject names the key, and the rollup unless it is the daily one."""
    names = {
        "rollup": "rollup",
        "user": "user_id",
        "day": "day",
        "period": "period_id",
        "key": "key_id",
        "model": "model",
    }
    subject = {name: str(row[column]) for name, column in names.items() if row.get(column) is not None}
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


def _redis_check(connections: Connections, quota: QuotaScripts | None, found: Reconciliation) -> RedisCheck | None:
    if quota is None:
        found.checks[REDIS].not_done = "no Redis is configured"
        return None
    return RedisCheck(connections, quota)


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
