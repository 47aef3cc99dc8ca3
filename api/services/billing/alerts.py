"""Alerts: the list, the endpoint that receives them, and their deliveries."""

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from api.schemas.billing.alerts import AlertItem, DeliveryItem, EndpointItem, NewEndpoint, TenantAlert
from api.schemas.pages import Page
from api.services.accounts.lookups import list_newest, newest_page, own_tenant
from api.services.context import ServiceContext
from billing.alerts import alerts, endpoints
from billing.context import ALERTS
from billing.models import Alert, AlertDelivery, AlertEndpoint
from core.errors import NotFound


@dataclass(frozen=True, slots=True)
class AlertsDetail:
    """A page of alerts, the deliveries of each by its id, and the endpoint once it is set."""

    alerts: Page[AlertItem]
    deliveries: dict[UUID, list[DeliveryItem]]
    endpoint: EndpointItem | None


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
    tenant_id, production = own_tenant(context), context.settings.is_production
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
        return (await _deliveries(session, tenant_id, [alert_id])).get(alert_id, [])


async def describe_alerts(context: ServiceContext, *, before: UUID | None = None, size: int) -> AlertsDetail:
    """A page of alerts of the caller's tenant, newest first, with their deliveries, and the endpoint."""
    tenant_id = own_tenant(context)
    async with context.transaction() as session:
        found = await newest_page(session, AlertItem, Alert, before=before, size=size, tenant_id=tenant_id)
        endpoint = await session.get(AlertEndpoint, tenant_id)
        return AlertsDetail(
            alerts=found,
            endpoint=None if endpoint is None else _endpoint(endpoint),
            deliveries=await _deliveries(session, tenant_id, [alert.id for alert in found.items]),
        )


async def _deliveries(session: AsyncSession, tenant_id: UUID, alert_ids: list[UUID]) -> dict[UUID, list[DeliveryItem]]:
    """The attempts of several alerts, by alert, first to last."""
    query = select(AlertDelivery).where(AlertDelivery.tenant_id == tenant_id, AlertDelivery.alert_id.in_(alert_ids))
    found: dict[UUID, list[DeliveryItem]] = defaultdict(list)
    for row in await session.scalars(query.order_by(AlertDelivery.attempt)):
        found[row.alert_id].append(DeliveryItem.of(row))
    return found


def _endpoint(row: AlertEndpoint, secret: bytes | None = None) -> EndpointItem:
    shown = None if secret is None else endpoints.encode_secret(secret)
    return EndpointItem(url=row.url, enabled=row.enabled, secret=shown)
