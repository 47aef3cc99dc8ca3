"""Routes of mandates: the operator's list and cancel, and a tenant's own."""

from api.auth.access import PlatformContext, TenantContext
from api.routes.billing.parameters import OwnContext
from api.routes.parameters import Cursor, PageSize, TenantId, TenantWanted
from api.routes.route import admin_router, own_router
from api.schemas.billing.decisions import Decision
from api.schemas.billing.mandates import MandateView, NewMandate, TenantMandate
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.billing import mandates

router, own = admin_router(), own_router("/mandate")


@router.get("/mandates")
async def all_mandates(
    context: TenantContext, tenant_id: TenantWanted = None, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[TenantMandate]:
    """List mandates, newest first; ended ones too."""
    return await mandates.list_mandates(context, tenant=tenant_id, before=cursor, size=size)


@router.post("/tenants/{tenant_id}/mandate/cancel")
async def cancel_tenant_mandate(tenant_id: TenantId, body: Decision, context: PlatformContext) -> TenantMandate:
    """Cancel a tenant's mandate: the one to authorise, if there is one, else the active one."""
    return await mandates.end_for_tenant(context, tenant_id, body.reason)


@own.get("")
async def my_mandate(context: OwnContext) -> MandateView:
    """Show the mandate that your bills are debited on, and the one to authorise."""
    return await mandates.find_mandate(context)


@own.post("", status_code=201)
async def new_mandate(body: NewMandate, context: OwnContext) -> MandateView:
    """Ask for a mandate. A repeated request returns the same one, with the `pay_url` to authorise it at.

    The active mandate serves until the new one is authorised. Without `pay_url` Razorpay hasn't answered yet: ask again
    in a minute.
    """
    return await mandates.register_mandate(context, body)


@own.post("/check")
async def check_mandate(context: OwnContext) -> MandateView:
    """Ask Razorpay for the state of the mandate, rather than wait for its webhook."""
    return await mandates.check_mandate(context)


@own.post("/cancel")
async def cancel_mandate(context: OwnContext) -> MandateView:
    """Cancel the mandate to authorise, if there is one, else the active one: bills come as payment links again."""
    return await mandates.end_mandate(context)
