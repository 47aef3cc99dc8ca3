"""Plans and who is on which: a plan gives default limits to each user and to the tenant as a whole.

Putting a tenant on a plan projects its entitlement, which is all that admission reads. Tell `core.changes` after the
commit. Each call runs in the caller's transaction and writes its audit entry.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.models import Plan
from core.errors import NotFound
from core.tenancy.accounts import find_tenant
from core.tenancy.audit import PLATFORM, Actor, record
from metering.entitlements import project_entitlement
from metering.limits import PlanLimits


async def publish_plan(session: AsyncSession, actor: Actor, *, code: str, name: str, limits: PlanLimits) -> Plan:
    """The next version of plan `code` (its first, if it is new)."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"naka plan {code}"))))
    newest = await session.scalar(select(func.max(Plan.version)).where(Plan.code == code)) or 0
    plan = Plan(code=code, version=newest + 1, name=name, limits=msgspec.to_builtins(limits))
    session.add(plan)
    record(
        session,
        actor,
        "plan.publish",
        tenant_id=PLATFORM,
        target=f"plan:{plan_version(plan)}",
        after={"name": name, "limits": plan.limits},
    )
    await session.flush()
    await session.refresh(plan)
    return plan


async def find_plan(session: AsyncSession, code: str, version: int | None = None) -> Plan:
    """A version of a plan; the newest when none is named. Raises NotFound."""
    query = select(Plan).where(Plan.code == code).order_by(Plan.version.desc()).limit(1)
    plan = await session.scalar(query if version is None else query.where(Plan.version == version))
    if plan is None:
        raise NotFound("no such plan")
    return plan


async def list_plans(session: AsyncSession) -> Sequence[Plan]:
    """Every version of every plan."""
    return (await session.scalars(select(Plan).order_by(Plan.code, Plan.version))).all()


async def put_on_plan(session: AsyncSession, actor: Actor, tenant_id: UUID, plan: Plan) -> None:
    """The tenant is on this version of this plan from now on. Raises NotFound for the tenant."""
    tenant = await find_tenant(session, tenant_id)
    before = {"plan": tenant.plan_code, "version": tenant.plan_version}
    tenant.plan_code, tenant.plan_version = plan.code, plan.version
    await project_entitlement(
        session,
        tenant_id,
        plan_version=plan_version(plan),
        limits=msgspec.convert(plan.limits, PlanLimits),
    )
    record(
        session,
        actor,
        "tenant.plan",
        tenant_id=tenant_id,
        target=f"tenant:{tenant_id}",
        before=before,
        after={"plan": plan.code, "version": plan.version},
    )


def plan_version(plan: Plan) -> str:
    """The name of a version, as requests pin it: `team@3`."""
    return f"{plan.code}@{plan.version}"
