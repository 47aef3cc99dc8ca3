"""Alerts: what was passed, where it is sent, and how that went."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, StringConstraints
from sqlalchemy import select

from api.auth.access import RuntimeDep, TenantAdmin, actor_of
from api.routes.alert_items import AlertItem
from api.routes.parameters import Cursor, PageSize
from api.schemas.fields import EXAMPLE_ID, Body, example
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.alerts.alerts import send_test
from billing.alerts.endpoints import MAX_URL, find_endpoint, remove_endpoint, rotate_secret, set_endpoint, written
from billing.context import ALERTS
from billing.models import Alert, AlertDelivery
from core.clock import to_iso
from core.errors import NotFound

router = APIRouter(prefix="/alerts")

Url = Annotated[str, StringConstraints(min_length=8, max_length=MAX_URL, pattern=r"^https?://[!-~]+$")]
AlertId = Annotated[UUID, Path(examples=[EXAMPLE_ID])]


class NewEndpoint(Body):
    """Where alerts are POSTed to, in the form of Standard Webhooks (standardwebhooks.com)."""

    model_config = example(url="https://app.example.com/hooks/naka")

    url: Url


class EndpointItem(BaseModel):
    """`secret` is shown when it is made, and never again."""

    url: str
    enabled: bool
    secret: str | None = None


class DeliveryItem(BaseModel):
    """One try: the receiver's status, or why there is none."""

    attempt: int
    at: str
    status: int | None
    error: str | None
    took_ms: int


@router.get("")
async def my_alerts(
    principal: TenantAdmin, runtime: RuntimeDep, cursor: Cursor = None, size: PageSize = DEFAULT_SIZE
) -> Page[AlertItem]:
    """The tenant's alerts, newest first."""
    query = select(Alert).where(Alert.tenant_id == principal.tenant_id).order_by(Alert.id.desc()).limit(size + 1)
    if cursor is not None:
        query = query.where(Alert.id < cursor)
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        rows = (await session.scalars(query)).all()
    return page(rows, size, AlertItem.of, lambda row: str(row.id))


@router.get("/endpoint")
async def my_endpoint(principal: TenantAdmin, runtime: RuntimeDep) -> EndpointItem:
    """Where alerts are sent to."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        row = await find_endpoint(session, principal.tenant_id)
    return EndpointItem(url=row.url, enabled=row.enabled)


@router.put("/endpoint")
async def put_endpoint(
    body: NewEndpoint, principal: TenantAdmin, runtime: RuntimeDep, request: Request
) -> EndpointItem:
    """Set where alerts are sent to; the first time the answer has the secret that signs.

    One that was switched off is on again.
    """
    production = runtime.settings.naka_env == "production"
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        row, secret = await set_endpoint(
            session, actor_of(request, principal), principal.tenant_id, body.url, production=production
        )
    return EndpointItem(url=row.url, enabled=row.enabled, secret=None if secret is None else written(secret))


@router.post("/endpoint/rotate")
async def rotate_endpoint(principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> EndpointItem:
    """Make a new secret. The one before signs as well, until the next rotation."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        secret = await rotate_secret(session, actor_of(request, principal), principal.tenant_id)
        row = await find_endpoint(session, principal.tenant_id)
    return EndpointItem(url=row.url, enabled=row.enabled, secret=written(secret))


@router.delete("/endpoint", status_code=204)
async def delete_endpoint(principal: TenantAdmin, runtime: RuntimeDep, request: Request) -> None:
    """Send alerts nowhere any more."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        await remove_endpoint(session, actor_of(request, principal), principal.tenant_id)


@router.post("/endpoint/test", status_code=202)
async def test_endpoint(principal: TenantAdmin, runtime: RuntimeDep) -> AlertItem:
    """Send a test message (`alerts.test`); its delivery is in the log a moment later."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        await find_endpoint(session, principal.tenant_id)
        row = await send_test(session, principal.tenant_id)
    await runtime.billing.post([ALERTS])
    return AlertItem.of(row)


@router.get("/{alert_id}/deliveries")
async def my_deliveries(alert_id: AlertId, principal: TenantAdmin, runtime: RuntimeDep) -> list[DeliveryItem]:
    """Every try to deliver an alert."""
    async with runtime.database.session(tenant_id=principal.tenant_id) as session:
        if await session.get(Alert, (principal.tenant_id, alert_id)) is None:
            raise NotFound("no such alert")
        query = select(AlertDelivery).where(
            AlertDelivery.tenant_id == principal.tenant_id, AlertDelivery.alert_id == alert_id
        )
        rows = (await session.scalars(query.order_by(AlertDelivery.attempt))).all()
    return [
        DeliveryItem(attempt=row.attempt, at=to_iso(row.at_ms), status=row.status, error=row.error, took_ms=row.took_ms)
        for row in rows
    ]
