"""Mends what `metering.reconciliation.reconcile` found. Rows and entries are the truth, and are never touched.

A difference between a total and what it is made of is not changed by a settlement, which moves both in one
transaction. So it is found in one snapshot and *added*, in one statement, to the newest version of the total: what
settles meanwhile stays. Repairs of a tenant exclude each other, and look again under their lock: mending twice
changes nothing. Each has its line in the audit log, and moves the tenant's epoch, so that Redis is rebuilt from what
is right now. Postgres away: Unavailable, and nothing is changed.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from core.errors import Invalid
from core.ids import uuid7
from core.postgres.database import Connections
from core.resilience.outage import Collided
from core.tenancy.audit import Actor
from metering.models import COUNT_COLUMNS, REPORTED_COLUMNS
from metering.reconciliation.drifts import BY_DAY, DAILY, MONTHLY, MOST_KEPT, Drift, Month
from metering.reconciliation.reconcile import is_archived, meter_drifts, rollup_drifts
from metering.sql import load

_SHARD = -1  # of meters and days: no process settles into it, so a repair waits for nobody
_MEND = {DAILY: "reconcile_mend_rollup", MONTHLY: "reconcile_mend_monthly", BY_DAY: "reconcile_mend_by_day"}
_ORDER = (BY_DAY, MONTHLY, DAILY)
"""As a settlement touches them (see settle.sql), so that a repair and a settlement never wait for each other."""
_TRIES = 5


async def repair_rollup(connections: Connections, actor: Actor, tenant_id: UUID, month: Month) -> int:
    """Makes the rollups of a month's days what rows and entries add up to. Answers how many keys were moved.

    Raises Invalid for a month whose rows were detached: their sums say that something is off, not where.
    """

    async def mend(connection: Any) -> int:
        if await is_archived(connection, tenant_id, month):
            raise Invalid(f"rows of {month.name} were detached: attach them again to mend what reports read")
        drifts, _ = await rollup_drifts(connection, tenant_id, month)
        for rollup in _ORDER:
            some = [drift for drift in drifts if drift.subject.get("rollup", DAILY) == rollup]
            if some:
                await connection.execute(
                    load(_MEND[rollup]), tenant_id, *_keys(rollup, some), *_missing(some, REPORTED_COLUMNS)
                )
        if drifts:
            await _record(connection, actor, tenant_id, "usage.repair_rollup", drifts)
        return len(drifts)

    mended = 0
    while True:
        keys = await _exclusively(connections, tenant_id, mend)
        mended += keys
        if keys < MOST_KEPT:
            return mended


async def repair_meters(connections: Connections, actor: Actor, tenant_id: UUID, month: Month, reason: str) -> int:
    """Makes the meters of the periods that begin in a month what rows and entries add up to, and enters why.

    Answers how many periods were moved. Raises Invalid without a reason.
    """
    if not reason.strip():
        raise Invalid("a repair of a meter needs a reason: bills are made of meters")

    async def mend(connection: Any) -> int:
        drifts = await meter_drifts(connection, tenant_id, month)
        if drifts:
            await connection.execute(
                load("reconcile_mend_meters"),
                tenant_id,
                _SHARD,
                [uuid7() for _ in drifts],
                [drift.subject["period"] for drift in drifts],
                *_missing(drifts, COUNT_COLUMNS),
                actor.name,
                reason,
            )
            await _record(connection, actor, tenant_id, "usage.repair_meters", drifts, reason)
        return len(drifts)

    return await _exclusively(connections, tenant_id, mend)


async def drop_counters(connections: Connections, actor: Actor, tenant_id: UUID, drifts: Sequence[Drift]) -> None:
    """Has the tenant's counters in Redis rebuilt before the next grant. They are never edited."""

    async def mend(connection: Any) -> int:
        await _record(connection, actor, tenant_id, "usage.rebuild_counters", drifts)
        return len(drifts)

    await _exclusively(connections, tenant_id, mend)


async def _exclusively(connections: Connections, tenant_id: UUID, mend: Callable[[Any], Awaitable[int]]) -> int:
    """Runs a repair in a transaction that no other repair of the tenant overlaps; again, if it collided."""
    for left in reversed(range(_TRIES)):
        try:
            async with connections.acquire(patient=True) as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"naka {tenant_id}")
                return await mend(connection)
        except Collided:
            if not left:
                raise
    raise AssertionError("unreachable")


def _keys(rollup: str, drifts: Sequence[Drift]) -> list[Any]:
    subjects = [drift.subject for drift in drifts]
    days = [date.fromisoformat(subject["day"]) for subject in subjects]
    periods = [subject["period"] for subject in subjects]
    models = [subject["model"] for subject in subjects]
    if rollup == BY_DAY:
        return [_SHARD, days, periods, models]
    users = [UUID(subject["user"]) for subject in subjects]
    keys = [UUID(subject["key"]) for subject in subjects]
    return [users, days, periods, keys, models]


def _missing(drifts: Sequence[Drift], names: Sequence[str]) -> list[list[int]]:
    """What is to be added, a list for each count."""
    return [[-drift.difference.get(name, 0) for drift in drifts] for name in names]


async def _record(
    connection: Any, actor: Actor, tenant_id: UUID, action: str, drifts: Sequence[Drift], reason: str | None = None
) -> None:
    """The line of the audit log and, last of all, because opens wait for it, the new epoch."""
    after = {"reason": reason, "removed": [drift.subject | drift.difference for drift in drifts]}
    await connection.execute(
        "INSERT INTO audit_log (tenant_id, id, actor, actor_key_id, action, target, after, request_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        tenant_id,
        uuid7(),
        actor.name,
        actor.key_id,
        action,
        f"tenant:{tenant_id}",
        json.dumps(after),
        actor.request_id,
    )
    await connection.fetchval(load("bump_epoch"), tenant_id, 0)
