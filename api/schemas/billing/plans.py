"""Shapes of plans: published versions, their copies at Razorpay, and offers to a tenant."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, Self, TypeVar

import msgspec
from pydantic import AfterValidator, BaseModel, Field

from api.schemas.accounts.limits import LimitItem, Limits
from api.schemas.fields import Body, LimitValue, ModelPattern, Slug, Text, example
from api.schemas.rows import Row
from billing.catalogue.plans import MAX_BASE_PAISE, MAX_TRIAL_DAYS, Price
from billing.catalogue.razorpay_plans import MANDATE_PAISE, gross_for
from billing.gst.rupees import rupees
from billing.gst.tax import Supply, Treatment, gross_of
from billing.models import Plan
from billing.models.states import PlanState
from billing.rating.overage import ImpossibleTerms, Meter, MeterTerms, PastAllowance, Terms
from billing.rating.price_spread import PriceSpread, price_spread
from billing.rating.terms import terms_of
from core.errors import Invalid
from core.features import Feature
from metering.pricing.price import Price as ModelPrice
from metering.quota.limits import MAX_CEILING_PAISE, MAX_LIMIT, PlanLimits

_MAX_MODELS = 100
_Name = TypeVar("_Name", bound=str)
RatePaise = Annotated[int, Field(strict=True, ge=0, le=MAX_LIMIT)]


def _sorted_once(names: list[_Name]) -> list[_Name]:
    return sorted(set(names))


class MeterPrice(Body):
    """Allowance of a meter, and paise per million units of overage. Spend is in micro-USD."""

    meter: Meter
    allowance: LimitValue
    rate_paise: RatePaise


class NewPlan(Body):
    """The next version of plan `code`: its price, and the limits of each user and of the tenant as a whole.

    `base_paise`: per month, before tax; 0 is free. Beyond the allowances `block` refuses requests; `bill` charges
    overage up to `ceiling_paise` before tax. `when_unpaid`: while the tenant doesn't pay, `block` refuses requests and
    `free` gives what its own plan gives. `threshold_paise`: overage is billed within the period each time it reaches
    this much before tax. `draft`: not offered yet; otherwise it is, and the version before is withdrawn. `features` of
    the Messages API are refused unless named here. `models`: names, or prefixes that end in `*`; null allows all.
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
        features=["web_search"],
        models=["claude-sonnet-4-5*", "claude-sonnet-4-6"],
    )

    code: Slug
    name: Text
    user: Limits = Limits(limits=[])
    tenant: Limits = Limits(limits=[])
    features: Annotated[list[Feature], Field(default_factory=list), AfterValidator(_sorted_once)]
    models: (
        Annotated[list[ModelPattern], Field(min_length=1, max_length=_MAX_MODELS), AfterValidator(_sorted_once)] | None
    ) = None
    base_paise: Annotated[int, Field(strict=True, ge=0, le=MAX_BASE_PAISE)] = 0
    meters: Annotated[list[MeterPrice], Field(default_factory=list, max_length=len(Meter))]
    past_allowance: PastAllowance = PastAllowance.BLOCK
    ceiling_paise: Annotated[int, Field(strict=True, ge=0, le=MAX_CEILING_PAISE)] | None = None
    threshold_paise: Annotated[int, Field(strict=True, ge=1, le=MAX_CEILING_PAISE)] | None = None
    when_unpaid: Literal["block", "free"] = "block"
    trial_days: Annotated[int, Field(strict=True, ge=0, le=MAX_TRIAL_DAYS)] = 0
    draft: bool = False

    def as_price(self) -> Price:
        """The price for billing. Raises Invalid."""
        try:
            meters = tuple(MeterTerms(one.meter, one.allowance, one.rate_paise) for one in self.meters)
            terms = Terms(meters, self.past_allowance, self.ceiling_paise)
        except ImpossibleTerms as error:
            raise Invalid(str(error)) from error
        return Price(self.base_paise, terms, self.when_unpaid, self.trial_days, self.threshold_paise)

    def as_limits(self) -> PlanLimits:
        """The limits for metering."""
        return PlanLimits(
            user=self.user.as_set(),
            tenant=self.tenant.as_set(),
            features=tuple(self.features),
            models=None if self.models is None else tuple(self.models),
        )


class PlanLimitsItem(BaseModel):
    """A set of limits in a plan."""

    limits: list[LimitItem]
    concurrency: int | None


class RazorpayCopy(Row):
    """A version at Razorpay, for one tax treatment: `gross_paise` is its price there."""

    code: str
    version: int
    treatment: str
    gross_paise: int
    state: str
    razorpay_id: str | None
    error: str | None


class PlanItem(Row):
    """A version of a plan. Tenants that have a withdrawn version keep it.

    `warnings`: consequences to consider before it is sold.
    """

    code: str
    version: int
    name: str
    state: PlanState
    user: PlanLimitsItem
    tenant: PlanLimitsItem
    features: list[str]
    models: list[str] | None
    base_paise: int
    meters: list[MeterPrice]
    past_allowance: PastAllowance
    ceiling_paise: int | None
    threshold_paise: int | None
    when_unpaid: str
    trial_days: int
    warnings: list[str]
    created_at: datetime

    @classmethod
    def with_warnings(cls, plan: Plan, prices: Iterable[ModelPrice]) -> Self:
        """The shape of a row. `prices`: the provider's prices in force, one for each model."""
        limits = msgspec.convert(plan.limits, PlanLimits)
        user, tenant = msgspec.to_builtins(limits.user), msgspec.to_builtins(limits.tenant)
        spread = price_spread(terms_of(plan), limits.models, prices)
        warnings = [*warnings_of(plan), *(() if spread is None else [_uneven(spread)])]
        return cls.completed(plan, user=user, tenant=tenant, **_offered(limits), warnings=warnings)


def _offered(limits: PlanLimits) -> dict[str, list[str] | None]:
    return {"features": list(limits.features), "models": None if limits.models is None else list(limits.models)}


def warnings_of(plan: Plan) -> list[str]:
    """Consequences of the price that may surprise an operator."""
    said = []
    base_paise, ceiling_paise, threshold_paise = (
        gross_for(paise or 0, Treatment.INTER_STATE)
        for paise in (plan.base_paise, plan.ceiling_paise, plan.threshold_paise)
    )
    if base_paise > MANDATE_PAISE:
        why = "the customer must approve each monthly debit, and UPI is not offered"
        said.append(f"the base price, {_above(base_paise)}: {why}")
    bills = plan.past_allowance == PastAllowance.BILL
    if bills and threshold_paise > MANDATE_PAISE:
        said.append(f"the threshold, {_above(threshold_paise)}: no mandate can be debited for such a bill")
    elif bills and ceiling_paise > MANDATE_PAISE and not threshold_paise:
        why = "a bill above that is collected by payment link, not by mandate; set a threshold to bill sooner"
        said.append(f"the ceiling, {_above(ceiling_paise)}: {why}")
    return said


def _uneven(spread: PriceSpread) -> str:
    """The warning for models of different prices whose tokens are sold alike."""
    if spread.cheapest_rate:
        times = f"{float(spread.ratio):.1f}".removesuffix(".0")
        costs = f"costs {times} times as much as one of {spread.cheapest}"
    else:
        costs = f"costs more than one of {spread.cheapest}, which is free"
    why = f"but an {spread.kind} token of {spread.dearest} {costs}"
    return f"tokens of every model are sold alike, {why}: price spend, or name models of one price"


def _above(paise: int) -> str:
    return f"{rupees(paise)} with GST, is above {rupees(MANDATE_PAISE)}"


class Offer(Row):
    """The version on offer of a plan, or the one that the tenant has and may renew.

    `gross_paise`: with the tenant's tax, once its profile is known.
    """

    code: str
    version: int
    name: str
    base_paise: int
    gross_paise: int | None
    meters: list[MeterPrice]
    past_allowance: PastAllowance
    ceiling_paise: int | None
    threshold_paise: int | None
    trial_days: int
    features: list[str]
    models: list[str] | None

    @classmethod
    def of(cls, plan: Plan, supply: Supply | None = None) -> Self:
        """The shape of a row."""
        gross_paise = None if supply is None else gross_of(plan.base_paise, supply)
        return cls.completed(plan, gross_paise=gross_paise, **_offered(msgspec.convert(plan.limits, PlanLimits)))
