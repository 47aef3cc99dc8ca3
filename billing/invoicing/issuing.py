"""Issuing documents: what makes one final, the bill of a cycle's fee, and a bill as a document to be shown.

A document is final when it has a number (`finalise`); nothing of it but what was paid and credited changes after that.
One without a number (`held`, `waived`) is a draft: nobody is asked for it, and the next close of its period takes it
up again. Everything runs in the caller's transaction, under the tenant's lock.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from billing.access.cycles import cycle_name
from billing.access.periods import mark_of
from billing.catalogue.profiles import profile_of, supplier, supply_for, supply_from_json, supply_to_json
from billing.context import COLLECT, BillingContext, enqueue_after_commit
from billing.documents.bill_lines import base_lines, price_base
from billing.documents.invoice import Document, DocumentLine, PaidNote, Party
from billing.gst.invoice_numbers import Document as Kind
from billing.gst.invoice_numbers import day_in_india, series_of
from billing.gst.number_series import take_number
from billing.gst.tax import EXPORT_ENDORSEMENT, Supply, TaxLine, Treatment, tax_on
from billing.models import Bill, BillingPeriod, Charge, Payment, Plan, Subscription
from billing.razorpay.entities import Invoice
from core.errors import Conflict, Invalid, NotFound
from core.ids import uuid7

SMALLEST_PAISE = 100
"""Razorpay moves no less than a rupee, in either direction: a document of less waits as `waived`."""


@dataclass(frozen=True, slots=True)
class Parties:
    """Who supplies what to whom, as of now: copied onto the document."""

    supply: Supply
    customer: dict[str, Any]
    supplier: dict[str, Any]


async def parties_of(session: AsyncSession, tenant_id: UUID) -> Parties | None:
    """As the profiles say now; None while the tenant's or the operator's is missing, or they do not go together."""
    try:
        supply = await supply_for(session, tenant_id)
        return await _as_copied(session, tenant_id, supply)
    except (NotFound, Invalid):
        return None


async def finalise(session: AsyncSession, context: BillingContext, bill: Bill, now_ms: int) -> None:
    """Gives a bill its number, its dates and its state; or leaves it a draft, when no such sum can be moved.

    The number's series is held from here to the commit. Raises WrongNumber when the clock went back over a year's end.
    """
    if bill.kind != "base" and abs(bill.total_paise) < SMALLEST_PAISE:
        bill.state, bill.reason = "waived", "less than a rupee"
        return
    kind = Kind.CREDIT_NOTE if bill.kind == "credit_note" else Kind.TAX_INVOICE
    bill.number = str(await take_number(session, series_of(kind, context.mode), now_ms))
    bill.issued_ms, bill.reason = now_ms, None
    match bill.kind:
        case "credit_note":
            bill.state = "issued"
        case "base":
            bill.state, bill.due_ms = "open", now_ms
        case _:
            bill.state, bill.due_ms = "open", now_ms + context.rules.pay_within_ms
            enqueue_after_commit(session, COLLECT)
    await session.flush()


async def issue_base(
    session: AsyncSession, context: BillingContext, subscription: Subscription, invoice: Invoice, now_ms: int
) -> Bill:
    """The bill of a cycle's fee, which a paid invoice of Razorpay's collected; the same one when asked again.

    Its total is what was collected for the plan, to the paisa; the tax is the subscription's, whatever the profile
    says by now. It is `open` and due at once: who records the payment makes it paid in the same transaction.
    Raises NotFound when a profile is missing, Invalid for an invoice that names no cycle.
    """
    tenant_id = subscription.tenant_id
    known = await session.scalar(
        select(Bill).where(Bill.tenant_id == tenant_id, Bill.razorpay_invoice_id == invoice.id)
    )
    if known is not None:
        return known
    plan = await session.get_one(Plan, (subscription.plan_code, subscription.plan_version))
    supply = supply_from_json(subscription.supply)
    parties = await _as_copied(session, tenant_id, supply)
    collected_paise = plan_paise(invoice)
    price = price_base(collected_paise, plan.base_paise, supply)
    period_id, starts_ms, ends_ms = await _cycle_of(session, subscription, invoice)
    bill = Bill(
        tenant_id=tenant_id,
        id=uuid7(now_ms),
        kind="base",
        state="open",
        period_id=period_id,
        seq=await next_seq(session, tenant_id, period_id, "base"),
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        subscription_id=subscription.id,
        plan_code=plan.code,
        plan_version=plan.version,
        lines=base_lines(plan.name, price),
        taxable_paise=price.net_paise,
        tax=msgspec.to_builtins(tax_on(price.net_paise, supply)),
        total_paise=collected_paise,
        **copied(parties),
        razorpay_invoice_id=invoice.id,
        created_ms=now_ms,
    )
    session.add(bill)
    await finalise(session, context, bill, now_ms)
    return bill


async def document_of(session: AsyncSession, context: BillingContext, bill: Bill) -> Document:
    """The document of a bill, to be rendered; a draft's has no number. Raises Conflict where nobody is named."""
    if not bill.supply:
        raise Conflict("it waits for a billing profile: there is nobody to put on it")
    supply = supply_from_json(bill.supply)
    is_note = bill.kind == "credit_note"
    sign = -1 if is_note else 1  # a credit note says what it takes back
    lines = tuple(DocumentLine.of(line) for line in bill.lines)
    tax = msgspec.convert(bill.tax, tuple[TaxLine, ...])
    plan = await session.get_one(Plan, (bill.plan_code, bill.plan_version))
    of = None if bill.refers_to is None else await session.get(Bill, (bill.tenant_id, bill.refers_to))
    charge = await session.scalar(
        select(Charge)
        .where(Charge.tenant_id == bill.tenant_id, Charge.bill_id == bill.id)
        .where(Charge.state.in_(("intended", "submitting", "submitted")))
    )
    is_open = bill.state == "open"
    return Document(
        kind=Kind.CREDIT_NOTE if is_note else Kind.TAX_INVOICE,
        mode=context.mode,
        number=bill.number or "DRAFT",
        issued_on=day_in_india(bill.issued_ms or bill.created_ms),
        due_on=None if bill.due_ms is None else day_in_india(bill.due_ms),
        supplier=Party.of(bill.supplier),
        customer=Party.of(bill.customer),
        sac=bill.supplier["sac"],
        place_of_supply=f"{supply.place_name} ({supply.place})",
        plan=f"{plan.name}, version {plan.version}",
        period=(day_in_india(bill.starts_ms), day_in_india(bill.ends_ms - 1)),
        lines=tuple(replace(line, amount_paise=sign * line.amount_paise) for line in lines),
        taxable_paise=sign * bill.taxable_paise,
        tax=tuple(replace(line, tax_paise=sign * line.tax_paise) for line in tax),
        total_paise=sign * bill.total_paise,
        refers_to=() if of is None or of.number is None else (of.number,),
        reason="The usage of the period was corrected after it was billed" if is_note else "",
        paid=await _paid(session, bill),
        pay_url=charge.short_url if charge is not None and is_open else None,
        notes=_notes(bill, supply, charge if is_open else None),
    )


def _notes(bill: Bill, supply: Supply, charge: Charge | None) -> tuple[str, ...]:
    """What else is to be said on it."""
    notes = []
    if supply.treatment is Treatment.EXPORT:
        notes.append(f"{EXPORT_ENDORSEMENT} (LUT {bill.supplier['lut_number']})")
    if charge is not None and charge.instrument == "addon":
        notes.append("Collected with the subscription: it is on the invoice after the next.")
    return tuple(notes)


async def _paid(session: AsyncSession, bill: Bill) -> PaidNote | None:
    if bill.state != "paid" or bill.paid_ms is None:
        return None
    query = select(Payment.razorpay_id).where(Payment.tenant_id == bill.tenant_id, Payment.bill_id == bill.id)
    payment_id = await session.scalar(query.order_by(Payment.captured_ms.desc()).limit(1))
    return PaidNote(day_in_india(bill.paid_ms), payment_id)


def plan_paise(invoice: Invoice) -> int:
    """What an invoice asks for the plan: all of it but its add-ons, which are bills of their own (facts 2.7)."""
    addons = sum(int(line.get("amount") or 0) for line in invoice.line_items if line.get("type") == "addon")
    return invoice.amount - addons


def totals_of(taxable_paise: int, parties: Parties | None) -> dict[str, Any]:
    """Taxable, tax and total of a row; each component is rounded once. No parties: no tax is known yet."""
    tax = () if parties is None else tax_on(taxable_paise, parties.supply)
    return {
        "taxable_paise": taxable_paise,
        "tax": msgspec.to_builtins(tax),
        "total_paise": taxable_paise + sum(line.tax_paise for line in tax),
    }


def copied(parties: Parties | None) -> dict[str, Any]:
    """The columns that copy who supplies what to whom."""
    if parties is None:
        return {"supply": {}, "customer": {}, "supplier": {}}
    return {"supply": supply_to_json(parties.supply), "customer": parties.customer, "supplier": parties.supplier}


async def next_seq(session: AsyncSession, tenant_id: UUID, period_id: str, kind: str) -> int:
    """The next document of its kind and period."""
    query = select(func.max(Bill.seq)).where(
        Bill.tenant_id == tenant_id, Bill.period_id == period_id, Bill.kind == kind
    )
    return (await session.scalar(query) or 0) + 1


async def _as_copied(session: AsyncSession, tenant_id: UUID, supply: Supply) -> Parties:
    customer, own = await profile_of(session, tenant_id), await supplier(session)
    return Parties(supply, msgspec.to_builtins(customer), msgspec.to_builtins(own))


async def _cycle_of(session: AsyncSession, subscription: Subscription, invoice: Invoice) -> tuple[str, int, int]:
    """Name and bounds of the cycle that an invoice opens. Raises Invalid when it names none."""
    if invoice.billing_start is None or invoice.billing_end is None:
        raise Invalid(f"the invoice {invoice.id} names no cycle")
    starts_ms, ends_ms = invoice.billing_start * 1000, invoice.billing_end * 1000
    known = await session.scalar(
        select(BillingPeriod)
        .where(BillingPeriod.tenant_id == subscription.tenant_id, BillingPeriod.kind == "cycle")
        .where(BillingPeriod.subscription_id == subscription.id)
        .where(or_(BillingPeriod.razorpay_invoice_id == invoice.id, BillingPeriod.starts_ms == starts_ms))
        .order_by((BillingPeriod.razorpay_invoice_id == invoice.id).desc().nulls_last())
        .limit(1)
    )
    if known is not None:
        return known.period_id, known.starts_ms, known.ends_ms
    return cycle_name(starts_ms, mark_of(subscription)), starts_ms, ends_ms
