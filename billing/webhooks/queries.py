"""Operators' queries of stored events: one, a page, a replay; and pruning of old ones.

A replay is harmless even for an applied event, since it only fetches the entity once more. Postgres down: Unavailable.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import INBOX
from billing.models import WebhookEvent
from billing.models.states import EventState
from core.clock import DAY_MS, now_ms
from core.errors import NotFound
from core.queue import post_with
from core.tenancy.audit import PLATFORM, Actor, record

KEPT_MS = 90 * DAY_MS
"""Razorpay's support resends events of up to 15 days."""


async def find_event(session: AsyncSession, event_id: str) -> WebhookEvent:
    """One event. Raises NotFound."""
    event = await session.get(WebhookEvent, event_id)
    if event is None:
        raise NotFound("no such event")
    return event


async def list_events(
    session: AsyncSession, *, state: str | None = None, before: str | None = None, limit: int
) -> Sequence[WebhookEvent]:
    """A page, newest first. `before`: the id of the last event seen."""
    order = (WebhookEvent.received_ms.desc(), WebhookEvent.event_id.desc())
    query = select(WebhookEvent).order_by(*order).limit(limit)
    if state is not None:
        query = query.where(WebhookEvent.state == state)
    if before is not None:
        last = select(WebhookEvent.received_ms, WebhookEvent.event_id).where(WebhookEvent.event_id == before)
        query = query.where(tuple_(WebhookEvent.received_ms, WebhookEvent.event_id) < last.scalar_subquery())
    return (await session.scalars(query)).all()


async def replay_event(session: AsyncSession, actor: Actor, event_id: str) -> WebhookEvent:
    """Processes an event again, whatever its state. Raises NotFound."""
    event = await session.get(WebhookEvent, event_id, with_for_update=True)
    if event is None:
        raise NotFound("no such event")
    before = {"state": event.state, "tries": event.tries, "reason": event.reason}
    event.state, event.tries, event.due_ms = EventState.RECEIVED, 0, now_ms()
    event.reason = event.ended_ms = None
    owner, target, after = event.tenant_id or PLATFORM, f"webhook:{event_id}", {"state": event.state}
    record(session, actor, "webhook.replay", tenant_id=owner, target=target, before=before, after=after)
    await post_with(session, INBOX)
    return event


async def prune_events(connection: Any) -> None:
    """Deletes applied and ignored events after 90 days; parked ones stay."""
    statement = "DELETE FROM webhook_events WHERE received_ms < $1 AND state IN ('applied', 'ignored')"
    await connection.execute(statement, now_ms() - KEPT_MS)
