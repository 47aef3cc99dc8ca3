"""`naka charge`, `naka refund`, `naka finding`, `naka webhook`: money that moves, and Razorpay's events about it."""

from typing import Annotated
from uuid import UUID

import typer

from api.cli.command import Call, Group
from api.cli.options import IN_STATE, Limit, OfTenant, Reason, tenant_or_all
from api.schemas.billing.collection import FindingClose
from api.schemas.billing.decisions import Decision
from api.schemas.billing.webhooks import EventState
from api.services.billing import collection, webhooks
from billing.models.states import ChargeState, RefundState

charge_app = Group()
refund_app = Group()
finding_app = Group()
webhook_app = Group()

ChargeId = Annotated[UUID, typer.Argument(metavar="CHARGE", help="The charge's id.")]
RefundId = Annotated[UUID, typer.Argument(metavar="REFUND", help="The refund's id.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The finding's key.")]
Closed = Annotated[bool, typer.Option("--closed", help="Closed findings instead of open ones.")]
EventName = Annotated[str, typer.Argument(metavar="EVENT", help="The event's id.")]


@charge_app.answering("list", "id", "tenant_id", "bill_id", "attempt", "instrument", "state", "amount_paise", "error")
def charges(tenant: OfTenant = None, state: Annotated[ChargeState | None, IN_STATE] = None, most: Limit = 50) -> Call:
    """List charges, newest first."""
    return lambda context: collection.list_charges(context, tenant=tenant_or_all(tenant), state=state, size=most)


@charge_app.answering("retry", billing=True)
def try_again(charge: ChargeId, reason: Reason) -> Call:
    """Void a failed charge, so that the next one is created."""
    why = Decision(reason=reason).reason
    return lambda context: collection.retry_charge(context, charge, why)


@refund_app.answering("list", "id", "tenant_id", "payment_id", "amount_paise", "cause", "state", "error")
def refunds(tenant: OfTenant = None, state: Annotated[RefundState | None, IN_STATE] = None, most: Limit = 50) -> Call:
    """List refunds, newest first."""
    return lambda context: collection.list_refunds(context, tenant=tenant_or_all(tenant), state=state, size=most)


@refund_app.answering("approve", billing=True)
def approve(refund: RefundId, reason: Reason) -> Call:
    """Approve a refund above the cap."""
    why = Decision(reason=reason).reason
    return lambda context: collection.decide_refund(context, refund, why, approve=True)


@refund_app.answering("deny", billing=True)
def deny(refund: RefundId, reason: Reason) -> Call:
    """Deny a refund above the cap."""
    why = Decision(reason=reason).reason
    return lambda context: collection.decide_refund(context, refund, why, approve=False)


@refund_app.answering("retry", billing=True)
def send_again(refund: RefundId, reason: Reason) -> Call:
    """Send a failed refund again, as a new refund."""
    why = Decision(reason=reason).reason
    return lambda context: collection.send_refund_again(context, refund, why)


@finding_app.answering("list", "key", "kind", "tenant_id", "seen_at", "detail")
def findings(most: Limit = 50, *, closed: Closed = False) -> Call:
    """List findings to review, newest first."""
    return lambda context: collection.list_findings(context, closed=closed, size=most)


@finding_app.answering("close")
def close(key: Key, reason: Reason) -> Call:
    """Close a reviewed finding."""
    asked = FindingClose(key=key, reason=reason)
    return lambda context: collection.close_finding(context, asked.key, asked.reason)


@webhook_app.answering("list", "id", "kind", "state", "tries", "received_at", "tenant_id", "reason")
def events(state: Annotated[EventState | None, IN_STATE] = None, most: Limit = 50) -> Call:
    """List events, newest first."""
    return lambda context: webhooks.list_events(context, state=state, size=most)


@webhook_app.answering("show")
def show_event(event: EventName) -> Call:
    """Show an event with its body."""
    return lambda context: webhooks.find_event(context, event)


@webhook_app.answering("replay")
def replay(event: EventName) -> Call:
    """Have the worker process an event again."""
    return lambda context: webhooks.replay_event(context, event)
