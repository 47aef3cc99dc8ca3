"""Documents for money that was given back in Razorpay's dashboard, so that no tax stays payable on it.

A fee or a bill for usage gets a credit note, a top-up a refund voucher that takes the money out of the wallet. Each is
over what was refunded by hand beyond what the bill owed back anyway (a payment in excess, an earlier note whose own
refund failed). Each refund's finding is open until then; the whole is computed anew each time, so that a repetition
makes no second document. Postgres down: Unavailable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.catalogue.profiles import supply_from_json
from billing.context import BillingContext
from billing.documents.bill_lines import BasePrice, base_lines
from billing.findings.resolved import named_id
from billing.gst.tax import TaxLine, largest_net_of
from billing.invoicing.credit_notes import apply_note, credited_tax
from billing.invoicing.issuing import finalise, new_document
from billing.invoicing.prepaid_bills import issue_refund_voucher
from billing.models import Bill, BillingFinding, Payment, Plan, Refund
from billing.models.bills import SMALLEST_PAISE, balance_of
from billing.models.states import BillKind, RefundState
from billing.wallet.entries import lots_of
from billing.writes import for_each_key
from core.clock import now_ms

BY_HAND = "razorpay:"
"""Start of the cause of a refund that was made in Razorpay's dashboard."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a bill to give back: what is taxable, the rest as rounding, and `tax` as on the document: negative."""

    net_paise: int
    rounding_paise: int
    tax: Sequence[TaxLine]

    @classmethod
    def of(cls, total_paise: int, net_paise: int, tax: Sequence[TaxLine]) -> Self:
        """The part with this total."""
        return cls(net_paise, total_paise - net_paise + sum(line.tax_paise for line in tax), tax)


async def credit_refunds_by_hand(context: BillingContext) -> None:
    """Issues the documents that open findings of refunds by hand ask for; a failing one doesn't stop the others.

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
        .where(Bill.number.is_not(None), Refund.state == RefundState.PROCESSED)
    )
    await for_each_key(context, query, _credit_one, "refund_by_hand")


async def _credit_one(context: BillingContext, tenant_id: UUID, bill_id: UUID) -> None:
    async with context.tenant_transaction(tenant_id) as session:
        bill = await session.get_one(Bill, (tenant_id, bill_id))
        paise = min(await _given_back(session, bill), bill.total_paise - bill.credited_paise)
        if paise >= SMALLEST_PAISE:
            await _credit(session, context, bill, paise, now_ms())


async def _credit(session: AsyncSession, context: BillingContext, bill: Bill, paise: int, at_ms: int) -> None:
    of_bill = select(Bill).where(Bill.tenant_id == bill.tenant_id, Bill.refers_to == bill.id, Bill.number.is_not(None))
    earlier = (await session.scalars(of_bill)).all()
    whole = paise == bill.total_paise - bill.credited_paise
    part = _all_left(bill, earlier) if whole else _part(bill, earlier, paise)
    if bill.kind == BillKind.RECEIPT_VOUCHER:
        net_paise = part.net_paise + part.rounding_paise  # a wallet's money has no line after tax
        lot = next(one for one in await lots_of(session, bill.tenant_id) if one.bill_id == bill.id)
        await issue_refund_voucher(session, context, bill, lot, net_paise, part.tax, at_ms)
        await project(session, context.zone, bill.tenant_id, at_ms)
        return
    note = await new_document(
        session,
        bill,
        BillKind.CREDIT_NOTE,
        at_ms,
        supply=bill.supply,
        customer=bill.customer,
        supplier=bill.supplier,
        lines=await _lines(session, bill, part),
        taken={},  # the price of the period stays: what was given back is not billed again
        taxable_paise=-part.net_paise,
        tax=msgspec.to_builtins(part.tax),
        total_paise=-paise,
        refers_to=bill.id,
    )
    await finalise(session, context, note, at_ms)
    if bill.kind == BillKind.OVERAGE:
        note.reason = "The payment was refunded"
    await apply_note(session, bill, note, at_ms)


async def _lines(session: AsyncSession, bill: Bill, part: _Part) -> list[dict[str, Any]]:
    text = "Usage, refunded"
    if bill.kind == BillKind.BASE:
        text = (await session.get_one(Plan, (bill.plan_code, bill.plan_version))).name
    lines = base_lines(text, BasePrice(part.net_paise, part.rounding_paise))
    return [line | {"amount_paise": -line["amount_paise"]} for line in lines]


async def _given_back(session: AsyncSession, bill: Bill) -> int:
    """Paise of the bill's payments that were refunded by hand, beyond what the bill owed back anyway."""
    excess = select(func.coalesce(func.sum(Payment.excess_paise), 0))
    excess_paise = await session.scalar(excess.where(Payment.tenant_id == bill.tenant_id, Payment.bill_id == bill.id))
    owed_paise = int(excess_paise or 0) + max(0, -balance_of(bill))
    is_by_hand = (Refund.cause.startswith(BY_HAND), Refund.state == RefundState.PROCESSED)
    is_of_bill = or_(
        Refund.cause.startswith("excess:"),
        Refund.cause.startswith("extra:"),
        Refund.cause.startswith("wallet:"),
        and_(Refund.cause.startswith("credit:"), Refund.cause.contains(str(bill.id))),
    )
    is_ours = (is_of_bill, Refund.state.not_in((RefundState.FAILED, RefundState.VOID)))
    return await _refunded(session, bill, *is_by_hand) - max(0, owed_paise - await _refunded(session, bill, *is_ours))


async def _refunded(session: AsyncSession, bill: Bill, *which: ColumnElement[bool]) -> int:
    """The sum of these refunds of the bill's payments."""
    is_its = (Refund.tenant_id == Payment.tenant_id) & (Refund.payment_id == Payment.razorpay_id)
    query = select(func.coalesce(func.sum(Refund.amount_paise), 0)).join(Payment, is_its)
    return int(await session.scalar(query.where(Payment.bill_id == bill.id, *which)) or 0)


def _part(bill: Bill, earlier: Sequence[Bill], paise: int) -> _Part:
    """The largest net amount within the refund, its tax (at most what is left of the bill's), and the rest."""
    net_paise = largest_net_of(paise, supply_from_json(bill.supply))
    return _Part.of(paise, net_paise, [credited_tax(line, earlier, -net_paise, whole=False) for line in _tax(bill)])


def _all_left(bill: Bill, earlier: Sequence[Bill]) -> _Part:
    """The rest of the bill after earlier documents: net amount, rounding, and each tax."""
    net_paise = bill.taxable_paise + sum(one.taxable_paise for one in earlier)
    total_paise = bill.total_paise + sum(one.total_paise for one in earlier)
    return _Part.of(total_paise, net_paise, [credited_tax(line, earlier, 0, whole=True) for line in _tax(bill)])


def _tax(bill: Bill) -> list[TaxLine]:
    return msgspec.convert(bill.tax, list[TaxLine])
