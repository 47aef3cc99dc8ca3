"""The account at a glance: what was used of the plan, which limits hold, what the next bill will be.

The figures are those of the bill (`billing.invoicing.preview`) and of admission (`metering.admission.limit_status`),
so that nothing here can say otherwise than they do. Postgres away: 503 in words.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import RuntimeDep
from api.pages.account import wording
from api.pages.account.frame import show
from api.pages.account.standing import Facts, state_of
from api.pages.route import page_router
from api.pages.site import Here
from api.pages.visitor import AccountAdmin
from api.runtime import Runtime
from billing.invoicing.bill_list import list_bills
from billing.invoicing.preview import Upcoming, upcoming
from billing.models import Alert, Plan, Subscription
from billing.models.bills import due_of
from billing.subscriptions.intents import in_last_cycle, live_of, subscriptions_of
from core.clock import now_ms
from core.errors import NotFound
from core.tenancy.models import Tenant
from metering.admission.limit_status import LimitStatus
from metering.quota.limits import LimitScope

router = page_router("/account")
_NOBODY = UUID(int=0)
"""A user for whom nothing is set: what holds for it is what the plan gives to each."""
_ALERTS = 3
_OPEN = 20
_NOT_FURTHER = frozenset({"paused", "cancelled", "completed", "expired"})


@dataclass(frozen=True, slots=True)
class Allowance:
    """A meter of the plan: what was used, what it includes, what lies past that and costs so far."""

    meter: str
    used: int
    included: int
    excess: int
    whole_paise: int

    @property
    def percent(self) -> int:
        """Of the allowance, rounded down; past it more than 100."""
        return self.used * 100 // self.included if self.included else 0


@dataclass(frozen=True, slots=True)
class Renewal:
    """The fee that is charged next. `gross_paise` is with tax, as Razorpay was told."""

    plan: str
    at_ms: int | None
    gross_paise: int
    base_paise: int


async def facts_of(runtime: Runtime, session: AsyncSession, tenant_id: UUID) -> Facts:
    """What is known of the tenant's subscription. Raises Unavailable."""
    at_ms = now_ms()
    rows = await subscriptions_of(session, tenant_id)
    live = live_of(rows)
    tenant = await session.get_one(Tenant, tenant_id)
    named = (tenant.plan_code, tenant.plan_version) if live is None else (live.plan_code, live.plan_version)
    plan = None if named[0] is None else await session.get(Plan, named)
    timeline = await runtime.entitlements.of(tenant_id, _NOBODY)
    return Facts(live, next((row for row in rows if row.is_open), None), plan, timeline, at_ms)


@router.get("")
async def overview(request: Request, runtime: RuntimeDep, visitor: AccountAdmin) -> Response:
    """The overview."""
    tenant_id, here = visitor.principal.tenant_id, Here(runtime.billing.zone)
    async with runtime.database.session(tenant_id=tenant_id) as session:
        facts = await facts_of(runtime, session, tenant_id)
        coming = await _upcoming(session, runtime, tenant_id, facts.at_ms)
        period_plan = None if coming is None else await session.get(Plan, _plan_of(coming))
        renewal = await _renewal(session, facts)
        alerts = await session.scalars(
            select(Alert).where(Alert.tenant_id == tenant_id).order_by(Alert.id.desc()).limit(_ALERTS)
        )
        bills = await list_bills(session, tenant_id=tenant_id, state="open", final=True, limit=_OPEN)
    standing = await runtime.standings.of(tenant_id, visitor.principal.user_id)
    each = facts.timeline.at(facts.at_ms).entitlement
    allowances = [] if coming is None else _allowances(coming)
    return show(
        request,
        "overview",
        visitor,
        state=state_of(facts, here),
        is_refused=facts.timeline.at(facts.at_ms).refusal is not None,
        changes=facts.live is not None and facts.waiting is not None,
        plan=period_plan or facts.plan,
        coming=coming,
        renewal=renewal,
        allowances=allowances,
        limits=[one for one in standing.limits if _is_shown(one, allowances)],
        defaults=[limit for limit in each.limits if limit.scope is LimitScope.USER],
        each_at_once=each.user_concurrency,
        all_at_once=each.tenant_concurrency,
        alerts=[(row.at_ms, wording.alert(row.kind, row.data)) for row in alerts],
        due_paise=sum(due_of(bill) for bill in bills),
        wording=wording,
    )


def _allowances(coming: Upcoming) -> list[Allowance]:
    lines: list[dict[str, Any]] = [line for line in coming.lines if line["kind"] == "meter"]
    return [
        Allowance(line["meter"], line["quantity"], line["allowance"], line["excess"], line["whole_paise"])
        for line in lines
    ]


def _is_shown(one: LimitStatus, allowances: list[Allowance]) -> bool:
    """The tenant's; a plan that stops at its allowance says so as a limit too, which is no other figure."""
    limit = one.limit
    known = {(allowance.meter, allowance.included) for allowance in allowances}
    return limit.scope is LimitScope.TENANT and (limit.window != "period" or (limit.meter, limit.limit) not in known)


async def _upcoming(session: AsyncSession, runtime: Runtime, tenant_id: UUID, at_ms: int) -> Upcoming | None:
    try:
        return await upcoming(session, runtime.billing, tenant_id, at_ms)
    except NotFound:
        return None


def _plan_of(coming: Upcoming) -> tuple[str, int]:
    return coming.period.plan_code, coming.period.plan_version


async def _renewal(session: AsyncSession, facts: Facts) -> Renewal | None:
    """The next fee, unless none will be charged."""
    row = facts.live
    if row is None or row.status in _NOT_FURTHER or row.cancel_at_ms is not None or in_last_cycle(row):
        return None
    plan = await session.get_one(Plan, (row.plan_code, row.plan_version))
    return Renewal(plan.name, _charged_at(row), row.gross_paise, plan.base_paise)


def _charged_at(row: Subscription) -> int | None:
    return row.start_ms if row.status == "authenticated" else row.charge_at_ms or row.current_end_ms
