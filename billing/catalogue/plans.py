"""Plans, their versions, and the plan of each tenant. A plan gives limits to each user and to the whole tenant.

At most one version of a plan is offered: offering one withdraws the one before. Tenants keep the version that they
have and may renew it; newcomers can only choose what is offered. An operator may put a tenant on any version.

Changing a tenant's plan projects its entitlement; publish to `core.redis.changes` after the commit. Each call runs in
the caller's transaction and writes its audit entry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.months import begin_months, write_past_months
from billing.access.projection import project
from billing.context import lock_tenant
from billing.models import Plan
from billing.models.catalogue import plan_version
from billing.models.states import PlanState
from billing.rating.overage import PastAllowance, Terms
from billing.rating.terms import bounded
from core.clock import now_ms
from core.errors import Conflict, Invalid, NotFound
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
    """The price of a version: base paise a month before tax, and the terms of its usage. Free by default.

    `threshold_paise`: overage is billed within a period each time it reaches this much, before tax.
    """

    base_paise: int = 0
    terms: Terms = NO_TERMS
    when_unpaid: Literal["block", "free"] = "block"
    trial_days: int = 0
    threshold_paise: int | None = None


class PlanNotOffered(Conflict):
    """The version is not for sale: still a draft, or withdrawn."""


FREE = Price()


async def publish_plan(
    session: AsyncSession,
    actor: Actor,
    *,
    code: str,
    name: str,
    limits: PlanLimits,
    price: Price = FREE,
    draft: bool = False,
) -> Plan:
    """Publishes the next version of plan `code`, or its first. Raises Invalid for an impossible price.

    It is offered, and the version offered before is withdrawn; a `draft` changes no offer.
    """
    _check(price)
    await _lock(session, code)
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
        threshold_paise=price.threshold_paise,
        state=PlanState.DRAFT if draft else PlanState.OFFERED,
    )
    if not draft:
        await _withdraw_offered(session, code)
    session.add(plan)
    after = {"name": name, "limits": plan.limits, "base_paise": price.base_paise, "terms": terms}
    after |= {"when_unpaid": price.when_unpaid, "trial_days": price.trial_days}
    after |= {"threshold_paise": price.threshold_paise, "state": plan.state}
    record(session, actor, "plan.publish", tenant_id=PLATFORM, target=f"plan:{plan_version(plan)}", after=after)
    await session.flush()
    await session.refresh(plan)
    return plan


async def offer_plan(session: AsyncSession, actor: Actor, code: str, version: int) -> Plan:
    """Offers a draft or a withdrawn version, and withdraws the one offered before. Idempotent. Raises NotFound."""
    await _lock(session, code)
    plan = await find_plan(session, code, version)
    if plan.state != PlanState.OFFERED:
        await _withdraw_offered(session, code)
        _change_state(session, actor, plan, PlanState.OFFERED)
    return plan


async def withdraw_plan(session: AsyncSession, actor: Actor, code: str, version: int) -> Plan:
    """Ends the sale of a version; tenants keep it. Idempotent. Raises NotFound."""
    await _lock(session, code)
    plan = await find_plan(session, code, version)
    if plan.state != PlanState.WITHDRAWN:
        _change_state(session, actor, plan, PlanState.WITHDRAWN)
    return plan


def require_offered(plan: Plan, kept: Iterable[tuple[str, int]]) -> None:
    """Raises PlanNotOffered for a version that is not for sale. `kept`: versions that the tenant has and may renew."""
    if plan.state != PlanState.OFFERED and (plan.code, plan.version) not in kept:
        why = "is not offered yet" if plan.state == PlanState.DRAFT else "is not offered any more"
        raise PlanNotOffered(
            f"version {plan.version} of the plan {plan.code!r} {why}; choose one of the plans on offer"
        )


async def _lock(session: AsyncSession, code: str) -> None:
    """Lets one transaction at a time change the versions of a plan."""
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"naka plan {code}"))))


async def _withdraw_offered(session: AsyncSession, code: str) -> None:
    offered = update(Plan).where(Plan.code == code, Plan.state == PlanState.OFFERED)
    await session.execute(offered.values(state=PlanState.WITHDRAWN))


def _change_state(session: AsyncSession, actor: Actor, plan: Plan, state: PlanState) -> None:
    before, plan.state = {"state": plan.state}, state
    action = "plan.offer" if state == PlanState.OFFERED else "plan.withdraw"
    target = f"plan:{plan_version(plan)}"
    record(session, actor, action, tenant_id=PLATFORM, target=target, before=before, after={"state": state.value})


async def find_plan(session: AsyncSession, code: str, version: int | None = None) -> Plan:
    """A version of a plan; by default the one on offer, or else the newest. Raises NotFound."""
    is_offered = Plan.state == PlanState.OFFERED
    query = select(Plan).where(Plan.code == code).order_by(is_offered.desc(), Plan.version.desc()).limit(1)
    plan = await session.scalar(query if version is None else query.where(Plan.version == version))
    if plan is None:
        raise NotFound("no such plan")
    return plan


async def list_plans(session: AsyncSession) -> Sequence[Plan]:
    """All versions of all plans."""
    return (await session.scalars(select(Plan).order_by(Plan.code, Plan.version))).all()


async def offered_plans(session: AsyncSession) -> Sequence[Plan]:
    """The version on offer of each plan that has one, by code."""
    query = select(Plan).where(Plan.state == PlanState.OFFERED).order_by(Plan.code, Plan.version)
    return list({plan.code: plan for plan in await session.scalars(query)}.values())


async def put_on_plan(session: AsyncSession, actor: Actor, tenant_id: UUID, plan: Plan, zone: ZoneInfo) -> None:
    """Changes the plan that the tenant has without a subscription. Takes the tenant's lock. Raises NotFound.

    What was used before keeps the plan that it was used under: this month is cut, and earlier months get their rows.
    """
    await find_tenant(session, tenant_id)
    await lock_tenant(session, tenant_id)
    at_ms = now_ms()
    tenant = await session.get_one(Tenant, tenant_id, populate_existing=True)
    before = {"plan": tenant.plan_code, "version": tenant.plan_version}
    if tenant.plan_code is None:
        await begin_months(session, zone, tenant_id, plan, at_ms)
    else:
        await write_past_months(session, zone, at_ms, tenant_id, priced_only=False)
        await project(session, zone, tenant_id, at_ms)
    tenant.plan_code, tenant.plan_version = plan.code, plan.version
    await project(session, zone, tenant_id, at_ms)
    target, after = f"tenant:{tenant_id}", {"plan": plan.code, "version": plan.version}
    record(session, actor, "tenant.plan", tenant_id=tenant_id, target=target, before=before, after=after)


async def give_default_plan(session: AsyncSession, actor: Actor, tenant_id: UUID, code: str, zone: ZoneInfo) -> None:
    """Puts a tenant that has no plan of its own on the setting's plan (`code`; empty: none). Raises NotFound."""
    if code and (await find_tenant(session, tenant_id)).plan_code is None:
        await put_on_plan(session, actor, tenant_id, await find_plan(session, code), zone)


def _check(price: Price) -> None:
    """Raises Invalid for a price that can't be collected or metered."""
    if 0 < price.base_paise < LEAST_PAISE or not 0 <= price.base_paise <= MAX_BASE_PAISE:
        raise Invalid(f"the base price must be 0, or {LEAST_PAISE} to {MAX_BASE_PAISE} paise")
    if not 0 <= price.trial_days <= MAX_TRIAL_DAYS:
        raise Invalid(f"a trial must have 0 to {MAX_TRIAL_DAYS} days")
    if price.trial_days and not price.base_paise:
        raise Invalid("a plan without a base price can't have a trial")
    if price.threshold_paise is not None:
        if price.terms.past_allowance is not PastAllowance.BILL:
            raise Invalid("only a plan that bills overage can have a threshold")
        if price.threshold_paise < LEAST_PAISE:
            raise Invalid(f"a threshold must be at least {LEAST_PAISE} paise")
    try:
        bounded(PlanLimits(), price.terms)
    except ValueError as error:
        raise Invalid(str(error)) from error
