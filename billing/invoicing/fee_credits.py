"""Credit notes for fees that were given back in Razorpay's dashboard, so that no tax stays payable on them.

The note is over what was refunded by hand beyond the payments' own excess, at most the fee. Each refund's finding is
open until then; the whole is computed anew each time, so that a repetition makes no second note. Postgres down:
Unavailable.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.catalogue.profiles import supply_from_json
from billing.context import BillingContext
from billing.documents.bill_lines import BasePrice, base_lines
from billing.findings.resolved import named_id
from billing.gst.tax import gross_of, largest_net_of, tax_on
from billing.invoicing.credit_notes import apply_note
from billing.invoicing.issuing import finalise, new_document
from billing.models import Bill, BillingFinding, Payment, Plan, Refund
from billing.models.bills import SMALLEST_PAISE
from billing.models.states import BillKind, RefundState
from billing.writes import for_each_key
from core.clock import now_ms

BY_HAND = "razorpay:"
"""Start of the cause of a refund that was made in Razorpay's dashboard."""


async def credit_refunded_fees(context: BillingContext) -> None:
    """Issues the notes that open findings of refunds by hand ask for; a failing one doesn't stop the others.

    Raises Unavailable.
    """
    refund = (Refund.tenant_id == BillingFinding.tenant_id) & (Refund.id == named_id("refund_id"))
    query = (
        select(Bill.tenant_id, Bill.id)
        .distinct()
        .select_from(BillingFinding)
        .join(Refund, refund)
        .join(Payment, (Payment.tenant_id == Refund.tenant_id) & (Payment.razorpay_id == Refund.payment_id))
        .join(Bill, (Bill.tenant_id == Payment.tenant_id) & (Bill.id == Payment.bill_id))
        .where(BillingFinding.kind == "refund_by_hand", BillingFinding.closed_ms.is_(None))
        .where(Bill.kind == BillKind.BASE, Refund.state == RefundState.PROCESSED)
    )
    await for_each_key(context, query, _credit_one, "fee_credit")


async def _credit_one(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    async with context.tenant_transaction(tenant_id) as session:
        await _credit(session, context, await session.get_one(Bill, (tenant_id, bill_id)))


async def _credit(session: AsyncSession, context: BillingContext, bill: Bill) -> None:
    paise = min(await _given_back(session, bill), bill.total_paise) - bill.credited_paise
    if paise < SMALLEST_PAISE:
        return
    plan = await session.get_one(Plan, (bill.plan_code, bill.plan_version))
    of_bill = select(Bill).where(Bill.tenant_id == bill.tenant_id, Bill.refers_to == bill.id, Bill.number.is_not(None))
    notes = (await session.scalars(of_bill)).all()
    whole = paise == bill.total_paise - bill.credited_paise
    price, tax = _all_left(bill, notes) if whole else _part(bill, paise)
    at_ms = now_ms()
    note = await new_document(
        session,
        bill,
        BillKind.CREDIT_NOTE,
        at_ms,
        supply=bill.supply,
        customer=bill.customer,
        supplier=bill.supplier,
        lines=[line | {"amount_paise": -line["amount_paise"]} for line in base_lines(plan.name, price)],
        taxable_paise=-price.net_paise,
        tax=[line | {"tax_paise": -line["tax_paise"]} for line in tax],
        total_paise=-paise,
        refers_to=bill.id,
    )
    await finalise(session, context, note, at_ms)
    await apply_note(session, bill, note, at_ms)


async def _given_back(session: AsyncSession, bill: Bill) -> int:
    """Paise of the bill's payments that were refunded by hand, beyond what had to be refunded anyway."""
    excess = select(func.coalesce(func.sum(Payment.excess_paise), 0))
    excess_paise = await session.scalar(excess.where(Payment.tenant_id == bill.tenant_id, Payment.bill_id == bill.id))
    is_by_hand = (Refund.cause.startswith(BY_HAND), Refund.state == RefundState.PROCESSED)
    is_of_excess = or_(Refund.cause.startswith("excess:"), Refund.cause.startswith("extra:"))
    is_ours = (is_of_excess, Refund.state.not_in((RefundState.FAILED, RefundState.VOID)))
    still_excess_paise = int(excess_paise or 0) - await _refunded(session, bill, *is_ours)
    return await _refunded(session, bill, *is_by_hand) - max(0, still_excess_paise)


async def _refunded(session: AsyncSession, bill: Bill, *which: ColumnElement[bool]) -> int:
    """The sum of these refunds of the bill's payments."""
    is_its = (Refund.tenant_id == Payment.tenant_id) & (Refund.payment_id == Payment.razorpay_id)
    query = select(func.coalesce(func.sum(Refund.amount_paise), 0)).join(Payment, is_its)
    return int(await session.scalar(query.where(Payment.bill_id == bill.id, *which)) or 0)


def _part(bill: Bill, paise: int) -> tuple[BasePrice, list[dict[str, Any]]]:
    """The largest net amount within the refund, its tax, and the rest as rounding."""
    supply = supply_from_json(bill.supply)
    net_paise = largest_net_of(paise, supply)
    tax = msgspec.to_builtins(tax_on(net_paise, supply))
    return BasePrice(net_paise, paise - gross_of(net_paise, supply)), tax


def _all_left(bill: Bill, notes: Sequence[Bill]) -> tuple[BasePrice, list[dict[str, Any]]]:
    """The rest of the bill after earlier notes: net amount, rounding, and each tax."""
    net_paise = bill.taxable_paise + sum(note.taxable_paise for note in notes)
    tax = [
        line | {"tax_paise": line["tax_paise"] + sum(note.tax[at]["tax_paise"] for note in notes)}
        for at, line in enumerate(bill.tax)
    ]
    total_paise = bill.total_paise + sum(note.total_paise for note in notes)
    rounding_paise = total_paise - net_paise - sum(line["tax_paise"] for line in tax)
    return BasePrice(net_paise, rounding_paise), tax
