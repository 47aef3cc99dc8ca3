"""The duty that collects open bills: creates missing charges, advances live ones, sends refunds, and closes findings.

Repeating a step is harmless: links are unique by reference; add-ons and debits are looked for first. A failing charge
doesn't stop the others. Razorpay down: the next run continues. Postgres down: Unavailable.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import or_, select

from billing.collection.addons import delete_addon, refresh_addon, submit_addon
from billing.collection.charges import claim_charge, create_charge, needs_attention, needs_charge
from billing.collection.mandate_debits import refresh_debit, submit_debit
from billing.collection.payment_links import apply_link, cancel_link, refresh_link, submit_link
from billing.collection.qr_codes import (
    apply_qr_code,
    charge_named,
    close_qr_code,
    find_qr_codes,
    refresh_qr_code,
    submit_qr_code,
)
from billing.context import BillingContext
from billing.findings.resolved import resolve_findings
from billing.invoicing.refunds_by_hand import credit_refunds_by_hand
from billing.models import Bill, Charge
from billing.models.states import LIVE, UNANSWERED, ChargeState, Instrument
from billing.payments.refunds import send_refunds
from billing.razorpay.entities import Payment, QrCode
from billing.writes import SUBMITTING, advance_all
from core.clock import now_ms
from core.errors import NotFound


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one instrument. `call_back` cancels what can be cancelled, and applies what a fetch then says."""

    submit: Callable[..., Awaitable[None]]
    refresh: Callable[[BillingContext, Charge], Awaitable[None]]
    call_back: Callable[[BillingContext, Charge], Awaitable[None]]


_STEPS: Mapping[str, Steps] = MappingProxyType(
    {
        Instrument.PAYMENT_LINK: Steps(submit_link, refresh_link, cancel_link),
        Instrument.QR_CODE: Steps(submit_qr_code, refresh_qr_code, close_qr_code),
        Instrument.ADDON: Steps(submit_addon, refresh_addon, delete_addon),
        Instrument.MANDATE: Steps(submit_debit, refresh_debit, refresh_debit),  # a debit can't be called back
    }
)


async def collect(context: BillingContext) -> None:
    """The duty COLLECT. Raises Unavailable."""
    async with context.database.session() as session:
        bills = (await session.execute(select(Bill.tenant_id, Bill.id).where(needs_charge()).order_by(Bill.id))).all()
    for tenant_id, bill_id in bills:
        await create_charge(context, tenant_id, bill_id)
    due = (
        select(Charge.tenant_id, Charge.id)
        .join(Bill, (Bill.tenant_id == Charge.tenant_id) & (Bill.id == Charge.bill_id))
        .where(needs_attention(now_ms()))
        .order_by(Charge.id)
    )
    await advance_all(context, due, advance_charge, Charge)
    await send_refunds(context)
    await credit_refunds_by_hand(context)
    async with context.database.session() as session:
        await resolve_findings(session, now_ms())


async def collect_bill(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    """Makes the next steps of one bill's collection now. Raises RazorpayError, Unavailable."""
    await create_charge(context, tenant_id, bill_id)
    query = select(Charge.id).where(Charge.tenant_id == tenant_id, Charge.bill_id == bill_id, Charge.state.in_(LIVE))
    async with context.database.session() as session:
        charge_id = await session.scalar(query)
    if charge_id is not None:
        await advance_charge(context, tenant_id, charge_id)


async def advance_charge(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> None:
    """Makes the next steps of a charge. Raises RazorpayError, Unavailable."""
    charge, was = await claim_charge(context, tenant_id, charge_id)
    steps = _STEPS[charge.instrument]
    if was in UNANSWERED:
        await steps.submit(context, charge, again=was == SUBMITTING)
        charge = await context.read(Charge, tenant_id, charge_id)
    elif was == ChargeState.SUBMITTED and charge.wanted_void is None:
        await steps.refresh(context, charge)
        charge = await context.read(Charge, tenant_id, charge_id)
    if charge.state == ChargeState.SUBMITTED and charge.wanted_void is not None:
        await steps.call_back(context, charge)


async def refresh_charge(context: BillingContext, tenant_id: UUID, charge_id: UUID) -> None:
    """Fetches the link, QR code, add-on or debit of a charge and applies it.

    A link whose creation is in doubt is looked up by its reference, and a QR code by its notes; such an add-on is left
    to the duty. Raises RazorpayError, Unavailable, NotFound.
    """
    async with context.database.session() as session:
        charge = await session.get(Charge, (tenant_id, charge_id))
    if charge is None:
        raise NotFound("no such charge")
    if charge.razorpay_id is not None:
        await _STEPS[charge.instrument].refresh(context, charge)
    elif charge.order_id is not None and charge.instrument == Instrument.MANDATE:
        await refresh_debit(context, charge)
    elif charge.instrument == Instrument.PAYMENT_LINK and charge.state == ChargeState.SUBMITTING:
        for link in await context.razorpay.find_payment_links(charge.reference):
            await refresh_charge_by_link(context, link.id, charge.reference)
    elif charge.instrument == Instrument.QR_CODE and charge.state == ChargeState.SUBMITTING:
        for code in await find_qr_codes(context, charge):
            await apply_qr_code(context, charge, code)


async def refresh_charge_by_link(context: BillingContext, link_id: str, reference: str | None = None) -> bool:
    """Refreshes the charge of a link, found by the link's id or our reference; False if the link isn't ours.

    A link whose creation was in doubt is adopted. Raises RazorpayError, Unavailable.
    """
    known = or_(Charge.razorpay_id == link_id, Charge.reference == (reference or ""))
    async with context.database.session() as session:
        query = select(Charge).where(known, Charge.instrument == Instrument.PAYMENT_LINK)
        found = (await session.scalars(query)).all()
    charge = next((one for one in found if one.razorpay_id == link_id), found[0] if found else None)
    if charge is None:
        return False
    link = await context.razorpay.fetch_payment_link(link_id)
    if charge.razorpay_id not in (None, link.id) or link.reference_id != charge.reference:
        return False
    if link.amount == charge.amount_paise:
        await apply_link(context, charge, link)
    return True


async def refresh_charge_by_qr_code(context: BillingContext, code: QrCode) -> UUID | None:
    """Refreshes the charge of a fetched QR code; returns its tenant, None if the code isn't ours.

    A code whose creation was in doubt is adopted. Raises RazorpayError, Unavailable.
    """
    charge_id = charge_named(code)
    known = Charge.razorpay_id == code.id if charge_id is None else Charge.id == charge_id
    async with context.database.session() as session:
        charge = (await session.scalars(select(Charge).where(known))).first()
    if charge is None:
        return None
    await apply_qr_code(context, charge, code)
    return charge.tenant_id


async def refresh_charge_by_payment(context: BillingContext, payment: Payment) -> bool:
    """Refreshes the charge whose link, QR code or debit a payment came on, found by its notes or order; False if none.

    This also finds money on a link that was believed gone. Raises RazorpayError, Unavailable.
    """
    charge_id = _uuid(payment.notes.get("charge"))
    known = Charge.order_id == payment.order_id if charge_id is None else Charge.id == charge_id
    if charge_id is None and payment.order_id is None:
        return False
    async with context.database.session() as session:
        charge = (await session.scalars(select(Charge).where(known))).first()
    if charge is None or charge.instrument == Instrument.ADDON:
        return False
    if charge.instrument == Instrument.QR_CODE:
        for code in await context.razorpay.qr_codes_of_payment(payment.id):  # a doubt may have left two
            await apply_qr_code(context, charge, code)
    await refresh_charge(context, charge.tenant_id, charge.id)
    return True


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
