"""Issuing documents: numbering them, the bill of a cycle's fee, and the printable document of a bill.

A document is final once it has a number (`finalise`); after that only its paid and credited amounts change. One without
(`held`, `waived`) is a draft, which the next close of its period replaces. Everything runs under the tenant's lock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import cycle_name
from billing.access.periods import cycle_suffix, new_period
from billing.catalogue.profiles import get_profile, get_supplier, supply_between, supply_from_json, supply_to_json
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.documents.bill_lines import base_lines, price_base
from billing.documents.invoice import Document, DocumentLine, PaidNote, Party, written
from billing.documents.logo import read_logo
from billing.gst.invoice_numbers import Document as Kind
from billing.gst.invoice_numbers import day_in_india, series_of
from billing.gst.number_series import take_number
from billing.gst.rupees import rupees
from billing.gst.tax import EXPORT_ENDORSEMENT, Supply, TaxLine, Treatment, tax_on
from billing.invoicing.bill_list import live_charges
from billing.invoicing.carried import collect_remainders
from billing.ledger.movements import document_issued
from billing.models import Bill, BillingPeriod, Charge, Payment, Plan, Subscription
from billing.models.bills import SMALLEST_PAISE, due_of
from billing.models.states import BillKind, BillState, Instrument, PeriodKind
from billing.rating.overage import NOTHING_BILLED, AlreadyBilled
from billing.razorpay.entities import Invoice
from billing.wallet.entries import drawn_by
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7

_PRINTED = {
    BillKind.CREDIT_NOTE: Kind.CREDIT_NOTE,
    BillKind.RECEIPT_VOUCHER: Kind.RECEIPT_VOUCHER,
    BillKind.REFUND_VOUCHER: Kind.REFUND_VOUCHER,
}
_NEGATIVE = frozenset({Kind.CREDIT_NOTE, Kind.REFUND_VOUCHER})
_REASONS = {
    BillKind.BASE: "The fee was refunded",
    BillKind.OVERAGE: "The usage of the period was corrected after it was billed",
    BillKind.RECEIPT_VOUCHER: "Unused money of the wallet, given back",
}
"""Of a document that reduces another, by that one's kind."""


@dataclass(frozen=True, slots=True)
class Parties:
    """Supply, customer and supplier at the time of issue; copied onto the document."""

    supply: Supply
    customer: dict[str, Any]
    supplier: dict[str, Any]


async def parties_of(session: AsyncSession, tenant_id: UUID) -> Parties | None:
    """The current parties; None while a profile is missing or the two can't be combined."""
    try:
        return await _copy_parties(session, tenant_id)
    except (NotFound, Invalid):
        return None


async def finalise(session: AsyncSession, context: BillingContext, bill: Bill, now_ms: int) -> None:
    """Gives a bill its number, dates and state, and books it; waives one that is too small to collect.

    Locks the number's series until the commit. Raises WrongNumber when the clock went back over a year's end.
    """
    if bill.kind != BillKind.BASE and not collectable(bill.total_paise):
        bill.state, bill.reason = BillState.WAIVED, "less than a rupee"
        return
    await give_number(session, context, bill, now_ms)
    match bill.kind:
        case BillKind.CREDIT_NOTE:
            bill.state = BillState.ISSUED
        case BillKind.BASE:
            bill.state, bill.due_ms = BillState.OPEN, now_ms
        case _:
            bill.state, bill.due_ms = BillState.OPEN, now_ms + context.rules.pay_within_ms
            enqueue_after_commit(session, COLLECT)
    await session.flush()
    await document_issued(session, bill, now_ms)
    if bill.kind == BillKind.OVERAGE:
        await collect_remainders(session, bill, now_ms)


def collectable(total_paise: int) -> bool:
    """Whether Razorpay moves such an amount, in either direction."""
    return abs(total_paise) >= SMALLEST_PAISE


async def give_number(session: AsyncSession, context: BillingContext, bill: Bill, now_ms: int) -> None:
    """Numbers a document of any amount in its kind's series. Raises WrongNumber."""
    bill.number = str(await take_number(session, series_of(kind_of(bill), context.mode), now_ms))
    bill.issued_ms, bill.reason = now_ms, None


def kind_of(bill: Bill) -> Kind:
    """The kind of document that a bill is printed as."""
    return _PRINTED.get(BillKind(bill.kind), Kind.TAX_INVOICE)


async def new_document(
    session: AsyncSession, like: BillingPeriod | Bill, kind: BillKind, now_ms: int, **columns: Any
) -> Bill:
    """Stores a draft for the period of `like`: held, with its kind's next sequence number. `columns`: the others."""
    last = await session.scalar(
        select(func.max(Bill.seq)).where(
            Bill.tenant_id == like.tenant_id, Bill.period_id == like.period_id, Bill.kind == kind
        )
    )
    of_period = ("tenant_id", "period_id", "starts_ms", "ends_ms", "subscription_id", "plan_code", "plan_version")
    own = {"id": uuid7(now_ms), "kind": kind, "state": BillState.HELD, "seq": (last or 0) + 1, "created_ms": now_ms}
    bill = Bill(**{name: getattr(like, name) for name in of_period} | own | columns)
    session.add(bill)
    await session.flush()
    return bill


async def issue_base(
    session: AsyncSession, context: BillingContext, subscription: Subscription, invoice: Invoice, now_ms: int
) -> Bill:
    """Issues the bill of a cycle's fee, which a paid invoice of Razorpay's collected. Idempotent.

    Its total is exactly the amount collected for the plan, split by the profiles of its date into net amount and tax.
    It is `open` and due at once; the caller records the payment in the same transaction. Raises NotFound when a profile
    is missing, Invalid for an invoice without a cycle.
    """
    tenant_id = subscription.tenant_id
    known = await session.scalar(
        select(Bill).where(Bill.tenant_id == tenant_id, Bill.razorpay_invoice_id == invoice.id)
    )
    if known is not None:
        return known
    plan = await session.get_one(Plan, (subscription.plan_code, subscription.plan_version))
    parties = await _parties_of_fee(session, subscription)
    collected_paise = plan_paise(invoice)
    price = price_base(collected_paise, plan.base_paise, parties.supply)
    bill = await new_document(
        session,
        await _cycle_of(session, subscription, invoice, plan),
        BillKind.BASE,
        now_ms,
        starts_ms=(invoice.billing_start or 0) * 1000,
        ends_ms=(invoice.billing_end or 0) * 1000,
        plan_code=plan.code,
        plan_version=plan.version,
        lines=base_lines(plan.name, price),
        taxable_paise=price.net_paise,
        tax=msgspec.to_builtins(tax_on(price.net_paise, parties.supply)),
        total_paise=collected_paise,
        **copied(parties),
        razorpay_invoice_id=invoice.id,
    )
    await finalise(session, context, bill, now_ms)
    return bill


async def document_of(session: AsyncSession, context: BillingContext, bill: Bill) -> Document:
    """The printable document of a bill; a draft has no number. Raises Conflict for a bill without parties."""
    if not bill.supply:
        raise Conflict("the bill waits for a billing profile")
    supply = supply_from_json(bill.supply)
    kind = kind_of(bill)
    sign = -1 if kind in _NEGATIVE else 1  # a credit note and a refund voucher show positive amounts
    lines = tuple(DocumentLine.of(line) for line in bill.lines)
    tax = msgspec.convert(bill.tax, tuple[TaxLine, ...])
    plan = await session.get_one(Plan, (bill.plan_code, bill.plan_version))
    of = None if bill.refers_to is None else await session.get(Bill, (bill.tenant_id, bill.refers_to))
    charge = (await live_charges(session, [bill])).get(bill.id)
    return Document(
        kind=kind,
        mode=context.mode,
        number=bill.number or "DRAFT",
        issued_on=day_in_india(bill.issued_ms or bill.created_ms),
        due_on=None if bill.due_ms is None else day_in_india(bill.due_ms),
        supplier=msgspec.convert(bill.supplier, Party),
        customer=msgspec.convert(bill.customer, Party),
        sac=bill.supplier["sac"],
        place_of_supply=f"{supply.place_name} ({supply.place})",
        plan=f"{plan.name}, version {plan.version}",
        period=(day_in_india(bill.starts_ms), day_in_india(max(bill.starts_ms, bill.ends_ms - 1))),
        lines=tuple(replace(line, amount_paise=sign * line.amount_paise) for line in lines),
        taxable_paise=sign * bill.taxable_paise,
        tax=tuple(replace(line, tax_paise=sign * line.tax_paise) for line in tax),
        total_paise=sign * bill.total_paise,
        refers_to=() if of is None or of.number is None else (_named(of),),
        reason="" if of is None else bill.reason or _REASONS.get(BillKind(of.kind), ""),
        paid=await _paid(session, bill),
        pay_url=None if charge is None or not due_of(bill) else charge.short_url,
        due_paise=due_of(bill),
        carried_paise=max(0, -bill.carried_paise),
        logo=read_logo(context.settings.invoice_logo),
        notes=(*_notes(bill, supply, charge), *await _advances(session, bill)),
    )


def _named(bill: Bill) -> str:
    """Number and date, which a credit note must state (rule 53)."""
    return f"{bill.number} of {written(day_in_india(bill.issued_ms or bill.created_ms))}"


def _notes(bill: Bill, supply: Supply, charge: Charge | None) -> tuple[str, ...]:
    """Further notes on the document."""
    notes = []
    if supply.treatment is Treatment.EXPORT:
        notes.append(f"{EXPORT_ENDORSEMENT} (LUT {bill.supplier['lut_number']})")
    if charge is not None and charge.instrument == Instrument.ADDON:
        notes.append("Collected with the subscription: it is on the invoice after the next.")
    if charge is not None and charge.instrument == Instrument.MANDATE:
        notes.append("Debited by your mandate. Your bank or UPI app announces the debit a day before.")
    if bill.kind == BillKind.OVERAGE and bill.issued_ms is not None and bill.issued_ms < bill.ends_ms:
        notes.append("Usage up to the date of this invoice. Further usage of the period is on a later one.")
    return tuple(notes)


async def _advances(session: AsyncSession, bill: Bill) -> tuple[str, ...]:
    """The receipt vouchers that an invoice is adjusted against, each with the amount before tax that it drew."""
    parts = await drawn_by(session, bill, less_notes=False) if bill.kind == BillKind.OVERAGE else ()
    drawn = {part.lot.bill_id: part.paise for part in parts if part.lot.is_money}
    if not drawn:
        return ()
    query = select(Bill).where(Bill.tenant_id == bill.tenant_id, Bill.id.in_(drawn)).order_by(Bill.issued_ms, Bill.id)
    return tuple(
        f"Adjusted against advance: {voucher.number} of {written(day_in_india(voucher.issued_ms or 0))}, "
        f"{rupees(drawn[voucher.id])} before tax"
        for voucher in await session.scalars(query)
    )


async def _paid(session: AsyncSession, bill: Bill) -> PaidNote | None:
    if bill.state != BillState.PAID or bill.paid_ms is None:
        return None
    query = select(Payment.razorpay_id).where(Payment.tenant_id == bill.tenant_id, Payment.bill_id == bill.id)
    payment_id = await session.scalar(query.order_by(Payment.captured_ms.desc()).limit(1))
    return PaidNote(day_in_india(bill.paid_ms), payment_id)


def plan_paise(invoice: Invoice) -> int:
    """The part of an invoice for the plan. Its add-ons are bills of their own."""
    addons = sum(int(line.get("amount") or 0) for line in invoice.line_items if line.get("type") == "addon")
    return invoice.amount - addons


def totals_of(taxable_paise: int, parties: Parties | None) -> dict[str, Any]:
    """Taxable amount, tax and total of a row; each component is rounded once. Without parties there is no tax yet."""
    tax = () if parties is None else tax_on(taxable_paise, parties.supply)
    return {
        "taxable_paise": taxable_paise,
        "tax": msgspec.to_builtins(tax),
        "total_paise": taxable_paise + sum(line.tax_paise for line in tax),
    }


def copied(parties: Parties | None) -> dict[str, Any]:
    """The columns that hold the copied parties."""
    if parties is None:
        return {"supply": {}, "customer": {}, "supplier": {}}
    return {"supply": supply_to_json(parties.supply), "customer": parties.customer, "supplier": parties.supplier}


def billed_by(bills: Iterable[Bill]) -> AlreadyBilled:
    """The amounts that these documents billed of their period. A row that bills nothing stores `{}`."""
    return sum((msgspec.convert(bill.taken, AlreadyBilled) for bill in bills), NOTHING_BILLED)


async def _copy_parties(session: AsyncSession, tenant_id: UUID, supply: Supply | None = None) -> Parties:
    """The parties by their profiles, with the supply between them unless one is given. Raises NotFound, Invalid."""
    customer, own = await get_profile(session, tenant_id), await get_supplier(session)
    supply = supply or supply_between(customer, own)
    return Parties(supply, msgspec.to_builtins(customer), msgspec.to_builtins(own))


async def _parties_of_fee(session: AsyncSession, subscription: Subscription) -> Parties:
    """Today's parties. The money is there: profiles that can't be combined are taxed as the subscription was sold."""
    try:
        return await _copy_parties(session, subscription.tenant_id)
    except Invalid:
        return await _copy_parties(session, subscription.tenant_id, supply_from_json(subscription.supply))


async def _cycle_of(session: AsyncSession, subscription: Subscription, invoice: Invoice, plan: Plan) -> BillingPeriod:
    """The cycle that an invoice opens; not stored, if it isn't yet. Raises Invalid when it names none."""
    if invoice.billing_start is None or invoice.billing_end is None:
        raise Invalid(f"the invoice {invoice.id} names no cycle")
    starts_ms, ends_ms = invoice.billing_start * 1000, invoice.billing_end * 1000
    known = await session.scalar(
        select(BillingPeriod)
        .where(BillingPeriod.tenant_id == subscription.tenant_id, BillingPeriod.kind == PeriodKind.CYCLE)
        .where(BillingPeriod.subscription_id == subscription.id)
        .where(or_(BillingPeriod.razorpay_invoice_id == invoice.id, BillingPeriod.starts_ms == starts_ms))
        .order_by((BillingPeriod.razorpay_invoice_id == invoice.id).desc().nulls_last(), BillingPeriod.period_id)
        .limit(1)
    )
    if known is not None:
        return known
    name = cycle_name(starts_ms, cycle_suffix(subscription))
    cycle = new_period(subscription.tenant_id, name, PeriodKind.CYCLE, starts_ms, ends_ms, plan)
    cycle.subscription_id = subscription.id
    return cycle
