"""The bill of a cycle's fee: exactly the collected amount, once."""

from typing import Any

import msgspec
import pytest

from billing.catalogue.profiles import supply_to_json
from billing.documents.bill_lines import price_base
from billing.documents.html import render_html
from billing.documents.invoice import Document, written
from billing.gst.invoice_numbers import Document as Kind
from billing.gst.invoice_numbers import Mode
from billing.gst.tax import Customer, Supply, gross_of, supply_to, tax_on
from billing.invoicing.issuing import document_of, issue_base
from billing.models import Bill, BillingProfile, OperatorProfile, Subscription
from billing.razorpay.entities import Invoice, entity
from core.clock import now_ms
from core.errors import Conflict, Invalid
from core.ids import uuid7
from tests.billing.operator import PERIOD, OperatorSetup, profile

INTRA = supply_to(Customer("IN", "29"), supplier_state="29", has_lut=True)
INTER = supply_to(Customer("IN", "27"), supplier_state="29", has_lut=True)
EXPORT = supply_to(Customer("DE"), supplier_state="29", has_lut=True)
STARTS = 1_796_409_000


def invoice(amount: int, *addons: int, **more: Any) -> Invoice:
    """A paid invoice for a cycle, with add-ons."""
    lines = [{"type": "plan", "name": "Team", "amount": amount}]
    lines += [{"type": "addon", "name": "usage", "amount": each} for each in addons]
    given = {
        "id": "inv_TpC3k8ZsDm6QjW",
        "status": "paid",
        "amount": amount + sum(addons),
        "billing_start": STARTS,
        "billing_end": STARTS + 2_678_400,
        "line_items": lines,
    }
    return entity(Invoice, given | more)


async def subscribed(setup: OperatorSetup, supply: Supply = INTER) -> Subscription:
    """A subscription to `team@1` of a tenant whose profile means this supply."""
    named = profile(None, "DE") if supply == EXPORT else profile(supply.place)
    row = Subscription(
        tenant_id=await setup.tenant(named=named),
        id=uuid7(),
        state="submitted",
        is_open=False,
        plan_code="team",
        plan_version=1,
        supply=supply_to_json(supply),
        gross_paise=gross_of(300_000, supply),
        total_count=12,
        created_ms=now_ms(),
        razorpay_id="sub_TmA1c9RkVe7HbN",
    )
    async with setup.context.database.session() as session:
        session.add(row)
    return row


async def issued(setup: OperatorSetup, subscription: Subscription, paid: Invoice) -> Bill:
    """The invoice's bill."""
    async with setup.context.tenant_transaction(subscription.tenant_id) as session:
        return await issue_base(session, setup.context, subscription, paid, now_ms())


@pytest.mark.parametrize(
    ("supply", "tax"),
    [(INTRA, [("CGST", 27_000), ("SGST", 27_000)]), (INTER, [("IGST", 54_000)]), (EXPORT, [])],
)
async def test_the_fee_is_the_plans_price_with_its_tax(
    setup: OperatorSetup, supply: Supply, tax: list[tuple[str, int]]
) -> None:
    subscription = await subscribed(setup, supply)
    bill = await issued(setup, subscription, invoice(subscription.gross_paise))
    assert (bill.kind, bill.state, bill.taxable_paise) == ("base", "open", 300_000)
    assert [(line["component"], line["tax_paise"]) for line in bill.tax] == tax
    assert bill.total_paise == subscription.gross_paise
    assert bill.number is not None
    assert bill.number.startswith("TIN/")
    assert (bill.starts_ms, bill.period_id) == (STARTS * 1000, "2026-12-05-Ve7HbN")


async def test_the_fee_is_taxed_by_the_profile_of_its_date(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup, INTER)
    first = await issued(setup, subscription, invoice(354_000))
    async with setup.context.database.session() as session:
        row = await session.get_one(BillingProfile, subscription.tenant_id)
        row.profile = msgspec.to_builtins(profile("29"))
    second = await issued(setup, subscription, invoice(354_000, id="inv_second"))
    assert [line["component"] for line in first.tax] == ["IGST"]
    assert [(line["component"], line["tax_paise"]) for line in second.tax] == [("CGST", 27_000), ("SGST", 27_000)]
    assert (second.taxable_paise, second.total_paise) == (300_000, 354_000)


async def test_profiles_that_cannot_be_combined_tax_the_fee_as_it_was_sold(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup, EXPORT)
    async with setup.context.database.session() as session:
        own = await session.get_one(OperatorProfile, 1)
        own.profile = own.profile | {"lut_number": None}
    bill = await issued(setup, subscription, invoice(300_000))
    assert (bill.taxable_paise, list(bill.tax)) == (300_000, [])


async def test_it_is_issued_once(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup)
    paid = invoice(354_000)
    assert (await issued(setup, subscription, paid)).id == (await issued(setup, subscription, paid)).id
    assert len(await setup.bills()) == 1
    await issued(setup, subscription, invoice(354_000, id="inv_other"))
    assert [bill.seq for bill in await setup.bills()] == [1, 2]


async def test_add_ons_are_bills_of_their_own(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup)
    bill = await issued(setup, subscription, invoice(354_000, 118_000, 1_180))
    assert bill.total_paise == 354_000


async def test_what_no_price_explains_is_rounded_to_what_was_collected(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup, INTRA)
    collected = next(paise for paise in range(100_000, 101_000) if price_base(paise, 300_000, INTRA).rounding_paise)
    bill = await issued(setup, subscription, invoice(collected))
    assert bill.total_paise == collected
    fee, rounding = (line["amount_paise"] for line in bill.lines)
    assert fee == bill.taxable_paise
    assert bill.taxable_paise + sum(line["tax_paise"] for line in bill.tax) + rounding == collected
    assert 0 < rounding <= 2


async def test_an_invoice_without_a_cycle_is_refused(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup)
    with pytest.raises(Invalid):
        await issued(setup, subscription, invoice(354_000, billing_start=None))
    assert await setup.bills() == []


def test_every_amount_is_a_net_its_tax_and_a_paisa_or_two() -> None:
    for supply in (INTRA, INTER, EXPORT):
        for collected in range(3_000):
            price = price_base(collected, 300_000, supply)
            tax = sum(line.tax_paise for line in tax_on(price.net_paise, supply))
            assert price.net_paise + tax + price.rounding_paise == collected
            assert 0 <= price.rounding_paise <= 2


async def shown(setup: OperatorSetup, bill: Bill) -> Document:
    """The bill's document."""
    async with setup.context.database.session() as session:
        return await document_of(session, setup.context, bill)


async def test_the_documents_of_a_bill_and_its_credit_note(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7)
    await setup.close()
    await setup.add_usage(tenant_id, PERIOD, output_tokens=-3)
    await setup.close()
    bill, note = [await shown(setup, each) for each in await setup.bills(tenant_id)]
    assert (bill.kind, bill.mode, bill.taxable_paise, bill.total_paise) == (Kind.TAX_INVOICE, Mode.TEST, 700, 826)
    assert (bill.place_of_supply, bill.customer.legal_name) == ("Karnataka (29)", "Nimbus Tools")
    assert bill.due_on is not None
    assert (note.kind, note.taxable_paise, note.total_paise) == (Kind.CREDIT_NOTE, 300, 354)
    assert note.refers_to == (f"{bill.number} of {written(bill.issued_on)}",)
    assert render_html(bill).count(bill.number) >= 1


async def test_an_exports_document_says_so(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant_with_usage(7, named=profile(None, "DE"))
    await setup.close()
    (bill,) = [await shown(setup, each) for each in await setup.bills(tenant_id)]
    assert (bill.tax, bill.total_paise) == ((), 700)
    assert "AD290426000001X" in bill.notes[0]
    assert bill.place_of_supply == "Outside India (96)"


async def test_a_draft_that_names_nobody_has_no_document(setup: OperatorSetup) -> None:
    tenant_id = await setup.tenant(is_known=False)
    await setup.period(tenant_id)
    await setup.add_usage(tenant_id, PERIOD, output_tokens=1_010)
    await setup.close()
    (held,) = await setup.bills(tenant_id)
    with pytest.raises(Conflict):
        await shown(setup, held)


async def test_the_document_of_a_paid_fee(setup: OperatorSetup) -> None:
    subscription = await subscribed(setup, INTRA)
    bill = await issued(setup, subscription, invoice(100_001))
    payment = await setup.pay(bill)
    (bill,) = await setup.bills(bill.tenant_id)
    document = await shown(setup, bill)
    assert document.total_paise == 100_001
    assert document.paid is not None
    assert document.paid.payment_id == payment
    assert document.plan == "Team, version 1"
