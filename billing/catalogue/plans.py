"""Plans, their versions, and the plan of each tenant. A plan gives limits to each user and to the whole tenant.

Changing a tenant's plan projects its entitlement; publish to `core.redis.changes` after the commit. Each call runs in
the caller's transaction and writes its audit entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import lock_tenant
from billing.models import Plan
from billing.models.catalogue import plan_version
from billing.rating.overage import PastAllowance, Terms
from billing.rating.terms import bounded
from core.clock import now_ms
from core.errors import Invalid, NotFound
from core.tenancy.accounts import find_tenant
from core.tenancy.audit import PLATFORM, Actor, record
from core.tenancy.models import Tenant
from metering.quota.limits import PlanLimits

LEAST_PAISE = 100
"""Razorpay's documented minimum."""
MAX_BASE_PAISE = 10_000_000_000
MAX_TRIAL_DAYS = 365


NO_TERMS = Terms((), PastAllowance.BLOCK)


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a version: base paise a month before tax, and the terms of its usage. Free by default."""

    base_paise: int = 0
    terms: Terms = NO_TERMS
    when_unpaid: Literal["block", "free"] = "block"
    trial_days: int = 0


FREE = Price()


async def publish_plan(
    session: AsyncSession, actor: Actor, *, code: str, name: str, limits: PlanLimits, price: Price = FREE
) -> Plan:
    """Publishes the next version of plan `code`, or its first. Raises Invalid for an impossible price."""
    _check(price)
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"naka plan {code}"))))
    newest = await session.scalar(select(func.max(Plan.version)).where(Plan.code == code)) or 0
    terms = msgspec.to_builtins(price.terms)
    plan = Plan(
        code=code,
        version=newest + 1,
        name=name,
        limits=msgspec.to_builtins(limits),
        base_paise=price.base_paise,
        meters=terms["meters"],
        past_allowance=terms["past_allowance"],
        ceiling_paise=terms["ceiling_paise"],
        when_unpaid=price.when_unpaid,
        trial_days=price.trial_days,
    )
    session.add(plan)
    after = {"name": name, "limits": plan.limits, "base_paise": price.base_paise, "terms": terms}
    after |= {"when_unpaid": price.when_unpaid, "trial_days": price.trial_days}
    record(session, actor, "plan.publish", tenant_id=PLATFORM, target=f"plan:{plan_version(plan)}", after=after)
    await session.flush()
    await session.refresh(plan)
    return plan


async def find_plan(session: AsyncSession, code: str, version: int | None = None) -> Plan:
    """A version of a plan, the newest by default. Raises NotFound."""
    query = select(Plan).where(Plan.code == code).order_by(Plan.version.desc()).limit(1)
    plan = await session.scalar(query if version is None else query.where(Plan.version == version))
    if plan is None:
        raise NotFound("no such plan")
    return plan


async def list_plans(session: AsyncSession) -> Sequence[Plan]:
    """All versions of all plans."""
    return (await session.scalars(select(Plan).order_by(Plan.code, Plan.version))).all()


async def put_on_plan(session: AsyncSession, actor: Actor, tenant_id: UUID, plan: Plan, zone: ZoneInfo) -> None:
    """Changes the plan that the tenant has without a subscription. Takes the tenant's lock. Raises NotFound."""
    await find_tenant(session, tenant_id)
    await lock_tenant(session, tenant_id)
    tenant = await session.get_one(Tenant, tenant_id, populate_existing=True)
    before = {"plan": tenant.plan_code, "version": tenant.plan_version}
    tenant.plan_code, tenant.plan_version = plan.code, plan.version
    await project(session, zone, tenant_id, now_ms())
    target, after = f"tenant:{tenant_id}", {"plan": plan.code, "version": plan.version}
    record(session, actor, "tenant.plan", tenant_id=tenant_id, target=target, before=before, after=after)


def _check(price: Price) -> None:
    """Raises Invalid for a price that can't be collected or metered."""
    if 0 < price.base_paise < LEAST_PAISE or not 0 <= price.base_paise <= MAX_BASE_PAISE:
        raise Invalid(f"the base price must be 0, or {LEAST_PAISE} to {MAX_BASE_PAISE} paise")
    if not 0 <= price.trial_days <= MAX_TRIAL_DAYS:
        raise Invalid(f"a trial must have 0 to {MAX_TRIAL_DAYS} days")
    if price.trial_days and not price.base_paise:
        raise Invalid("a plan without a base price can't have a trial")
    try:
        bounded(PlanLimits(), price.terms)
    except ValueError as error:
        raise Invalid(str(error)) from error
