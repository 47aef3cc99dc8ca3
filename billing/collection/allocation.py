"""Money that came, applied to what it was for.

The rule: a payment is applied once (its row says to what), to the bill's due first, whichever attempt it came on and
whatever that attempt was thought to be; only what is too much is given back. `applied + excess = amount`, always.
Everything here runs in the caller's transaction under the tenant's lock, after the fetches; nothing calls Razorpay.
A payment whose every paisa is not explained (a line that is nobody's) is reported, and never given back by itself.
"""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import COLLECT, BillingContext, enqueue_after_commit, record_finding
from billing.invoicing.issuing import issue_base
from billing.models import Bill, Charge, Payment, Subscription
from billing.models.bills import LIVE, due_of
from billing.payments.payments import TAKEN, record_payment
from billing.payments.refunds import want
from billing.razorpay import entities

_REFERENCE = re.compile(r"[0-9a-f]{32}-[0-9]{1,7}")


async def take_link(
    session: AsyncSession,
    context: BillingContext,
    charge: Charge,
    link: entities.PaymentLink,
    payments: Sequence[entities.Payment],
    now_ms: int,
) -> None:
    """What was paid on a link, applied to its bill; what is too much is given back. Idempotent; the lock is held.

    `link` and `payments` as fetched. The charge follows: paid when money came, void when the link is gone.
    """
    charge = await session.get_one(Charge, (charge.tenant_id, charge.id))
    bill = await session.get_one(Bill, (charge.tenant_id, charge.bill_id))
    taken = [payment for payment in payments if payment.status in TAKEN]
    for payment in sorted(taken, key=lambda one: (one.created_at, one.id)):
        row, waits = await record_payment(session, charge.tenant_id, payment, charge_id=charge.id)
        if waits:
            row.bill_id = bill.id
            row.applied_paise = await _pay(session, context, bill, payment.amount, now_ms)
            row.excess_paise = payment.amount - row.applied_paise
            await _give_back(session, context, row, row.excess_paise)
    charge.razorpay_id, charge.short_url = link.id, link.short_url
    charge.order_id, charge.checked_ms = link.order_id or charge.order_id, now_ms
    charge.expire_by_ms = link.expire_by * 1000 or charge.expire_by_ms
    if taken:
        _end(charge, "paid", None, now_ms)
    elif link.status in {"cancelled", "expired"} and charge.state in LIVE:
        _end(charge, "void", charge.wanted_void or link.status, now_ms)
        enqueue_after_commit(session, COLLECT)
    elif charge.state in {"intended", "submitting", "failed"}:
        charge.state, charge.error, charge.ended_ms = "submitted", None, None


async def take_invoice(
    session: AsyncSession,
    context: BillingContext,
    subscription: Subscription,
    invoice: entities.Invoice,
    payment: entities.Payment,
    now_ms: int,
) -> None:
    """A paid invoice of a subscription: records the payment, issues the base bill as paid, pays the add-ons' charges.

    Idempotent; the lock is held. Money that is not the base fee and not an add-on of ours is reported.
    """
    if payment.status not in TAKEN:
        return
    tenant_id = subscription.tenant_id
    row, waits = await record_payment(session, tenant_id, payment, subscription_id=subscription.id)
    if not waits:
        return
    base = await issue_base(session, context, subscription, invoice, now_ms)
    row.bill_id, row.razorpay_invoice_id = base.id, invoice.id
    lines = [line for line in invoice.line_items if line.get("type") == "addon"]
    fee = max(0, payment.amount - sum(_amount(line) for line in lines))
    was_due = max(0, base.total_paise - base.credited_paise - base.paid_paise)
    applied, too_much = min(fee, was_due), (0 if was_due else fee)  # paid before: this is a second payment of it
    base.paid_paise += applied
    if base.paid_paise >= base.total_paise - base.credited_paise:
        base.state, base.paid_ms = "paid", base.paid_ms or now_ms
    left = payment.amount - applied - too_much
    for line in lines:
        for_bill, over = await _take_line(session, context, tenant_id, invoice, line, min(_amount(line), left), now_ms)
        applied, too_much, left = applied + for_bill, too_much + over, left - for_bill - over
    row.applied_paise, row.excess_paise = applied, payment.amount - applied
    await _give_back(session, context, row, too_much)
    short = max(0, was_due - fee)
    if left or short:
        kind, found = "payment_unexplained", {"payment_id": payment.id, "invoice_id": invoice.id}
        await record_finding(
            session, f"unexplained:{payment.id}", kind, tenant_id=tenant_id, **found, over=left, short=short
        )


async def record_extra(
    session: AsyncSession, context: BillingContext, tenant_id: UUID, payment: entities.Payment, now_ms: int
) -> None:
    """A payment for a subscription that should not be: recorded, and all of it given back. Idempotent; lock held."""
    del now_ms
    if payment.status not in TAKEN:
        return
    row, waits = await record_payment(session, tenant_id, payment)
    if waits:
        row.excess_paise = payment.amount
        await _give_back(session, context, row, payment.amount, cause="extra")


async def _take_line(
    session: AsyncSession,
    context: BillingContext,
    tenant_id: UUID,
    invoice: entities.Invoice,
    line: dict[str, Any],
    paise: int,
    now_ms: int,
) -> tuple[int, int]:
    """An add-on on a paid invoice: what its bill took of it, and what was too much. (0, 0) for one that is not ours."""
    named = _REFERENCE.search(str(line.get("name") or ""))
    if named is None:
        return 0, 0
    query = select(Charge).where(Charge.tenant_id == tenant_id, Charge.reference == named.group())
    charge = (await session.scalars(query)).one_or_none()
    if charge is None:
        return 0, 0
    bill = await session.get_one(Bill, (tenant_id, charge.bill_id))
    applied = await _pay(session, context, bill, paise, now_ms)
    charge.razorpay_invoice_id = charge.razorpay_invoice_id or invoice.id
    _end(charge, "paid", None, now_ms)
    return applied, paise - applied


async def _pay(session: AsyncSession, context: BillingContext, bill: Bill, paise: int, now_ms: int) -> int:
    """How much of it the bill takes. A bill that is paid by it wants no other attempt, and is no debt any more."""
    applied = min(paise, due_of(bill))
    if not applied:
        return 0
    bill.paid_paise += applied
    if due_of(bill) == 0:
        bill.state, bill.paid_ms = "paid", now_ms
        await session.flush()
        await session.execute(
            update(Charge)
            .where(Charge.tenant_id == bill.tenant_id, Charge.bill_id == bill.id, Charge.state.in_(LIVE))
            .where(or_(Charge.instrument == "payment_link", Charge.razorpay_invoice_id.is_(None)))
            .values(wanted_void="the bill is paid")
            .execution_options(synchronize_session="fetch")
        )
        enqueue_after_commit(session, COLLECT)
        await project(session, context.zone, bill.tenant_id, now_ms)
    return applied


async def _give_back(
    session: AsyncSession, context: BillingContext, row: Payment, paise: int, cause: str = "excess"
) -> None:
    """Wants what is too much back at the payer, but what somebody gave back already."""
    paise = min(paise, row.amount_paise - row.refunded_paise)
    if paise > 0:
        await session.flush()
        await want(session, context, row.tenant_id, row.razorpay_id, paise, f"{cause}:{row.razorpay_id}")


def _end(charge: Charge, state: str, error: str | None, now_ms: int) -> None:
    if charge.state != state:
        charge.state, charge.error, charge.ended_ms = state, error, now_ms
    charge.wanted_void = None


def _amount(line: dict[str, Any]) -> int:
    amount = line.get("amount")
    return amount if isinstance(amount, int) else 0
