"""A tenant's account: its plan and subscription, limits, and upcoming charges.

The amounts are those of the bill (`billing.invoicing.preview`) and the limits those of admission
(`metering.admission.limit_status`), so that a page can't contradict them.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.billing.alerts import AlertItem
from api.schemas.billing.plans import Offer
from api.services.accounts.lookups import own_tenant
from api.services.billing.plans import offers_to
from api.services.context import ServiceContext
from billing.catalogue.profiles import find_profile
from billing.invoicing import preview
from billing.invoicing.preview import UpcomingCharges
from billing.models import Alert, Plan, Subscription
from billing.models.states import TERMINAL, SubscriptionStatus
from billing.subscriptions.intents import in_last_cycle, live_of, subscriptions_of, waiting_of
from core.clock import now_ms
from core.errors import NotFound
from core.tenancy.models import Tenant
from metering.admission.entitlements import Entitlements
from metering.quota.schedule import Stretch

_ANY_USER = UUID(int=0)
"""A user without own limits: the plan's limits of each user apply."""
_ALERTS = 3
_NOT_CHARGED = TERMINAL | {SubscriptionStatus.PAUSED}


@dataclass(frozen=True, slots=True)
class Facts:
    """The live subscription, the one to authorise, and the plan."""

    live: Subscription | None
    waiting: Subscription | None
    plan: Plan | None
    """The subscription's plan, or without one the tenant's own."""


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """The plan in force and the plans on offer. A subscription needs a billing profile."""

    facts: Facts
    waiting_plan: Plan | None
    """The plan of the subscription to authorise."""
    has_profile: bool
    offers: list[Offer]


@dataclass(frozen=True, slots=True)
class Renewal:
    """The next subscription fee. `gross_paise` is with tax, as Razorpay charges it."""

    plan: str
    at_ms: int | None
    gross_paise: int
    base_paise: int


@dataclass(frozen=True, slots=True)
class AccountOverview:
    """An account at a glance. `allowed`: what admission allows now. `upcoming` is None without a plan."""

    facts: Facts
    allowed: Stretch
    upcoming: UpcomingCharges | None
    period_plan: Plan | None
    renewal: Renewal | None
    alerts: list[AlertItem]


async def find_overview(context: ServiceContext, entitlements: Entitlements) -> AccountOverview:
    """The overview of the caller's tenant. Raises Unavailable."""
    tenant_id, at_ms = own_tenant(context), now_ms()
    async with context.transaction() as session:
        facts = await _facts(session, tenant_id)
        timeline = await entitlements.of(tenant_id, _ANY_USER)
        try:
            coming = await preview.upcoming_charges(session, context.billing, tenant_id, at_ms)
        except NotFound:
            coming = None
        version = None if coming is None else (coming.period.plan_code, coming.period.plan_version)
        alerts = select(Alert).where(Alert.tenant_id == tenant_id).order_by(Alert.id.desc()).limit(_ALERTS)
        return AccountOverview(
            facts=facts,
            allowed=timeline.at(at_ms),
            upcoming=coming,
            period_plan=None if version is None else await session.get(Plan, version),
            renewal=await _renewal(session, facts),
            alerts=[AlertItem.of(row) for row in await session.scalars(alerts)],
        )


async def find_plan_choice(context: ServiceContext) -> PlanChoice:
    """The plan of the caller's tenant, and those it may choose. Raises Unavailable."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        facts = await _facts(session, tenant_id)
        live, waiting = facts.live, facts.waiting
        ends = live is not None and (live.cancel_at_ms is not None or in_last_cycle(live))
        return PlanChoice(
            facts=facts,
            waiting_plan=None
            if waiting is None
            else await session.get_one(Plan, (waiting.plan_code, waiting.plan_version)),
            has_profile=await find_profile(session, tenant_id) is not None,
            offers=await offers_to(session, tenant_id, facts.plan if ends else None),
        )


async def _facts(session: AsyncSession, tenant_id: UUID) -> Facts:
    rows = await subscriptions_of(session, tenant_id)
    live = live_of(rows)
    tenant = await session.get_one(Tenant, tenant_id)
    version = (tenant.plan_code, tenant.plan_version) if live is None else (live.plan_code, live.plan_version)
    plan = None if version[0] is None else await session.get(Plan, version)
    return Facts(live, waiting_of(rows), plan)


async def _renewal(session: AsyncSession, facts: Facts) -> Renewal | None:
    """The next fee; None when no further one is charged."""
    row = facts.live
    if row is None or row.status in _NOT_CHARGED or row.cancel_at_ms is not None or in_last_cycle(row):
        return None
    plan = await session.get_one(Plan, (row.plan_code, row.plan_version))
    at_ms = row.start_ms if row.status == SubscriptionStatus.AUTHENTICATED else row.charge_at_ms or row.current_end_ms
    return Renewal(plan.name, at_ms, row.gross_paise, plan.base_paise)
