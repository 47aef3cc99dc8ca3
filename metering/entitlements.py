"""What a user is entitled to, as admission reads it: cached in the process, dropped everywhere by `core.changes`.

Billing writes the `entitlements` row (what the plan gives); an admin sets limits of a user or a tenant. Here both
are read together and resolved.
"""

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.cache import TtlCache
from core.database import Database
from core.tenancy.audit import Actor, record
from metering.limits import Entitlement, LimitSet, PlanLimits, resolve
from metering.models import EntitlementRow, LimitRow


class Entitlements:
    """Reads and resolves. One per process."""

    def __init__(self, database: Database, *, ttl_s: float) -> None:
        self._database = database
        self._cache: TtlCache[tuple[UUID, UUID], Entitlement] = TtlCache(ttl_s=ttl_s)

    async def of(self, tenant_id: UUID, user_id: UUID) -> Entitlement:
        """What holds for the user now. Raises Unavailable."""
        key = (tenant_id, user_id)
        return self._cache.get(key) or await self._cache.load(key, lambda: self._read(tenant_id, user_id))

    def forget(self, tenant_id: UUID | None) -> None:
        """Drops what is cached of a tenant, or everything."""
        self._cache.drop(None if tenant_id is None else lambda key, _: key[0] == tenant_id)

    async def _read(self, tenant_id: UUID, user_id: UUID) -> Entitlement:
        async with self._database.session() as session:
            sets = await session.scalars(
                select(LimitRow).where(LimitRow.tenant_id == tenant_id, LimitRow.subject_id.in_((tenant_id, user_id)))
            )
            by_subject = {row.subject_id: _limit_set(row) for row in sets}
            plan = await session.get(EntitlementRow, tenant_id)
        return resolve(
            PlanLimits() if plan is None else msgspec.convert(plan.limits, PlanLimits),
            user=by_subject.get(user_id),
            tenant=by_subject.get(tenant_id),
            plan_version=None if plan is None else plan.plan_version,
        )


async def read_limits(session: AsyncSession, tenant_id: UUID, subject_id: UUID) -> tuple[LimitSet, bool]:
    """The set that holds for a user, or for the tenant itself (`subject_id` is its id).

    The second value says whether it was set for it; else it is the plan's.
    """
    row = await session.get(LimitRow, (tenant_id, subject_id))
    if row is not None:
        return _limit_set(row), True
    plan = await session.get(EntitlementRow, tenant_id)
    given = PlanLimits() if plan is None else msgspec.convert(plan.limits, PlanLimits)
    return given.tenant if subject_id == tenant_id else given.user, False


async def set_limits(
    session: AsyncSession, actor: Actor, tenant_id: UUID, subject_id: UUID, limits: LimitSet
) -> LimitSet | None:
    """Replaces the limits of a user, or of the tenant itself (`subject_id` is its id). Returns what was set before.

    Tell `core.changes` after the commit.
    """
    row = await session.get(LimitRow, (tenant_id, subject_id), with_for_update=True)
    before = None if row is None else _limit_set(row)
    values: dict[str, Any] = {"limits": msgspec.to_builtins(limits.limits), "concurrency": limits.concurrency}
    statement = insert(LimitRow).values(tenant_id=tenant_id, subject_id=subject_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["tenant_id", "subject_id"], set_=values))
    record(
        session,
        actor,
        "limits.replace",
        tenant_id=tenant_id,
        target=f"tenant:{tenant_id}" if subject_id == tenant_id else f"user:{subject_id}",
        before=None if before is None else msgspec.to_builtins(before),
        after=msgspec.to_builtins(limits),
    )
    return before


async def project_entitlement(session: AsyncSession, tenant_id: UUID, *, plan_version: str, limits: PlanLimits) -> None:
    """Billing's word on what the tenant is entitled to. Each call is a new version of the row."""
    values: dict[str, Any] = {"plan_version": plan_version, "limits": msgspec.to_builtins(limits)}
    statement = insert(EntitlementRow).values(tenant_id=tenant_id, version=1, **values)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id"], set_={**values, "version": EntitlementRow.version + 1}
        )
    )


def _limit_set(row: LimitRow) -> LimitSet:
    return msgspec.convert({"limits": row.limits, "concurrency": row.concurrency}, LimitSet)
