"""Routes of alerts: the operator's list; and a tenant's own, their endpoint and deliveries."""

from api.auth.access import TenantContext
from api.routes.billing.parameters import ItemId, OwnContext
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.routes.route import admin_router, own_router
from api.schemas.billing.alerts import AlertItem, DeliveryItem, EndpointItem, NewEndpoint, TenantAlert
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.billing import alerts

router, own = admin_router(), own_router("/alerts")


@router.get("/alerts")
async def all_alerts(
    context: TenantContext, tenant_id: TenantWanted = None, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[TenantAlert]:
    """List alerts, newest first."""
    return await alerts.list_alerts(context, tenant=tenant_id, before=cursor, size=size)


@own.get("")
async def my_alerts(context: OwnContext, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE) -> Page[AlertItem]:
    """List your alerts, newest first."""
    return await alerts.list_own_alerts(context, before=cursor, size=size)


@own.get("/endpoint")
async def my_endpoint(context: OwnContext) -> EndpointItem:
    """Show the URL that alerts are sent to."""
    return await alerts.find_endpoint(context)


@own.put("/endpoint")
async def put_endpoint(body: NewEndpoint, context: OwnContext) -> EndpointItem:
    """Set the URL that alerts are sent to, and enable it; the first answer has the secret that signs them."""
    return await alerts.set_endpoint(context, body)


@own.post("/endpoint/rotate")
async def rotate_endpoint(context: OwnContext) -> EndpointItem:
    """Create a new secret. The previous one signs too, until the next rotation."""
    return await alerts.rotate_secret(context)


@own.delete("/endpoint", status_code=204)
async def delete_endpoint(context: OwnContext) -> None:
    """Stop sending alerts."""
    await alerts.remove_endpoint(context)


@own.post("/endpoint/test", status_code=202)
async def test_endpoint(context: OwnContext) -> AlertItem:
    """Send a test message (`alerts.test`); its delivery is listed a moment later."""
    return await alerts.send_test(context)


@own.get("/{alert_id}/deliveries")
async def my_deliveries(alert_id: ItemId, context: OwnContext) -> list[DeliveryItem]:
    """List every attempt to deliver an alert."""
    return await alerts.list_deliveries(context, alert_id)
