"""Razorpay's stored webhook events, for platform admins: an event may be of any tenant, or of none."""

from sqlalchemy import select

from api.schemas.billing.webhooks import EventDetail, EventItem
from api.schemas.pages import Page, page
from api.services.context import ServiceContext
from billing.models import WebhookEvent
from billing.models.states import EventState
from billing.webhooks import queries
from core.tenancy.principal import Scope

_MOST_AT_ONCE = 500


async def list_events(
    context: ServiceContext, *, state: str | None = None, before: str | None = None, size: int
) -> Page[EventItem]:
    """Events, newest first."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        rows = await queries.list_events(session, state=state, before=before, limit=size + 1)
    return page(rows, size, EventItem.of, lambda event: event.event_id)


async def find_event(context: ServiceContext, event_id: str) -> EventDetail:
    """An event with its body. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        return EventDetail.of(await queries.find_event(session, event_id))


async def replay_event(context: ServiceContext, event_id: str) -> EventItem:
    """Queues an event to be processed again; the entities it refers to are fetched again. Raises NotFound."""
    async with context.transaction(Scope.PLATFORM_ADMIN) as session:
        return EventItem.of(await queries.replay_event(session, context.actor, event_id))


async def replay_parked(context: ServiceContext) -> None:
    """Queues the oldest parked events, up to 500."""
    context.require(Scope.PLATFORM_ADMIN)
    parked = (
        select(WebhookEvent.event_id).where(WebhookEvent.state == EventState.PARKED).order_by(WebhookEvent.received_ms)
    )
    async with context.transaction() as session:
        for event_id in (await session.scalars(parked.limit(_MOST_AT_ONCE))).all():
            await queries.replay_event(session, context.actor, event_id)
