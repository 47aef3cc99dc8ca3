"""Repairs drifts that `metering.reconciliation.reconcile` found. Rows and entries are authoritative, and never change.

A settlement does not change the difference between a total and its rows, since it writes both in one transaction. So a
difference that was found in one snapshot is *added* to the current total, and what was settled meanwhile stays. Repairs
of a tenant exclude each other and compare again under their lock, so they are idempotent. Each writes to the audit log
and moves the tenant's epoch, so that Redis is rebuilt. Postgres down: Unavailable, and nothing changes.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from core.errors import Invalid
from core.ids import uuid7
from core.postgres.database import Connections
from core.tenancy.audit import Actor
from metering.adjustments.ledger import SHARD, retry_collisions
from metering.counts import COUNT_COLUMNS, REPORTED_COLUMNS
from metering.journal.epoch import move_epoch
from metering.reconciliation.drifts import BY_DAY, BY_TAG, DAILY, MONTHLY, MOST_KEPT, Drift, Month
from metering.reconciliation.reconcile import is_archived, meter_drifts, rollup_drifts
from metering.sql import load

_ORDER = (BY_DAY, MONTHLY, DAILY, BY_TAG)
"""The lock order of `naka_add_usage`, so that a repair and a settlement do not deadlock."""


async def repair_rollup(connections: Connections, actor: Actor, tenant_id: UUID, month: Month) -> int:
    """Corrects the rollups of a month's days from rows and entries; returns the number of keys changed.

    Raises Invalid for a month whose rows were detached: the stored sums do not tell which keys are wrong.
    """

    async def repair(connection: Any) -> int:
        if await is_archived(connection, tenant_id, month):
            raise Invalid(f"rows of {month.name} were detached: attach them again to repair the rollups")
        drifts, _ = await rollup_drifts(connection, tenant_id, month)
        for rollup in _ORDER:
            some = [drift for drift in drifts if drift.subject.get("rollup", DAILY) == rollup]
            if some:
                where = (tenant_id, SHARD, rollup)
                added = *_keys(some), *_missing(some, REPORTED_COLUMNS), *_tags(some)
                await connection.execute(load("repair_rollup"), *where, *added)
        if drifts:
            await _record(connection, actor, tenant_id, "usage.repair_rollup", drifts)
        return len(drifts)

    repaired = 0
    while True:
        keys = await _exclusively(connections, tenant_id, repair)
        repaired += keys
        if keys < MOST_KEPT:
            return repaired


async def repair_meters(connections: Connections, actor: Actor, tenant_id: UUID, month: Month, reason: str) -> int:
    """Corrects the meters of periods that begin in a month from rows and entries, and enters each as a repair.

    Returns the number of periods changed. Raises Invalid without a reason.
    """
    if not reason.strip():
        raise Invalid("give a reason: bills are computed from meters")

    async def repair(connection: Any) -> int:
        drifts = await meter_drifts(connection, tenant_id, month)
        if drifts:
            await connection.execute(
                load("repair_meters"),
                tenant_id,
                SHARD,
                [uuid7() for _ in drifts],
                [drift.subject["period"] for drift in drifts],
                *_missing(drifts, COUNT_COLUMNS),
                actor.name,
                reason,
            )
            await _record(connection, actor, tenant_id, "usage.repair_meters", drifts, reason)
        return len(drifts)

    return await _exclusively(connections, tenant_id, repair)


async def drop_counters(connections: Connections, actor: Actor, tenant_id: UUID, drifts: Sequence[Drift]) -> None:
    """Makes Redis rebuild the tenant's counters before the next grant. They are never edited."""

    async def repair(connection: Any) -> int:
        await _record(connection, actor, tenant_id, "usage.rebuild_counters", drifts)
        return len(drifts)

    await _exclusively(connections, tenant_id, repair)


async def _exclusively(connections: Connections, tenant_id: UUID, repair: Callable[[Any], Awaitable[int]]) -> int:
    """Runs a repair in a transaction that excludes other repairs of the tenant; again if it collided."""
    async with connections.acquire(patient=True) as connection:

        async def work() -> int:
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"naka {tenant_id}")
            return await repair(connection)

        return await retry_collisions(connection.transaction, work)


def _keys(drifts: Sequence[Drift]) -> list[list[Any]]:
    """The users, days, periods, API keys and models. What a rollup does not have is null."""
    subjects = [drift.subject for drift in drifts]
    return [
        [subject.get("user") for subject in subjects],
        [date.fromisoformat(subject["day"]) for subject in subjects],
        [subject["period"] for subject in subjects],
        [subject.get("key") for subject in subjects],
        [subject.get("model") for subject in subjects],
    ]


def _tags(drifts: Sequence[Drift]) -> list[list[str | None]]:
    """The tag keys and values; null in all rollups but `usage_by_tag`."""
    return [[drift.subject.get(name) for drift in drifts] for name in ("tag_key", "tag_value")]


def _missing(drifts: Sequence[Drift], names: Sequence[str]) -> list[list[int]]:
    """The differences to add, a list per count."""
    return [[-drift.difference.get(name, 0) for drift in drifts] for name in names]


async def _record(
    connection: Any, actor: Actor, tenant_id: UUID, action: str, drifts: Sequence[Drift], reason: str | None = None
) -> None:
    """Writes the audit log, then moves the epoch: last, since opens wait for its row."""
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
    await move_epoch(connection.fetch, tenant_id)
