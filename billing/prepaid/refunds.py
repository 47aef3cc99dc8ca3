"""Refunds of money that the wallet has not used: a refund voucher for each top-up, and a refund of its payment.

Newest top-ups first. Credit is never refunded. Postgres down: Unavailable, and nothing is refunded.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.projection import project
from billing.context import BillingContext
from billing.gst.tax import TaxLine
from billing.invoicing.credit_notes import credited_tax
from billing.invoicing.prepaid_bills import issue_refund_voucher
from billing.models import Bill, Payment
from billing.models.bills import SMALLEST_PAISE
from billing.payments.refunds import request_refund
from billing.wallet.bounds import unused_paise
from billing.wallet.draw import Lot
from billing.wallet.entries import lots_of
from core.clock import now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor, record


async def refund_unused(
    context: BillingContext, actor: Actor, tenant_id: UUID, paise: int | None, *, reason: str
) -> Sequence[Bill]:
    """Refunds so much before tax, or all unused money. Returns the vouchers. Raises Conflict if there is less."""
    at_ms = now_ms()
    async with context.tenant_transaction(tenant_id) as session:
        lots = [lot for lot in await lots_of(session, tenant_id) if lot.is_money and lot.left_paise > 0]
        most = min(sum(lot.left_paise for lot in lots), await unused_paise(session, tenant_id, at_ms))
        wanted = most if paise is None else paise
        if not 0 < wanted <= most:
            raise Conflict(f"the wallet has {most} paise of unused money")
        made = []
        for lot in sorted(lots, key=lambda one: one.id, reverse=True):
            part = min(wanted, lot.left_paise)
            receipt = await session.get_one(Bill, (tenant_id, lot.bill_id))
            voucher = None if part <= 0 else await _refund(session, context, receipt, lot, part, at_ms)
            if voucher is not None:
                made.append(voucher)
                wanted -= part
        target, after = f"tenant:{tenant_id}", {"vouchers": [one.number for one in made], "reason": reason}
        record(session, actor, "wallet.refund", tenant_id=tenant_id, target=target, after=after)
        await project(session, context.zone, tenant_id, at_ms)
    return made


async def _refund(
    session: AsyncSession, context: BillingContext, receipt: Bill, lot: Lot, paise: int, at_ms: int
) -> Bill | None:
    """Refunds a part of a top-up with its tax; None if it is less than Razorpay moves."""
    query = select(Bill).where(Bill.tenant_id == receipt.tenant_id, Bill.refers_to == receipt.id)
    earlier = (await session.scalars(query)).all()
    tax = [
        credited_tax(line, earlier, -paise, whole=paise == lot.paise)
        for line in msgspec.convert(receipt.tax, list[TaxLine])
    ]
    if paise - sum(line.tax_paise for line in tax) < SMALLEST_PAISE:
        return None
    voucher = await issue_refund_voucher(session, context, receipt, lot, paise, tax, at_ms)
    await _send_back(session, context, receipt, voucher)
    return voucher


async def _send_back(session: AsyncSession, context: BillingContext, receipt: Bill, voucher: Bill) -> None:
    """Requests the refund of the payment that paid the top-up. One top-up has one payment: links take no parts."""
    query = select(Payment).where(
        Payment.tenant_id == receipt.tenant_id, Payment.bill_id == receipt.id, Payment.applied_paise > 0
    )
    payment = (await session.scalars(query.order_by(Payment.captured_ms))).first()
    if payment is None:
        raise Conflict(f"the payment of {receipt.number} is not known")
    cause = f"wallet:{voucher.id}"
    await request_refund(session, context, receipt.tenant_id, payment.razorpay_id, -voucher.total_paise, cause)
