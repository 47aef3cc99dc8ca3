"""Processing of stored events: each entity that events name is fetched once and applied.

An event is claimed by a lease, committed before any call, so another worker takes over after a crash. A failing event
is tried six times, with growing pauses, then parked with its reason and a finding. While Razorpay or a store is down,
an event waits for up to a day without counting as failed. Postgres down: Unavailable.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select, update

from billing.context import BillingContext
from billing.findings import record_finding
from billing.models import WebhookEvent
from billing.models.states import EventState
from billing.razorpay.errors import RazorpayRefused, RazorpayThrottled, RazorpayUnavailable
from billing.webhooks.envelope import Envelope, Target, invoice_named, read_envelope, target_of
from billing.webhooks.handlers import refresh_target
from core.clock import DAY_MS, now_ms
from core.errors import Unavailable
from core.logs import get_logger

LEASE_MS = 5 * 60_000
MAX_TRIES = 6
_PAUSES_MS = (5_000, 30_000, 120_000, 600_000, 3_600_000)
_SHORTEST_MS, _LONGEST_MS = 5_000, 600_000
_BATCH = 50
_AT_ONCE = 4  # half of the client's threads
_MAX_REASON = 500
_AWAY = (RazorpayUnavailable, RazorpayThrottled, Unavailable)

log = get_logger(__name__)


@dataclass
class _Group:
    """The events that name one entity."""

    events: list[tuple[WebhookEvent, Envelope]] = field(default_factory=list)

    @property
    def newest(self) -> Envelope:
        """The newest by the events' own times."""
        return max(self.events, key=lambda one: (one[1].created_at, one[0].received_ms))[1]

    @property
    def invoices(self) -> set[str]:
        """The invoices that any of them mentions."""
        named = (invoice_named(envelope) for _, envelope in self.events)
        return {one for one in named if one is not None}

    @property
    def rows(self) -> list[WebhookEvent]:
        """The stored events."""
        return [row for row, _ in self.events]


async def process_events(context: BillingContext) -> None:
    """The duty INBOX: processes every stored event that is due. Raises Unavailable."""
    while events := await _claim(context):
        slots = asyncio.Semaphore(_AT_ONCE)
        groups, lost = _grouped(events)
        await _park(context, lost, "names no entity that can be fetched")
        try:
            async with asyncio.TaskGroup() as tasks:
                for target, group in groups.items():
                    tasks.create_task(_process_group(context, target, group, slots))
        except* Unavailable as away:
            raise Unavailable("the database does not answer") from away


async def _claim(context: BillingContext) -> Sequence[WebhookEvent]:
    """Leases a batch of due events; those leased by others are skipped."""
    at_ms = now_ms()
    due = (
        select(WebhookEvent.event_id)
        .where(WebhookEvent.state == EventState.RECEIVED, WebhookEvent.due_ms <= at_ms)
        .order_by(WebhookEvent.due_ms, WebhookEvent.event_id)
        .limit(_BATCH)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    claim = (
        update(WebhookEvent)
        .where(WebhookEvent.event_id == due.c.event_id)
        .values(due_ms=at_ms + LEASE_MS, tries=WebhookEvent.tries + 1)
        .returning(WebhookEvent)
        .execution_options(synchronize_session=False)
    )
    async with context.database.session() as session:
        claimed = (await session.scalars(claim)).all()
    worn = [event for event in claimed if event.tries > MAX_TRIES]
    await _park(context, worn, "the worker was killed while processing it")
    return [event for event in claimed if event.tries <= MAX_TRIES] or (await _claim(context) if worn else [])


def _grouped(events: Sequence[WebhookEvent]) -> tuple[dict[Target, _Group], list[WebhookEvent]]:
    """The events by the entity that they name, and those that name none."""
    groups: dict[Target, _Group] = {}
    lost = []
    for event in events:
        envelope = read_envelope(event.body)
        target = target_of(envelope)
        if target is None:
            lost.append(event)
        else:
            groups.setdefault(target, _Group()).events.append((event, envelope))
    return groups, lost


async def _process_group(context: BillingContext, target: Target, group: _Group, slots: asyncio.Semaphore) -> None:
    async with slots:
        try:
            found = await refresh_target(context, target, group.newest.entity(target.subject), group.invoices)
        except _AWAY as error:
            await _put_off(context, group.rows, error)
        except RazorpayRefused as refused:
            if refused.is_unknown_id:
                await _end(context, group.rows, EventState.IGNORED, reason=f"unknown to Razorpay: {refused}")
            else:
                await _put_off(context, group.rows, refused)  # our key is refused, which isn't the event's fault
        except Exception as error:  # one poisoned event must not stop the others
            log.exception("webhook_failed", subject=target.subject, events=[row.event_id for row in group.rows])
            await _fail(context, group.rows, error)
        else:
            state, reason = (EventState.APPLIED, None) if found.ours else (EventState.IGNORED, "not ours")
            await _end(context, group.rows, state, tenant_id=found.tenant_id, reason=reason)


async def _end(
    context: BillingContext,
    events: Sequence[WebhookEvent],
    state: str,
    *,
    tenant_id: UUID | None = None,
    reason: str | None = None,
) -> None:
    """Ends received events; one that was parked meanwhile stays parked."""
    ids = [event.event_id for event in events]
    values = {"state": state, "ended_ms": now_ms(), "tenant_id": tenant_id, "reason": reason and reason[:_MAX_REASON]}
    async with context.database.session() as session:
        await session.execute(
            update(WebhookEvent)
            .where(WebhookEvent.event_id.in_(ids), WebhookEvent.state == EventState.RECEIVED)
            .values(values)
            .execution_options(synchronize_session=False)
        )


async def _park(context: BillingContext, events: Sequence[WebhookEvent], reason: str) -> None:
    if not events:
        return
    await _end(context, events, EventState.PARKED, reason=reason)
    async with context.database.session() as session:
        for event in events:
            await record_finding(
                session, f"webhook:{event.event_id}", "webhook_parked", event_id=event.event_id, event=event.kind
            )
    log.warning("webhooks_parked", events=[event.event_id for event in events], reason=reason)


async def _put_off(context: BillingContext, events: Sequence[WebhookEvent], error: Exception) -> None:
    """Postpones events while Razorpay or a store is down, with growing pauses; after a day they count as failed."""
    at_ms = now_ms()
    patient = [event for event in events if at_ms < event.received_ms + DAY_MS]
    for event in patient:
        pause_ms = min(max((at_ms - event.received_ms) // 4, _SHORTEST_MS), _LONGEST_MS)
        await _retry_at(context, event, at_ms + pause_ms, event.tries - 1, error)
    await _fail(context, [event for event in events if event not in patient], error)


async def _fail(context: BillingContext, events: Sequence[WebhookEvent], error: Exception) -> None:
    """Retries failed events up to MAX_TRIES, then parks them."""
    worn = [event for event in events if event.tries >= MAX_TRIES]
    await _park(context, worn, _reason(error))
    for event in events:
        if event not in worn:
            await _retry_at(context, event, now_ms() + _PAUSES_MS[event.tries - 1], event.tries, error)


async def _retry_at(context: BillingContext, event: WebhookEvent, due_ms: int, tries: int, error: Exception) -> None:
    """Schedules the next attempt, unless another worker holds the lease by now."""
    async with context.database.session() as session:
        await session.execute(
            update(WebhookEvent)
            .where(WebhookEvent.event_id == event.event_id, WebhookEvent.state == EventState.RECEIVED)
            .where(WebhookEvent.due_ms == event.due_ms)
            .values(due_ms=due_ms, tries=tries, reason=_reason(error))
            .execution_options(synchronize_session=False)
        )


def _reason(error: Exception) -> str:
    """The error for an operator. A database's message may quote a row, so only its class is kept."""
    kind = type(error).__name__
    said = str(error) if isinstance(error, (*_AWAY, RazorpayRefused)) else ""
    return f"{kind}: {said}"[:_MAX_REASON] if said else kind
