"""Charges: every live one is refreshed, and every other one whose link or QR code is paid while the charge isn't."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from billing.collection.collection import refresh_charge, refresh_charge_by_qr_code
from billing.collection.qr_codes import charge_named
from billing.context import BillingContext
from billing.models import Charge
from billing.models.states import ChargeState
from billing.razorpay.entities import QrCode
from billing.razorpay.errors import RazorpayRefused
from billing.reconciliation.report import RazorpayReport, for_each
from billing.reconciliation.windows import Window
from core.errors import NakaError

_SENT = (ChargeState.SUBMITTING, ChargeState.SUBMITTED)


async def compare_charges(context: BillingContext, found: RazorpayReport, since_ms: int) -> None:
    """Refreshes the charges of this time that Razorpay may have changed. Raises RazorpayError, Unavailable."""
    recent = Charge.created_ms >= since_ms
    async with context.database.session() as session:
        rows = (await session.execute(select(Charge.tenant_id, Charge.id).where(recent, Charge.state.in_(_SENT)))).all()
        found.count("charges", await session.scalar(select(func.count(Charge.id)).where(recent)) or 0)

    async def refresh(key: Any) -> None:
        await _refresh(context, found, *key)

    await for_each(rows, refresh)


async def compare_links(context: BillingContext, found: RazorpayReport, day: Window) -> None:
    """Refreshes charges that ended without the money, although their link of this day is paid."""
    async for page in context.razorpay.payment_link_pages(since=day.since, until=day.until):
        paid = {link.reference_id: link.status == "paid" for link in page if link.reference_id}
        async with context.database.session() as session:
            rows = list(await session.scalars(select(Charge).where(Charge.reference.in_(paid))))
        found.foreign += len(page) - len(rows)
        for row in rows:
            if paid[row.reference] and row.state not in (*_SENT, ChargeState.PAID):
                await _refresh(context, found, row.tenant_id, row.id)


async def compare_qr_codes(context: BillingContext, found: RazorpayReport, day: Window) -> None:
    """Applies codes of this day that are paid while their charge isn't, and those that a doubt left behind.

    One that was left behind may be paid, too, and its payment need not name the charge: it is applied each time.
    """
    async for page in context.razorpay.qr_code_pages(since=day.since, until=day.until):
        named = {code.id: charge_named(code) for code in page}
        async with context.database.session() as session:
            query = select(Charge).where(Charge.id.in_({one for one in named.values() if one is not None}))
            rows = {row.id: row for row in await session.scalars(query)}
        for code in page:
            charge_id = named[code.id]
            row = None if charge_id is None else rows.get(charge_id)
            if row is None:
                found.foreign += 1
                continue
            is_paid, is_own = code.payments_count_received > 0, code.id == row.razorpay_id
            is_left = not is_own and (code.status == "active" or is_paid)
            if is_left or (is_paid and row.state not in (*_SENT, ChargeState.PAID)):
                await _apply(context, found, row, code)


async def _apply(context: BillingContext, found: RazorpayReport, row: Charge, code: QrCode) -> None:
    await refresh_charge_by_qr_code(context, code)
    found.explain("charge", str(row.id))
    after = await context.read(Charge, row.tenant_id, row.id)
    if (after.state, after.razorpay_id) != (row.state, row.razorpay_id):
        found.heal("charge", str(row.id), f"{row.state} -> {after.state}")


async def _refresh(context: BillingContext, found: RazorpayReport, tenant_id: UUID, charge_id: UUID) -> None:
    before = await context.read(Charge, tenant_id, charge_id)
    try:
        await refresh_charge(context, tenant_id, charge_id)
    except (RazorpayRefused, NakaError) as error:
        found.leave("charge", str(charge_id), str(error))
        return
    found.explain("charge", str(charge_id))
    after = await context.read(Charge, tenant_id, charge_id)
    if (after.state, after.razorpay_id) != (before.state, before.razorpay_id):
        found.heal("charge", str(charge_id), f"{before.state} -> {after.state}")
