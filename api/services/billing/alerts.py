"""Alerts: the list, the endpoint that receives them, and their deliveries."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select

from api.schemas.billing.alerts import AlertItem, DeliveryItem, EndpointItem, NewEndpoint, TenantAlert
from api.schemas.pages import Page
from api.services.accounts.lookups import list_newest, own_tenant
from api.services.context import ServiceContext
from billing.alerts import alerts, endpoints
from billing.context import ALERTS
from billing.models import Alert, AlertDelivery, AlertEndpoint
from core.errors import NotFound


async def list_alerts(
    context: ServiceContext, *, tenant: UUID | None = None, before: UUID | None = None, size: int
) -> Page[TenantAlert]:
    """Alerts of every tenant unless one is named, newest first. Raises NotFound for the tenant."""
    return await list_newest(context, TenantAlert, Alert, tenant, before=before, size=size)


async def list_own_alerts(context: ServiceContext, *, before: UUID | None = None, size: int) -> Page[AlertItem]:
    """Alerts of the caller's tenant, newest first."""
    return await list_newest(context, AlertItem, Alert, own_tenant(context), before=before, size=size)


async def find_endpoint(context: ServiceContext) -> EndpointItem:
    """The endpoint of the caller's tenant. Raises NotFound before it is set."""
    async with context.transaction() as session:
        return _endpoint(await endpoints.find_endpoint(session, own_tenant(context)))


async def set_endpoint(context: ServiceContext, new: NewEndpoint) -> EndpointItem:
    """Sets the endpoint and enables it; the first time the answer has its secret. Raises Invalid."""
    tenant_id, production = own_tenant(context), context.settings.naka_env == "production"
    async with context.transaction() as session:
        made = await endpoints.set_endpoint(session, context.actor, tenant_id, new.url, production=production)
    return _endpoint(*made)


async def rotate_secret(context: ServiceContext) -> EndpointItem:
    """Creates a new secret; the previous one signs too, until the next rotation. Raises NotFound."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        secret = await endpoints.rotate_secret(session, context.actor, tenant_id)
        return _endpoint(await endpoints.find_endpoint(session, tenant_id), secret)


async def remove_endpoint(context: ServiceContext) -> None:
    """Stops sending alerts. Raises NotFound."""
    async with context.transaction() as session:
        await endpoints.remove_endpoint(session, context.actor, own_tenant(context))


async def send_test(context: ServiceContext) -> AlertItem:
    """Sends a test message; its delivery is listed a moment later. Raises NotFound without an endpoint."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        await endpoints.find_endpoint(session, tenant_id)
        row = await alerts.send_test_alert(session, tenant_id)
    await context.billing.post([ALERTS])
    return AlertItem.of(row)


async def list_deliveries(context: ServiceContext, alert_id: UUID) -> list[DeliveryItem]:
    """Every attempt to deliver an alert, first to last. Raises NotFound."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        if await session.get(Alert, (tenant_id, alert_id)) is None:
            raise NotFound("no such alert")
    return (await deliveries_of(context, [alert_id])).get(alert_id, [])


async def deliveries_of(context: ServiceContext, alert_ids: Iterable[UUID]) -> dict[UUID, list[DeliveryItem]]:
    """The attempts of several alerts, by alert, first to last."""
    query = select(AlertDelivery).where(
        AlertDelivery.tenant_id == own_tenant(context), AlertDelivery.alert_id.in_(list(alert_ids))
    )
    found: dict[UUID, list[DeliveryItem]] = defaultdict(list)
    async with context.transaction() as session:
        for row in await session.scalars(query.order_by(AlertDelivery.attempt)):
            found[row.alert_id].append(DeliveryItem.of(row))
    return found


def _endpoint(row: AlertEndpoint, secret: bytes | None = None) -> EndpointItem:
    shown = None if secret is None else endpoints.encode_secret(secret)
    return EndpointItem(url=row.url, enabled=row.enabled, secret=shown)
