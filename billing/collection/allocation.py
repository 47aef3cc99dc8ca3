"""Allocation of captured payments to bills.

A payment is applied once, to the amount due first, whichever charge it came on and whatever that charge's state; only
the excess is refunded. `applied + excess = amount`, always. Everything runs in the caller's transaction under the
tenant's lock. Money that no bill explains is reported as a finding, never refunded automatically.
"""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.findings import record_finding
from billing.invoicing.issuing import issue_base
from billing.invoicing.prepaid_bills import settle_top_up
from billing.ledger.movements import payment_received
from billing.models import Bill, Charge, Payment, Subscription
from billing.models.bills import balance_of, due_of
from billing.models.states import CAPTURED, LIVE, UNANSWERED, BillKind, BillState, ChargeState, Instrument
from billing.payments.payments import record_payment
from billing.payments.refunds import request_refund
from billing.razorpay import entities
from core.clock import now_ms

_REFERENCE = re.compile(r"[0-9a-f]{32}-[0-9]{1,7}")


async def apply_link_payments(
    session: AsyncSession,
    context: BillingContext,
    charge: Charge,
    link: entities.PaymentLink,
    payments: Sequence[entities.Payment],
    now_ms: int,
) -> None:
    """Applies the payments of a link to its bill and refunds the excess. Idempotent; the lock is held.

    `link` and `payments` as fetched. The charge becomes paid when money came, and void when the link is gone.
    """
    charge = await session.get_one(Charge, (charge.tenant_id, charge.id))
    bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
    captured = await _apply_to_bill(session, context, charge, bill, payments, now_ms)
    charge.razorpay_id, charge.short_url = link.id, link.short_url
    charge.order_id, charge.checked_ms = link.order_id or charge.order_id, now_ms
    charge.expire_by_ms = link.expire_by * 1000 or charge.expire_by_ms
    if captured:
        _end(charge, ChargeState.PAID, None, now_ms)
    elif link.status in {"cancelled", "expired"} and charge.state in LIVE:
        _end(charge, ChargeState.VOID, charge.wanted_void or link.status, now_ms)
        enqueue_after_commit(session, COLLECT)
    elif charge.state in {*UNANSWERED, ChargeState.FAILED}:
        charge.state, charge.error, charge.ended_ms = ChargeState.SUBMITTED, None, None


async def apply_qr_code_payments(
    session: AsyncSession,
    context: BillingContext,
    charge: Charge,
    code: entities.QrCode,
    payments: Sequence[entities.Payment],
    now_ms: int,
) -> None:
    """Applies the payments of a QR code to the bill of its charge and refunds the excess. Idempotent; the lock is held.

    `code` and `payments` as fetched. The charge becomes paid when money came, and void when the code is closed without
    any. A second code, made after a doubt, only brings its money: the charge then follows its own code.
    """
    charge = await session.get_one(Charge, (charge.tenant_id, charge.id))
    bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
    captured = await _apply_to_bill(session, context, charge, bill, payments, now_ms)
    if charge.razorpay_id not in (None, code.id) or charge.instrument != Instrument.QR_CODE:
        return
    charge.razorpay_id, charge.short_url, charge.upi_link = code.id, code.image_url, code.upi_link
    charge.checked_ms, charge.expire_by_ms = now_ms, (code.close_by or 0) * 1000 or charge.expire_by_ms
    if captured:
        _end(charge, ChargeState.PAID, None, now_ms)
    elif code.status == "closed" and charge.state in LIVE:
        _end(charge, ChargeState.VOID, charge.wanted_void or code.close_reason or "expired", now_ms)
        enqueue_after_commit(session, COLLECT)
    elif charge.state in {*UNANSWERED, ChargeState.FAILED}:
        charge.state, charge.error, charge.ended_ms = ChargeState.SUBMITTED, None, None


async def apply_debit(
    session: AsyncSession, context: BillingContext, charge: Charge, payments: Sequence[entities.Payment], now_ms: int
) -> None:
    """Applies the payments of a debit's order to its bill and refunds the excess. Idempotent; the lock is held.

    `payments` as fetched. The charge becomes paid when money came, void when every attempt failed; otherwise Razorpay
    is still at it. Money that comes after all on a void charge is applied, too.
    """
    charge = await session.get_one(Charge, (charge.tenant_id, charge.id))
    bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
    captured = await _apply_to_bill(session, context, charge, bill, payments, now_ms)
    charge.checked_ms = now_ms
    if captured:
        charge.razorpay_id = captured[-1].id
        _end(charge, ChargeState.PAID, None, now_ms)
    elif payments and charge.state in LIVE:
        charge.razorpay_id = payments[-1].id
        if all(payment.status == "failed" for payment in payments):
            _end(charge, ChargeState.VOID, payments[-1].error_description or "the debit failed", now_ms)
            enqueue_after_commit(session, COLLECT)
        else:
            charge.state, charge.error = ChargeState.SUBMITTED, None


async def apply_invoice_payment(
    session: AsyncSession,
    context: BillingContext,
    subscription: Subscription,
    invoice: entities.Invoice,
    payment: entities.Payment,
    now_ms: int,
) -> None:
    """Applies a paid invoice: records the payment, issues the base bill as paid, pays the bills of its add-ons.

    Idempotent; the lock is held, and the caller projects afterwards. Money that is neither the base fee nor an add-on
    of ours is reported.
    """
    if payment.status not in CAPTURED:
        return
    tenant_id = subscription.tenant_id
    row, waits = await record_payment(session, tenant_id, payment, subscription_id=subscription.id)
    if not waits:
        return
    base = await issue_base(session, context, subscription, invoice, now_ms)
    row.bill_id, row.razorpay_invoice_id = base.id, invoice.id
    lines = [line for line in invoice.line_items if line.get("type") == "addon"]
    fee = max(0, payment.amount - sum(_amount(line) for line in lines))
    was_due = max(0, balance_of(base))
    applied, excess = min(fee, was_due), (0 if was_due else fee)  # the bill was paid before: a second payment of it
    base.paid_paise += applied
    if balance_of(base) <= 0:
        base.state, base.paid_ms = BillState.PAID, base.paid_ms or now_ms
    parts, left = [(base, applied)], payment.amount - applied - excess
    for line in lines:
        paise = min(_amount(line), left)
        bill, line_applied = await _apply_line(session, context, tenant_id, invoice, line, paise, now_ms)
        if bill is not None:
            parts.append((bill, line_applied))
            applied, excess, left = applied + line_applied, excess + paise - line_applied, left - paise
    row.applied_paise, row.excess_paise = applied, payment.amount - applied
    await session.flush()
    await payment_received(session, row, parts, now_ms)
    await _refund_excess(session, context, row, excess)
    short = max(0, was_due - fee)
    if left or short:
        key, detail = f"unexplained:{payment.id}", {"payment_id": payment.id, "invoice_id": invoice.id}
        kind = "payment_unexplained"
        await record_finding(session, key, kind, tenant_id=tenant_id, **detail, over=left, short=short)


async def refund_extra_payment(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, payment: entities.Payment
) -> None:
    """Records a payment for a superfluous subscription and refunds all of it. Idempotent; the lock is held."""
    if payment.status not in CAPTURED:
        return
    row, waits = await record_payment(session, tenant_id, payment)
    if waits:
        row.excess_paise = payment.amount
        await session.flush()
        await payment_received(session, row, (), now_ms())
        await _refund_excess(session, context, row, payment.amount, cause="extra")


async def _apply_to_bill(
    session: AsyncSession,
    context: BillingContext,
    charge: Charge,
    bill: Bill,
    payments: Sequence[entities.Payment],
    now_ms: int,
) -> Sequence[entities.Payment]:
    """Applies the captured payments of a charge, each once, and refunds the excess. Returns them, oldest first.

    Projects once if they pay the bill; what they pay is in the wallet by then, if it is a top-up.
    """
    captured = [payment for payment in payments if payment.status in CAPTURED]
    captured.sort(key=lambda one: (one.created_at, one.id))
    if captured and bill.kind == BillKind.RECEIPT_VOUCHER and bill.state == BillState.VOID:
        # Money came for a top-up that was given up: captured late, or the link was paid while it was cancelled.
        bill.state, bill.reason = BillState.OPEN, None
    was_due = due_of(bill)
    for payment in captured:
        row, waits = await record_payment(session, charge.tenant_id, payment, charge_id=charge.id)
        if waits:
            row.bill_id = bill.id
            row.applied_paise = await _pay(session, context, bill, payment.amount, now_ms)
            row.excess_paise = payment.amount - row.applied_paise
            await session.flush()
            await payment_received(session, row, [(bill, row.applied_paise)], now_ms)
            await _refund_excess(session, context, row, row.excess_paise)
    if was_due and not due_of(bill):
        await project(session, context.zone, bill.tenant_id, now_ms)
    return captured


async def _apply_line(
    session: AsyncSession,
    context: BillingContext,
    tenant_id: UUID,
    invoice: entities.Invoice,
    line: dict[str, Any],
    paise: int,
    now_ms: int,
) -> tuple[Bill | None, int]:
    """Applies an add-on's line of a paid invoice to its bill; no bill if the line isn't ours."""
    named = _REFERENCE.search(str(line.get("name") or ""))
    if named is None:
        return None, 0
    query = select(Charge).where(Charge.tenant_id == tenant_id, Charge.reference == named.group())
    charge = (await session.scalars(query)).one_or_none()
    if charge is None:
        return None, 0
    bill = await session.get_one(Bill, (tenant_id, charge.bill_id))
    applied = await _pay(session, context, bill, paise, now_ms)
    charge.razorpay_invoice_id = charge.razorpay_invoice_id or invoice.id
    _end(charge, ChargeState.PAID, None, now_ms)
    return bill, applied


async def _pay(session: AsyncSession, context: BillingContext, bill: Bill, paise: int, now_ms: int) -> int:
    """Applies up to `paise` to the bill and returns how much. A bill paid by it has its other charges cancelled.

    A top-up paid by it gets its number and its entry in the wallet. Project afterwards.
    """
    applied = min(paise, due_of(bill))
    if not applied:
        return 0
    bill.paid_paise += applied
    if due_of(bill) == 0:
        bill.state, bill.paid_ms = BillState.PAID, now_ms
        await session.flush()
        await session.execute(
            update(Charge)
            .where(Charge.tenant_id == bill.tenant_id, Charge.bill_id == bill.id, Charge.state.in_(LIVE))
            .where(or_(Charge.instrument == Instrument.PAYMENT_LINK, Charge.razorpay_invoice_id.is_(None)))
            .values(wanted_void="the bill is paid")
            .execution_options(synchronize_session="fetch")
        )
        enqueue_after_commit(session, COLLECT)
        if bill.kind == BillKind.RECEIPT_VOUCHER:
            await settle_top_up(session, context, bill, now_ms)
    return applied


async def _refund_excess(
    session: AsyncSession, context: BillingContext, row: Payment, paise: int, cause: str = "excess"
) -> None:
    """Requests a refund of the excess, less what was refunded already."""
    paise = min(paise, row.amount_paise - row.refunded_paise)
    if paise > 0:
        await session.flush()
        await request_refund(session, context, row.tenant_id, row.razorpay_id, paise, f"{cause}:{row.razorpay_id}")


def _end(charge: Charge, state: str, error: str | None, now_ms: int) -> None:
    if charge.state != state:
        charge.state, charge.error, charge.ended_ms = state, error, now_ms
    charge.wanted_void = None


def _amount(line: dict[str, Any]) -> int:
    amount = line.get("amount")
    return amount if isinstance(amount, int) else 0
