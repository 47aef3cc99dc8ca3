"""The things that events point at, brought up to date: each by a fetch, whatever the event itself says of it.

Every function says whose the thing is, or that it is none of ours. Razorpay away: raises RazorpayError; a store down:
Unavailable. Doing it again changes nothing more.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from billing.collection import charges
from billing.context import BillingContext
from billing.models import Charge, Subscription
from billing.payments import disputes, refunds
from billing.payments.payments import find_payment
from billing.razorpay.entities import Subscription as RazorpaySubscription
from billing.subscriptions import sync as mirror
from billing.subscriptions.orphans import adopt_or_dismiss
from billing.webhooks.envelope import Target
from core.errors import Unavailable


class ListLags(Unavailable):
    """Razorpay's list of invoices is behind what it says of the subscription: to be looked at again."""


@dataclass(frozen=True, slots=True)
class Found:
    """Whether the thing is ours, and whose; not known of one that bears our notes and was sent away."""

    ours: bool
    tenant_id: UUID | None = None


NOT_OURS = Found(ours=False)


async def bring_up_to_date(context: BillingContext, target: Target, shown: dict[str, Any], invoices: set[str]) -> Found:
    """`shown`: the newest event's own picture of the thing; `invoices`: those that the events named by the way."""
    match target.subject:
        case "subscription":
            return await _subscription(context, target.id, invoices)
        case "invoice":
            return await _invoice(context, target.id)
        case "payment_link":
            return await _link(context, target.id, shown)
        case "dispute":
            return await _dispute(context, shown)
        case "payment" | "refund":
            return await _payment(context, target.id)


async def _subscription(context: BillingContext, razorpay_id: str, invoices: set[str]) -> Found:
    found = await _known(context, razorpay_id)
    if found is None:
        fetched = await context.razorpay.fetch_subscription(razorpay_id)
        if not await adopt_or_dismiss(context, fetched):
            return NOT_OURS
        found = await _known(context, razorpay_id)
        if found is None:
            return Found(ours=True, tenant_id=_noted(fetched))
    if not await mirror.refresh(context, found.tenant_id, found.id, hints=invoices):
        raise ListLags("an invoice is missing from the list")
    return Found(ours=True, tenant_id=found.tenant_id)


async def _invoice(context: BillingContext, invoice_id: str) -> Found:
    invoice = await context.razorpay.fetch_invoice(invoice_id)
    if invoice.subscription_id is None:
        return NOT_OURS
    return await _subscription(context, invoice.subscription_id, {invoice.id})


async def _link(context: BillingContext, link_id: str, shown: dict[str, Any]) -> Found:
    reference = shown.get("reference_id")
    if not await charges.refresh_link(context, link_id, reference if isinstance(reference, str) else None):
        return NOT_OURS
    async with context.database.session() as session:
        query = select(Charge.tenant_id).where(Charge.razorpay_id == link_id)
        return Found(ours=True, tenant_id=await session.scalar(query))


async def _payment(context: BillingContext, payment_id: str) -> Found:
    """One that we know, with its refunds; or else what it paid for, which makes it known."""
    if not await refunds.refresh(context, payment_id):
        payment = await context.razorpay.fetch_payment(payment_id)
        if payment.invoice_id is not None:
            found = await _invoice(context, payment.invoice_id)
        else:
            found = Found(await charges.refresh_payment(context, payment))
        if not found.ours:
            return NOT_OURS
        await refunds.refresh(context, payment_id)
    async with context.database.session() as session:
        row = await find_payment(session, payment_id)
    return Found(ours=True, tenant_id=None if row is None else row.tenant_id)


async def _dispute(context: BillingContext, shown: dict[str, Any]) -> Found:
    """The SDK's own fetch is not among what is relied on: the newest event's picture is what there is."""
    payment_id = str(shown["payment_id"])
    if not await disputes.record(context, shown):
        found = await _payment(context, payment_id)  # its own event may be on its way still
        if not found.ours or not await disputes.record(context, shown):
            return NOT_OURS
    async with context.database.session() as session:
        row = await find_payment(session, payment_id)
    return Found(ours=True, tenant_id=None if row is None else row.tenant_id)


async def _known(context: BillingContext, razorpay_id: str) -> Subscription | None:
    async with context.database.session() as session:
        query = select(Subscription).where(Subscription.razorpay_id == razorpay_id)
        return (await session.scalars(query)).one_or_none()


def _noted(fetched: RazorpaySubscription) -> UUID:
    """`adopt_or_dismiss` said that it is ours, so its notes are good."""
    return UUID(fetched.notes["tenant_id"])
