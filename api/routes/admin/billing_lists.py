"""Subscriptions and alerts over all tenants; for a tenant's admin, its own."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy import select

from api.auth.access import RuntimeDep, TenantAdmin, tenant_filter
from api.routes.admin.scope import confine
from api.routes.alert_items import AlertItem
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.routes.subscription_items import SubscriptionItem
from api.schemas.pages import DEFAULT_SIZE, Page, page
from billing.models import Alert, Subscription

router = APIRouter()


class TenantSubscription(SubscriptionItem):
    """One of a tenant's; where it is to be authorised, only the tenant's own view says (`pay_url` is null here)."""

    tenant_id: UUID
    razorpay_id: str | None

    @classmethod
    def of_row(cls, row: Subscription) -> "TenantSubscription":
        """As it is answered."""
        shown = SubscriptionItem.of(row, "").model_dump() | {"pay_url": None, "checkout": None}
        return cls(**shown, tenant_id=row.tenant_id, razorpay_id=row.razorpay_id)


class TenantAlert(AlertItem):
    """One of a tenant's."""

    tenant_id: UUID

    @classmethod
    def of_row(cls, row: Alert) -> "TenantAlert":
        """As it is answered."""
        return cls(**AlertItem.of(row).model_dump(), tenant_id=row.tenant_id)


@router.get("/subscriptions")
async def all_subscriptions(
    principal: TenantAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[TenantSubscription]:
    """Subscriptions, newest first; those that ended, too."""
    query = select(Subscription).order_by(Subscription.id.desc()).limit(size + 1)
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        wanted = await confine(session, principal, tenant_id)
        query = query if wanted is None else query.where(Subscription.tenant_id == wanted)
        rows = (await session.scalars(query if cursor is None else query.where(Subscription.id < cursor))).all()
    return page(rows, size, TenantSubscription.of_row)


@router.get("/alerts")
async def all_alerts(
    principal: TenantAdmin,
    runtime: RuntimeDep,
    tenant_id: TenantWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[TenantAlert]:
    """Alerts, newest first."""
    query = select(Alert).order_by(Alert.id.desc()).limit(size + 1)
    async with runtime.database.session(tenant_id=tenant_filter(principal)) as session:
        wanted = await confine(session, principal, tenant_id)
        query = query if wanted is None else query.where(Alert.tenant_id == wanted)
        rows = (await session.scalars(query if cursor is None else query.where(Alert.id < cursor))).all()
    return page(rows, size, TenantAlert.of_row)
