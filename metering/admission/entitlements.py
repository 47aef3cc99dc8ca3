"""The entitlement of a user as admission reads it: cached in the process, invalidated by `core.redis.changes`.

Billing projects the `entitlements` row (what the plan gives, and when); an admin sets limits of a user or a tenant.
Both are read together, for all users that wait (`core.postgres.batched_reads`), and resolved. A projection moves the
tenant's epoch in its own transaction, and a read carries the epoch of its snapshot. So no request opens under an older
projection once a newer one has committed, however old a process's cache is. Postgres unreachable: a cached entitlement
serves until it expires, then `Unavailable`.
"""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.resilience.cache import TtlCache
from core.tenancy.audit import Actor, record
from metering.journal.epoch import fetch_in, move_epoch
from metering.models import EntitlementRow, LimitRow
from metering.quota.limits import Limit, LimitSet, PlanLimits
from metering.quota.schedule import NO_PLAN, Schedule, Timeline, timeline_of
from metering.sql import load

_EMPTY = Schedule()
_LIMITS = msgspec.json.Decoder(tuple[Limit, ...])
_User = tuple[UUID, UUID]
LimitSource = Literal["set", "users", "plan", "default"]
"""The source of limits: set for the user or the tenant, for all its users, given by its plan, or the settings."""
ALL_USERS = UUID(int=0)
"""The `subject_id` of the limits of a tenant's users that have no set of their own."""


class Entitlements:
    """Reads and resolves. One per process."""

    def __init__(self, database: Database, *, ttl_s: float, defaults: PlanLimits = NO_PLAN) -> None:
        """`defaults` apply to a tenant without a plan."""
        self._defaults = defaults
        self._reads: BatchedReads[_User, Timeline] = BatchedReads("entitlements", database, self._fetch)
        self._cache: TtlCache[_User, Timeline] = TtlCache(ttl_s=ttl_s)

    async def of(self, tenant_id: UUID, user_id: UUID, *, least_epoch: int = 0) -> Timeline:
        """The user's entitlement over time. Raises Unavailable.

        A cached one that was read before `least_epoch` is read again, once. The result may still be older, if another
        read was under way, or if Postgres has lost epochs.
        """
        key = (tenant_id, user_id)
        found = self._cache.get(key)
        if found is not None:
            if found.read_epoch >= least_epoch:
                return found
            self._cache.discard(key)
        return await self._cache.load(key, lambda: self._read(key))

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops the cache of a tenant, or all of it."""
        self._cache.drop(None if tenant_id is None else lambda key, _: key[0] == tenant_id)

    async def _read(self, user: _User) -> Timeline:
        return await self._reads.get(user) or self._timeline(None, {}, user)

    async def _fetch(self, connection: Connection, users: list[_User]) -> dict[_User, Timeline]:
        """Reads all of them in one statement: epoch, projection and limits are of one snapshot."""
        rows = await connection.fetch(load("entitlements"), *map(list, zip(*users, strict=True)))
        tenants = {row["tenant_id"]: _Projected.of(row) for row in rows if row["subject_id"] is None}
        sets = {
            (row["tenant_id"], row["subject_id"]): LimitSet(_LIMITS.decode(row["limits"]), row["concurrency"])
            for row in rows
            if row["subject_id"] is not None
        }
        return {user: self._timeline(tenants.get(user[0]), sets, user) for user in users}

    def _timeline(self, tenant: "_Projected | None", sets: dict[_User, LimitSet], user: _User) -> Timeline:
        projected = tenant or _Projected()
        return timeline_of(
            projected.schedule,
            plan=self._defaults if projected.limits is None else projected.limits,
            plan_version=projected.plan_version,
            defaults=self._defaults,
            user=sets.get(user) or sets.get((user[0], ALL_USERS)),
            tenant=sets.get((user[0], user[0])),
            read_epoch=projected.epoch,
        )


@dataclass(frozen=True, slots=True)
class _Projected:
    """A tenant's epoch and billing's projection, decoded once for all of its users."""

    epoch: int = 0
    plan_version: str | None = None
    limits: PlanLimits | None = None
    schedule: Schedule = _EMPTY

    @classmethod
    def of(cls, row: Any) -> "_Projected":
        if row["limits"] is None:
            return cls(row["epoch"] or 0)
        limits = msgspec.json.decode(row["limits"], type=PlanLimits)
        return cls(row["epoch"] or 0, row["plan_version"], limits, msgspec.json.decode(row["schedule"], type=Schedule))


async def read_limits(
    session: AsyncSession, tenant_id: UUID, subject_id: UUID, *, defaults: PlanLimits = NO_PLAN
) -> tuple[LimitSet, LimitSource]:
    """The limits of a user, of the tenant itself (`subject_id` is its id) or of `ALL_USERS`, and their source."""
    row = await session.get(LimitRow, (tenant_id, subject_id))
    if row is not None:
        return _limit_set(row), "set"
    for_all = None if subject_id in (tenant_id, ALL_USERS) else await session.get(LimitRow, (tenant_id, ALL_USERS))
    if for_all is not None:
        return _limit_set(for_all), "users"
    plan = await session.get(EntitlementRow, tenant_id)
    is_on_plan = plan is not None and bool(plan.plan_version)
    given = msgspec.convert(plan.limits, PlanLimits) if plan is not None and is_on_plan else defaults
    return given.tenant if subject_id == tenant_id else given.user, "plan" if is_on_plan else "default"


async def set_limits(
    session: AsyncSession, actor: Actor, tenant_id: UUID, subject_id: UUID, limits: LimitSet
) -> LimitSet | None:
    """Replaces the limits of a user, of the tenant itself (`subject_id` is its id) or of `ALL_USERS`; returns the old.

    Notify `core.redis.changes` after the commit.
    """
    row = await session.get(LimitRow, (tenant_id, subject_id), with_for_update=True)
    before = None if row is None else _limit_set(row)
    values: dict[str, Any] = {"limits": msgspec.to_builtins(limits.limits), "concurrency": limits.concurrency}
    statement = insert(LimitRow).values(tenant_id=tenant_id, subject_id=subject_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "subject_id"], set_=values))
    target = f"tenant:{tenant_id}" if subject_id in (tenant_id, ALL_USERS) else f"user:{subject_id}"
    action = "limits.replace" if subject_id != ALL_USERS else "user_limits.replace"
    was, after = None if before is None else msgspec.to_builtins(before), msgspec.to_builtins(limits)
    record(session, actor, action, tenant_id=tenant_id, target=target, before=was, after=after)
    return before


async def project_entitlement(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    plan_version: str,
    limits: PlanLimits,
    schedule: Schedule = _EMPTY,
) -> bool:
    """Stores billing's projection of the tenant's entitlement over time. Returns whether it changed.

    A change is a new version of the row and moves the tenant's epoch, which holds the tenant's lock until the commit:
    call this last. Notify `core.redis.changes` after the commit.
    """
    row = await session.get(EntitlementRow, tenant_id, with_for_update=True, populate_existing=True)
    values: dict[str, Any] = {
        "plan_version": plan_version,
        "limits": msgspec.to_builtins(limits),
        "schedule": msgspec.to_builtins(schedule),
    }
    if row is not None:
        known = msgspec.convert(row.limits, PlanLimits), msgspec.convert(row.schedule, Schedule)
        if (row.plan_version, *known) == (plan_version, limits, schedule):
            return False
    statement = insert(EntitlementRow).values(tenant_id=tenant_id, version=1, **values)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id"], set_={**values, "version": EntitlementRow.version + 1}
        )
    )
    await move_epoch(fetch_in(session), tenant_id)
    return True


def _limit_set(row: LimitRow) -> LimitSet:
    return msgspec.convert({"limits": row.limits, "concurrency": row.concurrency}, LimitSet)
