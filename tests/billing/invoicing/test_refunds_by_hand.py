"""What was refunded in Razorpay's dashboard gets its document, once, with the tax it had."""

import pytest

from billing.collection.allocation import apply_invoice_payment
from billing.collection.collection import collect
from billing.context import BillingContext
from billing.invoicing.issuing import document_of
from billing.models import Bill
from billing.payments.refunds import refresh_refunds
from core.clock import now_ms
from tests.billing.billed_tenant import BilledTenant
from tests.billing.ledger_proof import proved
from tests.billing.operator import PERIOD, OperatorSetup
from tests.simulated_razorpay import Razorpay

FEE = 354_000


@pytest.fixture
async def tenant(context: BillingContext, setup: OperatorSetup, razorpay: Razorpay) -> BilledTenant:
    """A tenant that paid a fee of Rs 3,000 and its tax."""
    tenant = BilledTenant(context, razorpay, await setup.tenant())
    on = await tenant.subscribe("upi", paise=FEE)
    (invoice,) = await context.razorpay.invoices_of(str(on.razorpay_id))
    payment = await context.razorpay.fetch_payment(str(invoice.payment_id))
    async with context.tenant_transaction(tenant.tenant_id) as session:
        await apply_invoice_payment(session, context, on, invoice, payment, now_ms())
    return tenant


async def refund(tenant: BilledTenant, paise: int) -> None:
    """Refunds in the dashboard; the duty runs twice."""
    (payment,) = await tenant.payments()
    tenant.razorpay.refund_payment(payment.razorpay_id, paise)
    await refresh_refunds(tenant.context, payment.razorpay_id)
    for _ in range(2):
        await collect(tenant.context)


async def test_a_refunded_fee_gets_its_note(tenant: BilledTenant, setup: OperatorSetup) -> None:
    await refund(tenant, FEE)
    fee, note = await setup.bills(tenant.tenant_id)
    assert (note.kind, note.state, note.refers_to) == ("credit_note", "issued", fee.id)
    assert (note.taxable_paise, note.total_paise) == (-300_000, -FEE)
    assert [line["tax_paise"] for line in note.tax] == [-27_000, -27_000]
    assert (fee.state, fee.credited_paise) == ("paid", FEE)
    assert await setup.findings() == []
    assert await proved(tenant.context) == dict.fromkeys(
        ("receivable", "revenue", "gst_payable", "cash", "customer_credit", "write_off"), 0
    )
    async with tenant.context.database.session() as session:
        document = await document_of(session, tenant.context, note)
    assert document.reason == "The fee was refunded"


async def test_parts_of_a_fee_add_up_to_its_very_tax(tenant: BilledTenant, setup: OperatorSetup) -> None:
    for paise in (33_333, 100, FEE - 33_433):
        await refund(tenant, paise)
        await proved(tenant.context)
    fee, *notes = await setup.bills(tenant.tenant_id)
    assert [note.total_paise for note in notes] == [-33_333, -100, 33_433 - FEE]
    assert sum(note.taxable_paise for note in notes) == -fee.taxable_paise
    assert _tax(fee) + sum(map(_tax, notes)) == 0
    async with tenant.context.database.session() as session:
        for note in notes:
            assert (await document_of(session, tenant.context, note)).total_paise == -note.total_paise


def _tax(bill: Bill) -> int:
    return sum(int(line["tax_paise"]) for line in bill.tax)


@pytest.fixture
async def user(context: BillingContext, setup: OperatorSetup, razorpay: Razorpay) -> BilledTenant:
    """A tenant that paid a bill for usage of Rs 700 and its tax."""
    user = BilledTenant(context, razorpay, await setup.tenant_with_usage(700))
    await setup.close()
    await user.collect()
    razorpay.pay_link(user.links()[0]["id"])
    await user.age()
    await user.collect()
    return user


@pytest.mark.slow
async def test_refunded_usage_gets_its_note_and_is_not_billed_again(user: BilledTenant, setup: OperatorSetup) -> None:
    await refund(user, 82_600)
    bill, note = await setup.bills(user.tenant_id)
    assert (note.kind, note.state, note.refers_to) == ("credit_note", "issued", bill.id)
    assert (note.taxable_paise, note.total_paise) == (-70_000, -82_600)
    assert _tax(bill) + _tax(note) == 0
    assert (bill.state, bill.paid_paise, bill.credited_paise) == ("paid", 82_600, 82_600)
    assert await setup.findings() == []
    assert set((await proved(user.context)).values()) == {0}
    async with user.context.database.session() as session:
        assert (await document_of(session, user.context, note)).reason == "The payment was refunded"
    await setup.add_usage(user.tenant_id, PERIOD, output_tokens=5)
    await setup.close()
    *_, supplement = await setup.bills(user.tenant_id)
    assert (supplement.kind, supplement.taxable_paise) == ("overage", 500)


@pytest.mark.slow
async def test_parts_of_usage_add_up_and_a_later_credit_takes_the_rest(
    user: BilledTenant, setup: OperatorSetup
) -> None:
    for paise in (33_333, 10_001):
        await refund(user, paise)
        await proved(user.context)
    await setup.add_usage(user.tenant_id, PERIOD, output_tokens=-700)
    await setup.close()
    for _ in range(2):
        await collect(user.context)
    bill, *notes = await setup.bills(user.tenant_id)
    assert bill.credited_paise == bill.total_paise == -sum(note.total_paise for note in notes)
    assert _tax(bill) + sum(map(_tax, notes)) == 0
    assert user.net_collected() == 0
    assert set((await proved(user.context)).values()) == {0}
    assert await setup.findings() == []


@pytest.mark.slow
async def test_a_refund_by_hand_in_place_of_one_that_failed_makes_no_second_note(
    user: BilledTenant, setup: OperatorSetup
) -> None:
    user.razorpay.settings(refund_fails=1)
    await setup.add_usage(user.tenant_id, PERIOD, output_tokens=-100)
    await setup.close()
    await collect(user.context)
    assert "refund_failed" in await setup.findings()
    await refund(user, 11_800)
    assert [one.kind for one in await setup.bills(user.tenant_id)] == ["overage", "credit_note"]
    assert "refund_by_hand" not in await setup.findings()
    assert (await proved(user.context))["customer_credit"] == 0
