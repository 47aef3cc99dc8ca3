"""What Razorpay told us, worked off: each thing that events point at is fetched once, and applied as it is now.

The rule: an event is claimed by a lease, which is committed before anything is asked, so that whoever is killed in the
middle leaves it to another; two workers never claim the same while a lease lasts, and were it to happen, it would
change nothing. An event that fails is tried six times, with pauses, and then parked with its reason and a finding;
Razorpay or a store away is no failure of an event for a day: it waits longer and longer. Postgres away: Unavailable,
and the next tick comes again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import select, update

from billing.context import DAY_MS, BillingContext, record_finding
from billing.models import WebhookEvent
from billing.razorpay.errors import RazorpayRefused, RazorpayThrottled, RazorpayUnavailable
from billing.webhooks.envelope import Envelope, Target, invoice_named, read_envelope, target_of
from billing.webhooks.handlers import Found, bring_up_to_date
from core.clock import now_ms
from core.errors import Unavailable
from core.logs import get_logger

LEASE_MS = 5 * 60_000
MAX_TRIES = 6
_PAUSES_MS = (5_000, 30_000, 120_000, 600_000, 3_600_000)
_SHORTEST_MS, _LONGEST_MS = 5_000, 600_000
_BATCH = 50
_AT_ONCE = 4  # half of the gateway's threads
_MAX_REASON = 500
_AWAY = (RazorpayUnavailable, RazorpayThrottled, Unavailable)
_NO_SUCH = frozenset({400, 404})

log = get_logger(__name__)


@dataclass
class _Group:
    """Events that point at one thing, and what they say besides."""

    events: list[tuple[WebhookEvent, Envelope]] = field(default_factory=list)

    @property
    def newest(self) -> Envelope:
        """By their own time, which is all that a picture without a fetch can be ordered by."""
        return max(self.events, key=lambda one: (one[1].created_at, one[0].received_ms))[1]

    @property
    def invoices(self) -> set[str]:
        """Those that any of them names."""
        named = (invoice_named(envelope) for _, envelope in self.events)
        return {one for one in named if one is not None}

    @property
    def rows(self) -> list[WebhookEvent]:
        """The events alone."""
        return [row for row, _ in self.events]


async def process_due(context: BillingContext) -> None:
    """The duty INBOX: works off every stored event that is due. Raises Unavailable."""
    while events := await _claim(context):
        slots = asyncio.Semaphore(_AT_ONCE)
        groups, lost = _grouped(events)
        await _park(context, lost, "it names nothing that could be looked at")
        try:
            async with asyncio.TaskGroup() as tasks:
                for target, group in groups.items():
                    tasks.create_task(_work_off(context, target, group, slots))
        except* Unavailable as away:
            raise Unavailable("the database does not answer") from away


async def _claim(context: BillingContext) -> Sequence[WebhookEvent]:
    """Some that are due, with a lease on them. Others' are passed over."""
    at_ms = now_ms()
    due = (
        select(WebhookEvent.event_id)
        .where(WebhookEvent.state == "received", WebhookEvent.due_ms <= at_ms)
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
    await _park(context, worn, "whoever worked it off died of it, or was cut short")
    return [event for event in claimed if event.tries <= MAX_TRIES] or (await _claim(context) if worn else [])


def _grouped(events: Sequence[WebhookEvent]) -> tuple[dict[Target, _Group], list[WebhookEvent]]:
    """By what they point at; and those that point at nothing."""
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


async def _work_off(context: BillingContext, target: Target, group: _Group, slots: asyncio.Semaphore) -> None:
    async with slots:
        try:
            found = await bring_up_to_date(context, target, group.newest.entity(target.subject), group.invoices)
        except _AWAY as error:
            await _put_off(context, group.rows, error)
        except RazorpayRefused as refused:
            if refused.status in _NO_SUCH:
                await _end(context, group.rows, "ignored", reason=f"Razorpay knows of no such thing: {refused}")
            else:
                await _put_off(context, group.rows, refused)  # our key is not good: no event's fault
        except Exception as error:  # one poisoned event must not stop the others
            log.exception("webhook_failed", subject=target.subject, events=[row.event_id for row in group.rows])
            await _fail(context, group.rows, error)
        else:
            await _settle(context, group.rows, found)


async def _settle(context: BillingContext, events: Sequence[WebhookEvent], found: Found) -> None:
    if found.ours:
        await _end(context, events, "applied", tenant_id=found.tenant_id)
    else:
        await _end(context, events, "ignored", reason="nothing of ours")


async def _end(
    context: BillingContext,
    events: Sequence[WebhookEvent],
    state: str,
    *,
    tenant_id: UUID | None = None,
    reason: str | None = None,
) -> None:
    """One that somebody has parked meanwhile stays so."""
    ids = [event.event_id for event in events]
    values = {"state": state, "ended_ms": now_ms(), "tenant_id": tenant_id, "reason": reason and reason[:_MAX_REASON]}
    async with context.database.session() as session:
        await session.execute(
            update(WebhookEvent)
            .where(WebhookEvent.event_id.in_(ids), WebhookEvent.state == "received")
            .values(values)
            .execution_options(synchronize_session=False)
        )


async def _park(context: BillingContext, events: Sequence[WebhookEvent], reason: str) -> None:
    if not events:
        return
    await _end(context, events, "parked", reason=reason)
    async with context.database.session() as session:
        for event in events:
            await record_finding(
                session, f"webhook:{event.event_id}", "webhook_parked", event_id=event.event_id, event=event.kind
            )
    log.warning("webhooks_parked", events=[event.event_id for event in events], reason=reason)


async def _put_off(context: BillingContext, events: Sequence[WebhookEvent], error: Exception) -> None:
    """Away: the longer it has lasted, the longer the pause. After a day it counts as a failure of theirs."""
    at_ms = now_ms()
    patient = [event for event in events if at_ms < event.received_ms + DAY_MS]
    for event in patient:
        pause_ms = min(max((at_ms - event.received_ms) // 4, _SHORTEST_MS), _LONGEST_MS)
        await _again(context, event, at_ms + pause_ms, event.tries - 1, error)
    await _fail(context, [event for event in events if event not in patient], error)


async def _fail(context: BillingContext, events: Sequence[WebhookEvent], error: Exception) -> None:
    """A failure of theirs: tried again some times, then parked."""
    worn = [event for event in events if event.tries >= MAX_TRIES]
    await _park(context, worn, _reason(error))
    for event in events:
        if event not in worn:
            await _again(context, event, now_ms() + _PAUSES_MS[event.tries - 1], event.tries, error)


async def _again(context: BillingContext, event: WebhookEvent, due_ms: int, tries: int, error: Exception) -> None:
    """One whose lease is another's by now is left to it."""
    async with context.database.session() as session:
        await session.execute(
            update(WebhookEvent)
            .where(WebhookEvent.event_id == event.event_id, WebhookEvent.state == "received")
            .where(WebhookEvent.due_ms == event.due_ms)
            .values(due_ms=due_ms, tries=tries, reason=_reason(error))
            .execution_options(synchronize_session=False)
        )


def _reason(error: Exception) -> str:
    """What went wrong, for an operator. A database's own words may quote a row, so that only their kind is kept."""
    kind = type(error).__name__
    said = str(error) if isinstance(error, (*_AWAY, RazorpayRefused)) else ""
    return f"{kind}: {said}"[:_MAX_REASON] if said else kind
