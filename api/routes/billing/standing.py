"""Routes of the status of a tenant's money."""

from api.auth.access import TenantContext
from api.routes.billing.parameters import OwnContext
from api.routes.parameters import TenantId
from api.routes.route import admin_router, own_router
from api.schemas.billing.standing import AccountStatus
from api.services.billing import standing

router, own = admin_router(), own_router()


@router.get("/tenants/{tenant_id}/status")
async def tenant_status(tenant_id: TenantId, context: TenantContext) -> AccountStatus:
    """Show what a tenant owes, what is limited because of it, and what restores it."""
    return await standing.find_tenant_status(context, tenant_id)


@own.get("/status")
async def my_status(context: OwnContext) -> AccountStatus:
    """Show what the account owes, what is limited because of it, and what restores it."""
    return await standing.find_status(context)
