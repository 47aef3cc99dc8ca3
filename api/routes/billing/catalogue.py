"""Routes of plans, which the operator publishes and a tenant sees on offer, and of the two parties of every bill."""

from api.auth.access import PlatformContext, TenantContext
from api.routes.billing.parameters import CodeWanted, OwnContext, PlanCursor
from api.routes.parameters import PageSize, PlanCode, PlanVersion, TenantId
from api.routes.route import admin_router, own_router
from api.schemas.billing.plans import NewPlan, Offer, PlanItem, RazorpayCopy
from api.schemas.billing.profiles import OperatorBody, OperatorItem, ProfileBody, ProfileItem
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.accounts.lookups import own_tenant
from api.services.billing import plans, profiles

router, own = admin_router(), own_router()


@router.get("/plans")
async def all_plans(
    context: PlatformContext, cursor: PlanCursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[PlanItem]:
    """List every version of every plan, by code and version."""
    return await plans.list_plans(context, after=cursor, size=size)


@router.post("/plans", status_code=201)
async def new_plan(body: NewPlan, context: PlatformContext) -> PlanItem:
    """Publish a plan, or its next version, and offer it unless it is a draft.

    The version offered before is withdrawn. Tenants stay on the version they are on.
    """
    return await plans.publish_plan(context, body)


@router.post("/plans/{code}/{version}/offer")
async def offer_plan(code: PlanCode, version: PlanVersion, context: PlatformContext) -> PlanItem:
    """Offer a draft or a withdrawn version; the version offered before is withdrawn."""
    return await plans.offer_plan(context, code, version)


@router.post("/plans/{code}/{version}/withdraw")
async def withdraw_plan(code: PlanCode, version: PlanVersion, context: PlatformContext) -> PlanItem:
    """Withdraw a version. Tenants that have it keep it and may renew it; others cannot choose it (409)."""
    return await plans.withdraw_plan(context, code, version)


@router.get("/razorpay-plans")
async def razorpay_copies(context: PlatformContext, code: CodeWanted = None) -> Page[RazorpayCopy]:
    """List the copies of plans at Razorpay: one for each version and tax treatment, created when first needed."""
    return Page(items=await plans.list_copies(context, code))


@own.get("/plans")
async def offers(context: OwnContext) -> list[Offer]:
    """List the plans with a base price, each in the version on offer."""
    return await plans.list_offers(context)


@router.get("/operator")
async def operator(context: PlatformContext) -> OperatorItem | None:
    """Show the supplier; null before it is set."""
    return await profiles.find_operator(context)


@router.put("/operator")
async def put_operator(body: OperatorBody, context: PlatformContext) -> OperatorItem:
    """Set the supplier. Earlier bills stay as they are."""
    return await profiles.set_operator(context, body)


@router.get("/tenants/{tenant_id}/billing-profile")
async def tenant_profile(tenant_id: TenantId, context: TenantContext) -> ProfileItem | None:
    """Show a tenant's billing profile; null before it is set."""
    return await profiles.find_profile(context, tenant_id)


@router.put("/tenants/{tenant_id}/billing-profile")
async def put_tenant_profile(tenant_id: TenantId, body: ProfileBody, context: TenantContext) -> ProfileItem:
    """Set a tenant's billing profile."""
    return await profiles.set_profile(context, tenant_id, body)


@own.get("/profile")
async def my_profile(context: OwnContext) -> ProfileItem | None:
    """Show your billing profile; null before it is set."""
    return await profiles.find_profile(context, own_tenant(context))


@own.put("/profile")
async def put_profile(body: ProfileBody, context: OwnContext) -> ProfileItem:
    """Set your billing profile. Each bill copies it when issued: earlier bills stay as they are."""
    return await profiles.set_profile(context, own_tenant(context), body)
