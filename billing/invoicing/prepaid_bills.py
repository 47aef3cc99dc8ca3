"""Bills that the wallet pays at once, and the vouchers of the money in it.

A prepaid period's bill takes its price from the wallet in the transaction that numbers it: promotional credit reduces
its taxable value, money is an advance that was taxed when it came. So it is paid when it is issued, whatever its
amount, and no charge collects it. Everything runs under the tenant's lock.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from billing.context import BillingContext
from billing.documents.bill_lines import advance_lines, overage_lines, promotion_lines
from billing.gst.tax import TaxLine
from billing.invoicing.issuing import Parties, copied, give_number, new_document, totals_of
from billing.ledger.movements import document_issued, paid_from_wallet, returned_to_wallet
from billing.models import Bill, BillingPeriod
from billing.models.states import BillKind, BillState, WalletEntryKind
from billing.rating.overage import OverageBill
from billing.wallet.draw import Lot, Part, draw, total_of
from billing.wallet.entries import add_entry, lots_of, record_usage

AUTOMATIC = "automatic"
"""Reason of an open top-up that the tenant's mandate pays."""
BY_QR_CODE = "qr_code"
"""Reason of an open top-up that was asked for with a UPI QR code."""


async def bill_prepaid(
    session: AsyncSession,
    context: BillingContext,
    period: BillingPeriod,
    owed: OverageBill,
    parties: Parties,
    now_ms: int,
) -> Bill:
    """Issues a bill and pays it from the wallet. Its price is at most the balance (`billing.wallet.bounds`)."""
    parts = draw(await lots_of(session, period.tenant_id), owed.taxable_paise)
    promotion = owed.taxable_paise - total_of(parts, money=True)
    bill = await new_document(
        session,
        period,
        BillKind.OVERAGE,
        now_ms,
        lines=[*overage_lines(owed), *promotion_lines(promotion)],
        taken=msgspec.to_builtins(owed.taken),
        **totals_of(owed.taxable_paise - promotion, parties),
        **copied(parties),
    )
    await give_number(session, context, bill, now_ms)
    bill.state, bill.due_ms, bill.paid_ms, bill.paid_paise = BillState.PAID, now_ms, now_ms, bill.total_paise
    await session.flush()
    await document_issued(session, bill, now_ms)
    await record_usage(session, bill, parts, now_ms)
    await paid_from_wallet(session, bill, now_ms)
    return bill


async def give_back_to_wallet(session: AsyncSession, note: Bill, parts: Sequence[Part], now_ms: int) -> None:
    """Gives back to the wallet what a credit note took from a bill that the wallet paid; its tax is an advance's again.

    The note has been booked (`billing.invoicing.credit_notes.apply_note`).
    """
    await record_usage(session, note, parts, now_ms, back=True)
    await returned_to_wallet(session, note, now_ms)


async def settle_top_up(session: AsyncSession, context: BillingContext, bill: Bill, now_ms: int) -> None:
    """Numbers the receipt voucher of a paid top-up, and adds its amount to the wallet, once. Project afterwards."""
    await give_number(session, context, bill, now_ms)
    reference = f"top-up:{bill.id}"
    await add_entry(
        session, bill.tenant_id, WalletEntryKind.TOP_UP, bill.taxable_paise, reference, now_ms, bill_id=bill.id
    )
    await session.flush()
    await document_issued(session, bill, now_ms)


async def issue_refund_voucher(
    session: AsyncSession,
    context: BillingContext,
    receipt: Bill,
    lot: Lot,
    net_paise: int,
    tax: Sequence[TaxLine],
    now_ms: int,
) -> Bill:
    """Issues the voucher of a top-up's part that is given back, and takes it out of the wallet. Project afterwards.

    `tax` as on the voucher: negative. The lot, and the balance, become negative if so much is not left.
    """
    voucher = await new_document(
        session,
        receipt,
        BillKind.REFUND_VOUCHER,
        now_ms,
        supply=receipt.supply,
        customer=receipt.customer,
        supplier=receipt.supplier,
        lines=advance_lines(-net_paise),
        taken={},
        taxable_paise=-net_paise,
        tax=msgspec.to_builtins(tax),
        total_paise=-net_paise + sum(line.tax_paise for line in tax),
        refers_to=receipt.id,
    )
    await give_number(session, context, voucher, now_ms)
    voucher.state = BillState.ISSUED
    await session.flush()
    await document_issued(session, voucher, now_ms)
    receipt.credited_paise -= voucher.total_paise
    kind, reference = WalletEntryKind.REFUND, f"refund:{voucher.id}"
    await add_entry(session, receipt.tenant_id, kind, -net_paise, reference, now_ms, of_id=lot.id, bill_id=voucher.id)
    return voucher
