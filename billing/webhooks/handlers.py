"""Refreshing the entities that events name. Each is fetched; the event's own content is not trusted.

Every function returns the entity's tenant, or that it isn't ours. Idempotent. Razorpay down: raises RazorpayError;
Postgres down: Unavailable.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select

from billing.collection.collection import (
    refresh_charge_by_link,
    refresh_charge_by_payment,
    refresh_charge_by_qr_code,
)
from billing.context import BillingContext
from billing.mandates.sync import refresh_mandate_by_payment, refresh_registration, refresh_token
from billing.models import Charge
from billing.payments.disputes import record_dispute
from billing.payments.payments import find_payment
from billing.payments.refunds import refresh_refunds
from billing.payments.unplaced import report_unplaced
from billing.subscriptions.orphans import adopt_or_cancel
from billing.subscriptions.sync import find_subscription, refresh_subscription
from billing.webhooks.envelope import Target
from core.errors import Unavailable


class ListLags(Unavailable):
    """Razorpay's list of invoices lags behind its subscription; try again later."""


@dataclass(frozen=True, slots=True)
class Found:
    """Whether the entity is ours, and its tenant, if known."""

    ours: bool
    tenant_id: UUID | None = None


NOT_OURS = Found(ours=False)


async def refresh_target(context: BillingContext, target: Target, shown: dict[str, Any], invoices: set[str]) -> Found:
    """Refreshes one entity. `shown`: the newest event's copy of it; `invoices`: ids that the events mention."""
    match target.subject:
        case "subscription":
            found = await _subscription(context, target.id, invoices)
        case "invoice":
            found = await _invoice(context, target.id)
        case "payment_link":
            found = await _link(context, target.id, shown)
        case "qr_code":
            found = await _qr_code(context, target.id)
        case "dispute":
            found = await _dispute(context, target.id, shown)
        case "token":
            found = _of(await refresh_token(context, target.id))
        case "payment" | "refund" | "order":
            found = await _payment(context, target.id)
    return found


def _of(tenant_id: UUID | None) -> Found:
    return Found(ours=tenant_id is not None, tenant_id=tenant_id)


async def _subscription(context: BillingContext, razorpay_id: str, invoices: set[str]) -> Found:
    found = await find_subscription(context, razorpay_id)
    if found is None:
        fetched = await context.razorpay.fetch_subscription(razorpay_id)
        if not await adopt_or_cancel(context, fetched):
            return NOT_OURS
        found = await find_subscription(context, razorpay_id)
        if found is None:
            return Found(ours=True, tenant_id=UUID(fetched.notes["tenant_id"]))  # `adopt_or_cancel` has checked it
    if not await refresh_subscription(context, found.tenant_id, found.id, hints=invoices):
        raise ListLags("an invoice is missing from the list")
    return Found(ours=True, tenant_id=found.tenant_id)


async def _invoice(context: BillingContext, invoice_id: str) -> Found:
    invoice = await context.razorpay.fetch_invoice(invoice_id)
    if invoice.subscription_id is None:
        return _of(await refresh_registration(context, invoice.id))
    return await _subscription(context, invoice.subscription_id, {invoice.id})


async def _link(context: BillingContext, link_id: str, shown: dict[str, Any]) -> Found:
    reference = shown.get("reference_id")
    if not await refresh_charge_by_link(context, link_id, reference if isinstance(reference, str) else None):
        return NOT_OURS
    async with context.database.session() as session:
        query = select(Charge.tenant_id).where(Charge.razorpay_id == link_id)
        return Found(ours=True, tenant_id=await session.scalar(query))


async def _qr_code(context: BillingContext, qr_code_id: str) -> Found:
    code = await context.razorpay.fetch_qr_code(qr_code_id)
    tenant_id = await refresh_charge_by_qr_code(context, code)
    if tenant_id is None and code.notes:
        for payment in await context.razorpay.payments_of_qr_code(code.id):  # a payment may lack its code's notes
            await report_unplaced(context, msgspec.structs.replace(payment, notes=code.notes))
    return _of(tenant_id)


async def _payment(context: BillingContext, payment_id: str) -> Found:
    """Refreshes a known payment with its refunds, or else the invoice, link, debit or mandate that it was for."""
    if not await refresh_refunds(context, payment_id):
        payment = await context.razorpay.fetch_payment(payment_id)
        if payment.invoice_id is not None:
            found = await _invoice(context, payment.invoice_id)
        elif await refresh_charge_by_payment(context, payment):
            found = Found(ours=True)
        else:
            found = _of(await refresh_mandate_by_payment(context, payment))
        if not found.ours:
            await report_unplaced(context, payment)
            return NOT_OURS
        await refresh_refunds(context, payment_id)
    return await _found(context, payment_id)


async def _dispute(context: BillingContext, dispute_id: str, shown: dict[str, Any]) -> Found:
    """Stores the newest event's copy with what a fetch says: a dispute that was lost may be won later."""
    fetched = await context.razorpay.fetch_dispute(dispute_id)
    told = shown | {"id": fetched.id, "payment_id": fetched.payment_id}
    told |= {"amount": fetched.amount, "status": fetched.status}
    if not await record_dispute(context, told):
        found = await _payment(context, fetched.payment_id)  # the payment's own event may arrive later
        if not found.ours or not await record_dispute(context, told):
            return NOT_OURS
    return await _found(context, fetched.payment_id)


async def _found(context: BillingContext, payment_id: str) -> Found:
    async with context.database.session() as session:
        row = await find_payment(session, payment_id)
    return Found(ours=True, tenant_id=None if row is None else row.tenant_id)
