"""Routes of charges, refunds, findings about money, and Razorpay's stored events, for platform admins."""

from api.auth.access import PlatformContext
from api.routes.billing.parameters import (
    BillWanted,
    ChargeStateWanted,
    Closed,
    EventCursor,
    EventName,
    EventStateWanted,
    FindingCursor,
    ItemId,
    RefundStateWanted,
)
from api.routes.parameters import Cursor, PageSize, TenantWanted
from api.routes.route import admin_router
from api.schemas.billing.collection import ChargeItem, FindingClose, FindingItem, RefundItem
from api.schemas.billing.decisions import Decision
from api.schemas.billing.webhooks import EventDetail, EventItem
from api.schemas.pages import DEFAULT_SIZE, Page
from api.services.billing import collection, webhooks

router = admin_router()


@router.get("/charges")
async def all_charges(
    *,
    context: PlatformContext,
    tenant_id: TenantWanted = None,
    bill_id: BillWanted = None,
    state: ChargeStateWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[ChargeItem]:
    """List attempts to collect bills, newest first."""
    return await collection.list_charges(
        context, tenant=tenant_id, bill_id=bill_id, state=state, before=cursor, size=size
    )


@router.post("/charges/{charge_id}/retry")
async def retry_charge(charge_id: ItemId, body: Decision, context: PlatformContext) -> ChargeItem:
    """Void a failed charge, so that the next one is created."""
    return await collection.retry_charge(context, charge_id, body.reason)


@router.get("/refunds")
async def all_refunds(
    context: PlatformContext,
    tenant_id: TenantWanted = None,
    state: RefundStateWanted = None,
    cursor: Cursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[RefundItem]:
    """List refunds, newest first."""
    return await collection.list_refunds(context, tenant=tenant_id, state=state, before=cursor, size=size)


@router.post("/refunds/{refund_id}/approve")
async def approve_refund(refund_id: ItemId, body: Decision, context: PlatformContext) -> RefundItem:
    """Approve a refund above the cap."""
    return await collection.decide_refund(context, refund_id, body.reason, approve=True)


@router.post("/refunds/{refund_id}/deny")
async def deny_refund(refund_id: ItemId, body: Decision, context: PlatformContext) -> RefundItem:
    """Deny a refund above the cap."""
    return await collection.decide_refund(context, refund_id, body.reason, approve=False)


@router.post("/refunds/{refund_id}/retry")
async def retry_refund(refund_id: ItemId, body: Decision, context: PlatformContext) -> RefundItem:
    """Send a failed refund again, as a new refund."""
    return await collection.send_refund_again(context, refund_id, body.reason)


@router.get("/findings")
async def all_findings(
    *,
    context: PlatformContext,
    closed: Closed = False,
    after: FindingCursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[FindingItem]:
    """List findings to review (disputes, failed refunds, extra subscriptions), newest first."""
    return await collection.list_findings(context, closed=closed, before=after, size=size)


@router.post("/findings/close")
async def close_one(body: FindingClose, context: PlatformContext) -> FindingItem:
    """Close a reviewed finding."""
    return await collection.close_finding(context, body.key, body.reason)


@router.get("/webhooks")
async def all_events(
    context: PlatformContext,
    state: EventStateWanted = None,
    cursor: EventCursor = None,
    size: PageSize = DEFAULT_SIZE,
) -> Page[EventItem]:
    """List Razorpay's events, newest first."""
    return await webhooks.list_events(context, state=state, before=cursor, size=size)


@router.get("/webhooks/{event_name}")
async def one_event(event_name: EventName, context: PlatformContext) -> EventDetail:
    """Show an event with its body."""
    return await webhooks.find_event(context, event_name)


@router.post("/webhooks/{event_name}/replay")
async def replay(event_name: EventName, context: PlatformContext) -> EventItem:
    """Process an event again: the entities it refers to are fetched again."""
    return await webhooks.replay_event(context, event_name)
