"""Plans: versions that are published and never edited. The operator's alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.access import PlatformAdmin, RuntimeDep, actor_of
from api.routes.admin.limits import LimitItem, Limits
from api.routes.parameters import PageSize
from api.schemas.fields import Body, LimitValue, Slug, Text, example
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.catalogue.plans import MAX_BASE_PAISE, MAX_TRIAL_DAYS, Price, list_plans, plan_version, publish_plan
from billing.catalogue.profiles import treatments_served
from billing.catalogue.razorpay_plans import MANDATE_PAISE, copies_of, ensure_all, gross_for
from billing.gst.rupees import rupees
from billing.gst.tax import Treatment
from billing.models import Plan
from billing.rating.overage import ImpossibleTerms, Meter, MeterTerms, PastAllowance, Terms
from core.errors import Invalid
from core.tenancy.audit import Actor
from metering.quota.limits import MAX_CEILING_PAISE, MAX_LIMIT, PlanLimits

router = APIRouter()

RatePaise = Annotated[int, Field(strict=True, ge=0, le=MAX_LIMIT)]
CodeWanted = Annotated[Slug | None, Query(description="Only of this plan", examples=["team"])]


class MeterPrice(Body):
    """What the base price includes of a meter, and the paise for a million units past that. Spend: in micro-USD."""

    meter: Meter
    allowance: LimitValue
    rate_paise: RatePaise


class NewPlan(Body):
    """The next version of plan `code`: its price, and the limits of each user and of the tenant as a whole.

    `base_paise`: a month, before tax; 0 is free. Past the allowances `block` refuses, `bill` goes on up to
    `ceiling_paise` before tax. `when_unpaid`: what a tenant has that does not pay: nothing (`block`), or what its own
    plan gives (`free`).
    """

    model_config = example(
        code="team",
        name="Team",
        base_paise=299_900,
        meters=[{"meter": "output_tokens", "allowance": 2_000_000, "rate_paise": 160_000}],
        past_allowance="bill",
        ceiling_paise=1_000_000,
        user={"limits": [{"meter": "tokens", "window": "day", "limit": 200_000}], "concurrency": 2},
        tenant={"limits": [{"meter": "spend", "window": "period", "limit": 100_000_000}], "concurrency": 20},
    )

    code: Slug
    name: Text
    user: Limits = Limits(limits=[])
    tenant: Limits = Limits(limits=[])
    base_paise: Annotated[int, Field(strict=True, ge=0, le=MAX_BASE_PAISE)] = 0
    meters: Annotated[list[MeterPrice], Field(default_factory=list, max_length=len(Meter))]
    past_allowance: PastAllowance = PastAllowance.BLOCK
    ceiling_paise: Annotated[int, Field(strict=True, ge=0, le=MAX_CEILING_PAISE)] | None = None
    when_unpaid: Literal["block", "free"] = "block"
    trial_days: Annotated[int, Field(strict=True, ge=0, le=MAX_TRIAL_DAYS)] = 0

    def as_price(self) -> Price:
        """As billing takes it. Raises Invalid."""
        try:
            meters = tuple(MeterTerms(one.meter, one.allowance, one.rate_paise) for one in self.meters)
            terms = Terms(meters, self.past_allowance, self.ceiling_paise)
        except ImpossibleTerms as error:
            raise Invalid(str(error)) from error
        return Price(self.base_paise, terms, self.when_unpaid, self.trial_days)

    def as_limits(self) -> PlanLimits:
        """As metering takes it."""
        return PlanLimits(user=self.user.as_set(), tenant=self.tenant.as_set())


class PlanLimitsItem(BaseModel):
    """A set of limits that a plan gives."""

    limits: list[LimitItem]
    concurrency: int | None


class RazorpayCopy(BaseModel):
    """A version at Razorpay, for one tax treatment: `gross_paise` is its price there."""

    code: str
    version: int
    treatment: str
    gross_paise: int
    state: str
    razorpay_id: str | None
    error: str | None


class PlanItem(BaseModel):
    """A version of a plan. `warnings`: what to think of before it is sold."""

    code: str
    version: int
    name: str
    user: PlanLimitsItem
    tenant: PlanLimitsItem
    base_paise: int
    meters: list[MeterPrice]
    past_allowance: PastAllowance
    ceiling_paise: int | None
    when_unpaid: str
    trial_days: int
    warnings: list[str]
    created_at: datetime

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """As it is answered."""
        limits = msgspec.to_builtins(msgspec.convert(plan.limits, PlanLimits))
        shown = {name: getattr(plan, name) for name in cls.model_fields if hasattr(plan, name)}
        return cls.model_validate(
            shown | {"user": limits["user"], "tenant": limits["tenant"], "warnings": warnings_of(plan)}
        )


def warnings_of(plan: Plan) -> list[str]:
    """What may surprise whoever sells it."""
    gross_paise = gross_for(plan.base_paise, Treatment.INTER_STATE)
    if gross_paise <= MANDATE_PAISE:
        return []
    limit = f"{rupees(gross_paise)} with GST is above {rupees(MANDATE_PAISE)}"
    return [f"{limit}: mandates debit that only with the customer's word each month, and UPI is not offered"]


PlanCursor = Annotated[
    str | None,
    Query(
        description="`next` of the page before",
        pattern=r"^[a-z0-9-]{1,63}@[1-9][0-9]{0,8}$",
        examples=["team@2"],
    ),
]


@router.get("/plans")
async def all_plans(
    _: PlatformAdmin, runtime: RuntimeDep, cursor: PlanCursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[PlanItem]:
    """Every version of every plan, by code and version."""
    async with runtime.database.session() as session:
        rows = await list_plans(session)
    return page(_after(rows, cursor)[: size + 1], size, PlanItem.of, plan_version)


def _after(plans: Sequence[Plan], cursor: str | None) -> list[Plan]:
    ordered = sorted(plans, key=_place)
    if cursor is None:
        return ordered
    code, _, version = cursor.rpartition("@")
    return [plan for plan in ordered if _place(plan) > (code, int(version))]


def _place(plan: Plan) -> tuple[str, int]:
    return plan.code, plan.version


@router.post("/plans", status_code=201)
async def new_plan(body: NewPlan, principal: PlatformAdmin, runtime: RuntimeDep, request: Request) -> PlanItem:
    """Publish a plan, or its next version. Tenants stay on the version they are on."""
    actor = actor_of(request, principal)
    async with runtime.database.session() as session:
        plan = await publish(session, actor, body)
        treatments = await treatments_served(session)
    await runtime.changes.publish(None)
    if runtime.settings.razorpay_key_id:
        await ensure_all(runtime.billing, plan, treatments)
    return PlanItem.of(plan)


async def publish(session: AsyncSession, actor: Actor, new: NewPlan) -> Plan:
    """Publishes what came in. Raises Invalid."""
    return await publish_plan(
        session, actor, code=new.code, name=new.name, limits=new.as_limits(), price=new.as_price()
    )


@router.get("/razorpay-plans")
async def razorpay_copies(_: PlatformAdmin, runtime: RuntimeDep, code: CodeWanted = None) -> Page[RazorpayCopy]:
    """What Razorpay has of the plans: one for each version and tax treatment, made when it is first needed."""
    async with runtime.database.session() as session:
        rows = await copies_of(session, code)
    return Page(items=[RazorpayCopy.model_validate(row, from_attributes=True) for row in rows])
