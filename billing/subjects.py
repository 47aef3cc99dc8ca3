"""The things that events point at, brought up to date: each by a fetch, whatever the event itself says of it.

Every function says whose the thing is, or that it is none of ours. Razorpay away: raises RazorpayError; a store down:
Unavailable. Doing it again changes nothing more.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from billing import charges, disputes, mirror, refunds
from billing.desk import Desk
from billing.envelope import Target
from billing.extras import adopt_or_dismiss
from billing.models import Charge, Subscription
from billing.payments import find_payment
from billing.razorpay_entities import Subscription as RazorpaySubscription
from core.errors import Unavailable


class ListLags(Unavailable):
    """Razorpay's list of invoices is behind what it says of the subscription: to be looked at again."""


@dataclass(frozen=True, slots=True)
class Found:
    """Whether the thing is ours, and whose; not known of one that bears our notes and was sent away."""

    ours: bool
    tenant_id: UUID | None = None


NOT_OURS = Found(ours=False)


async def bring_up_to_date(desk: Desk, target: Target, shown: dict[str, Any], invoices: set[str]) -> Found:
    """`shown`: the newest event's own picture of the thing; `invoices`: those that the events named by the way."""
    match target.subject:
        case "subscription":
            return await _subscription(desk, target.id, invoices)
        case "invoice":
            return await _invoice(desk, target.id)
        case "payment_link":
            return await _link(desk, target.id, shown)
        case "dispute":
            return await _dispute(desk, shown)
        case "payment" | "refund":
            return await _payment(desk, target.id)


async def _subscription(desk: Desk, razorpay_id: str, invoices: set[str]) -> Found:
    found = await _known(desk, razorpay_id)
    if found is None:
        fetched = await desk.razorpay.fetch_subscription(razorpay_id)
        if not await adopt_or_dismiss(desk, fetched):
            return NOT_OURS
        found = await _known(desk, razorpay_id)
        if found is None:
            return Found(ours=True, tenant_id=_noted(fetched))
    if not await mirror.refresh(desk, found.tenant_id, found.id, hints=invoices):
        raise ListLags("an invoice is missing from the list")
    return Found(ours=True, tenant_id=found.tenant_id)


async def _invoice(desk: Desk, invoice_id: str) -> Found:
    invoice = await desk.razorpay.fetch_invoice(invoice_id)
    if invoice.subscription_id is None:
        return NOT_OURS
    return await _subscription(desk, invoice.subscription_id, {invoice.id})


async def _link(desk: Desk, link_id: str, shown: dict[str, Any]) -> Found:
    reference = shown.get("reference_id")
    if not await charges.refresh_link(desk, link_id, reference if isinstance(reference, str) else None):
        return NOT_OURS
    async with desk.database.session() as session:
        query = select(Charge.tenant_id).where(Charge.razorpay_id == link_id)
        return Found(ours=True, tenant_id=await session.scalar(query))


async def _payment(desk: Desk, payment_id: str) -> Found:
    """One that we know, with its refunds; or else what it paid for, which makes it known."""
    if not await refunds.refresh(desk, payment_id):
        payment = await desk.razorpay.fetch_payment(payment_id)
        if payment.invoice_id is not None:
            found = await _invoice(desk, payment.invoice_id)
        else:
            found = Found(await charges.refresh_payment(desk, payment))
        if not found.ours:
            return NOT_OURS
        await refunds.refresh(desk, payment_id)
    async with desk.database.session() as session:
        row = await find_payment(session, payment_id)
    return Found(ours=True, tenant_id=None if row is None else row.tenant_id)


async def _dispute(desk: Desk, shown: dict[str, Any]) -> Found:
    """The SDK's own fetch is not among what is relied on: the newest event's picture is what there is."""
    payment_id = str(shown["payment_id"])
    if not await disputes.record(desk, shown):
        found = await _payment(desk, payment_id)  # its own event may be on its way still
        if not found.ours or not await disputes.record(desk, shown):
            return NOT_OURS
    async with desk.database.session() as session:
        row = await find_payment(session, payment_id)
    return Found(ours=True, tenant_id=None if row is None else row.tenant_id)


async def _known(desk: Desk, razorpay_id: str) -> Subscription | None:
    async with desk.database.session() as session:
        query = select(Subscription).where(Subscription.razorpay_id == razorpay_id)
        return (await session.scalars(query)).one_or_none()


def _noted(fetched: RazorpaySubscription) -> UUID:
    """`adopt_or_dismiss` said that it is ours, so its notes are good."""
    return UUID(fetched.notes["tenant_id"])
