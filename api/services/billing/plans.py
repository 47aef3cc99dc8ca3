"""Plans: published in versions that are never edited, offered to tenants or withdrawn, copied to Razorpay."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.billing.plans import NewPlan, Offer, PlanItem, RazorpayCopy
from api.schemas.pages import Page, page
from api.services.accounts.lookups import own_tenant
from api.services.context import ServiceContext, publish_after_commit
from billing.catalogue import plans, razorpay_plans
from billing.catalogue.profiles import supply_for, treatments_served
from billing.gst.tax import Treatment
from billing.models import Plan
from billing.models.catalogue import plan_version
from core.clock import now_ms
from core.errors import Invalid
from core.tenancy.principal import Scope
from metering.pricing.price import Price, PriceBook
from metering.pricing.price_list import read_prices, require_priced


async def publish_plan(context: ServiceContext, new: NewPlan) -> PlanItem:
    """Publishes a plan, or its next version; tenants stay on theirs. Raises Invalid, UnknownModel.

    Its copies at Razorpay are created at once where the caller can; otherwise when a subscription needs them.
    """
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        await require_priced(session, (model for model in new.models or () if not model.endswith("*")))
        plan = await plans.publish_plan(
            session,
            context.actor,
            code=new.code,
            name=new.name,
            limits=new.as_limits(),
            price=new.as_price(),
            draft=new.draft,
        )
        treatments, prices = await treatments_served(session), await _prices_in_force(session)
        publish_after_commit(session, None)
    if not new.draft:
        await _copy(context, plan, treatments)
    return PlanItem.with_warnings(plan, prices)


async def offer_plan(context: ServiceContext, code: str, version: int) -> PlanItem:
    """Offers a version instead of the one offered before. Idempotent. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        plan = await plans.offer_plan(session, context.actor, code, version)
        treatments, prices = await treatments_served(session), await _prices_in_force(session)
    await _copy(context, plan, treatments)
    return PlanItem.with_warnings(plan, prices)


async def withdraw_plan(context: ServiceContext, code: str, version: int) -> PlanItem:
    """Ends the sale of a version; tenants keep it. Idempotent. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        plan = await plans.withdraw_plan(session, context.actor, code, version)
        return PlanItem.with_warnings(plan, await _prices_in_force(session))


async def _copy(context: ServiceContext, plan: Plan, treatments: tuple[Treatment, ...]) -> None:
    """Creates the copies of a version on offer at Razorpay, where this process can."""
    if context.settings.razorpay_key_id and context.billing_context is not None:
        await razorpay_plans.ensure_razorpay_plans(context.billing, plan, treatments)


async def list_plans(context: ServiceContext, *, after: str | None = None, size: int | None = None) -> Page[PlanItem]:
    """Versions of plans by code and version, all without a `size`; `after` is a version such as `team@2`."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        rows, prices = sorted(await plans.list_plans(session), key=_place), await _prices_in_force(session)
    if after is not None:
        code, _, version = after.rpartition("@")
        rows = [plan for plan in rows if _place(plan) > (code, int(version))]
    return page(rows, size, lambda plan: PlanItem.with_warnings(plan, prices), plan_version)


async def find_plan(context: ServiceContext, code: str, version: int | None = None) -> PlanItem:
    """A version of a plan; unless one is named, that on offer or else the newest. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        return PlanItem.with_warnings(await plans.find_plan(session, code, version), await _prices_in_force(session))


async def _prices_in_force(session: AsyncSession) -> list[Price]:
    """The provider's prices, which the warnings of a plan compare."""
    return PriceBook(await read_prices(session)).in_force(now_ms())


async def list_copies(context: ServiceContext, code: str | None) -> list[RazorpayCopy]:
    """The copies of plans at Razorpay: one per version and tax treatment, created when first needed."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        rows = await razorpay_plans.list_razorpay_plans(session, code)
    return [RazorpayCopy.of(row) for row in rows]


async def list_offers(context: ServiceContext) -> list[Offer]:
    """Plans with a base price, each in the version on offer."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        return await offers_to(session, tenant_id)


async def offers_to(session: AsyncSession, tenant_id: UUID, renewable: Plan | None = None) -> list[Offer]:
    """The offers to a tenant, with its tax once it has a billing profile. `renewable`: one more that it may renew."""
    offered = list(await plans.offered_plans(session))
    if renewable is not None and renewable not in offered:
        offered.insert(0, renewable)
    try:
        supply = await supply_for(session, tenant_id)
    except Invalid:
        supply = None
    return [Offer.of(plan, supply) for plan in offered if plan.base_paise]


def _place(plan: Plan) -> tuple[str, int]:
    return plan.code, plan.version
