"""Tenants, and the plan that each is on. Only the operator makes them."""

from fastapi import APIRouter

from api.auth.access import PlatformContext, TenantContext
from api.routes.parameters import Cursor, PageSize, TenantId
from api.schemas.accounts.tenants import NewTenant, PlanChoice, TenantItem
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.accounts import tenants

router = APIRouter()


@router.post("/tenants", status_code=201)
async def new_tenant(body: NewTenant, context: PlatformContext) -> TenantItem:
    """Make a tenant."""
    return await tenants.create_tenant(context, body)


@router.get("/tenants")
async def all_tenants(context: TenantContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE) -> Page[TenantItem]:
    """All tenants, oldest first; for a tenant's admin, its own."""
    return await tenants.list_tenants(context, after=cursor, size=size)


@router.get("/tenants/{tenant_id}")
async def one_tenant(tenant_id: TenantId, context: TenantContext) -> TenantItem:
    """A tenant, by its id."""
    return await tenants.find_tenant(context, tenant_id)


@router.put("/tenants/{tenant_id}/plan")
async def tenant_plan(tenant_id: TenantId, body: PlanChoice, context: PlatformContext) -> TenantItem:
    """Put a tenant on a plan, from now on."""
    return await tenants.change_plan(context, tenant_id, body)
