"""`naka subscription`: a tenant's subscriptions. The worker sends the operator's changes to Razorpay."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from api.cli.command import Answer, Call, Group
from api.cli.options import Reason, Tenant, tenant_name
from api.schemas.billing.subscriptions import SubscriptionItem
from api.services.billing import subscriptions
from api.services.context import ServiceContext
from core.figures import grouped

app = Group()
_COLUMNS = ("plan", "version", "state", "status", "amount", "paid_through", "ends_at", "payment_method", "error")


class Shown(SubscriptionItem):
    """A subscription with its amount in rupees."""

    amount: str

    @classmethod
    def from_item(cls, item: SubscriptionItem) -> "Shown":
        """The printed shape."""
        amount = f"{grouped(item.amount_paise // 100)}.{item.amount_paise % 100:02d}"
        return cls.model_construct(**item.model_dump(), amount=amount)


@app.answering("list", *_COLUMNS)
def list_all(tenant: Tenant) -> Call:
    """List a tenant's subscriptions, ended ones too."""

    async def listed(context: ServiceContext) -> Answer:
        return [Shown.from_item(item) for item in await subscriptions.list_of_tenant(context, tenant_name(tenant))]

    return listed


@app.answering("cancel", billing=True)
def cancel(
    tenant: Tenant,
    reason: Reason,
    *,
    now: Annotated[bool, typer.Option("--now", help="Now. The paid time is served either way.")] = False,
) -> Call:
    """Cancel a tenant's subscription at the end of its paid period."""
    name, at_period_end = tenant_name(tenant), not now
    return _shown(lambda context: subscriptions.cancel_for_tenant(context, name, reason, at_period_end=at_period_end))


@app.answering("pause", billing=True)
def pause(tenant: Tenant) -> Call:
    """Stop further charges until it is resumed; the paid time is served."""
    return _shown(lambda context: subscriptions.pause_for_tenant(context, tenant_name(tenant), resume=False))


@app.answering("resume", billing=True)
def resume(tenant: Tenant) -> Call:
    """Resume charges."""
    return _shown(lambda context: subscriptions.pause_for_tenant(context, tenant_name(tenant), resume=True))


def _shown(call: Callable[[ServiceContext], Awaitable[SubscriptionItem]]) -> Call:
    async def shown(context: ServiceContext) -> Answer:
        return Shown.from_item(await call(context))

    return shown
