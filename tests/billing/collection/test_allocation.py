"""Money that came: applied once, to what is due first, and only what is too much goes back."""

from typing import Any

import pytest
from sqlalchemy import select

from billing.collection.allocation import record_extra, take_invoice
from billing.collection.charges import refresh, refresh_payment
from billing.context import BillingContext
from billing.models import Bill, Payment, Subscription
from billing.payments.payments import take_payment
from billing.razorpay import entities
from core.clock import now_ms
from tests.billing.office import Office
from tests.billing.till import PAISE, Till, at
from tests.simulated_razorpay import Razorpay

FEE = 354_000


@pytest.fixture
async def till(context: BillingContext, office: Office, razorpay: Razorpay) -> Till:
    """A tenant's, whom base fees can be billed to."""
    return Till(context, razorpay, await office.tenant())


async def take(till: Till, on: Subscription, number: int = 0, times: int = 1) -> entities.Invoice:
    """Applies an invoice of the subscription (0: the newest) as the mirror would."""
    gateway = till.context.razorpay
    invoice = (await gateway.invoices_of(str(on.razorpay_id)))[number]
    payment = await gateway.fetch_payment(str(invoice.payment_id))
    for _ in range(times):
        async with till.context.tenant_transaction(till.tenant_id) as session:
            await take_invoice(session, till.context, on, invoice, payment, now_ms())
    return invoice


async def base_bills(till: Till) -> list[Bill]:
    """The fees that were billed."""
    async with till.context.database.session() as session:
        return list((await session.scalars(select(Bill).where(Bill.kind == "base").order_by(Bill.id))).all())


def balanced(payments: list[Payment]) -> bool:
    """Every paisa of every payment is one or the other."""
    return all(one.applied_paise + one.excess_paise == one.amount_paise for one in payments)


# ---------------------------------------------------------------------------------------------- invoices


async def test_a_paid_invoice_is_a_base_bill_that_is_paid(till: Till) -> None:
    on = await till.subscribe("upi", paise=FEE)
    invoice = await take(till, on, times=2)
    await till.collect()
    [bill], [payment] = await base_bills(till), await till.payments()
    assert (bill.state, bill.total_paise, bill.paid_paise, bill.razorpay_invoice_id) == ("paid", FEE, FEE, invoice.id)
    assert (payment.bill_id, payment.subscription_id, payment.charge_id) == (bill.id, on.id, None)
    assert (payment.applied_paise, payment.excess_paise, payment.method) == (FEE, 0, "upi")
    assert (till.links(), await till.refunds(), await till.findings()) == ([], [], [])
    assert till.kept() == FEE


async def with_addon(till: Till) -> tuple[Subscription, Any]:
    """A subscription and the bill whose add-on its second invoice carries, paid."""
    till.context = at(till.context, addons=True)
    on = await till.subscribe(paise=FEE)
    await take(till, on)
    bill_id = await till.bill()
    await till.collect()
    till.razorpay.advance(to=(on.current_end_ms or 0) / 1000 + 7200)
    return on, bill_id


async def test_an_add_on_is_paid_with_its_invoice(till: Till) -> None:
    on, bill_id = await with_addon(till)
    invoice = await take(till, on, times=2)
    bill, charge, payments = await till.read(bill_id), await till.charge(bill_id), await till.payments()
    assert (bill.state, bill.paid_paise) == ("paid", PAISE)
    assert (charge.state, charge.razorpay_invoice_id) == ("paid", invoice.id)
    assert sorted((one.applied_paise, one.excess_paise) for one in payments) == [(FEE, 0), (FEE + PAISE, 0)]
    assert {one.bill_id for one in payments} == {one.id for one in await base_bills(till)}
    await till.collect()
    assert (till.links(), await till.findings()) == ([], [])
    assert till.kept() == 2 * FEE + PAISE


async def test_the_hourly_look_sees_a_paid_add_on(till: Till) -> None:
    _, bill_id = await with_addon(till)
    await till.age()
    await till.collect()
    assert (await till.read(bill_id)).state == "paid"
    assert len(await base_bills(till)) == 2


async def test_an_add_on_of_a_bill_that_shrank_brings_too_much(till: Till) -> None:
    on, bill_id = await with_addon(till)
    await till.change(bill_id, credited_paise=18_000)
    await take(till, on, times=2)
    await till.collect()
    bill, payments = await till.read(bill_id), await till.payments()
    assert (bill.state, bill.paid_paise) == ("paid", 100_000)
    assert balanced(payments)
    assert [(one.amount_paise, one.state) for one in await till.refunds()] == [(18_000, "processed")]
    assert till.kept() == 2 * FEE + 100_000


async def test_a_line_that_is_nobodys_is_told_and_not_given_back(till: Till) -> None:
    on = await till.subscribe(paise=FEE)
    await till.context.razorpay.create_addon(str(on.razorpay_id), name="by hand", amount_paise=5_000, description="")
    till.razorpay.advance(to=(on.current_end_ms or 0) / 1000 + 7200)
    await take(till, on, times=2)
    [payment] = await till.payments()
    assert (payment.applied_paise, payment.excess_paise) == (FEE, 5_000)
    assert (await till.refunds(), await till.findings()) == ([], ["payment_unexplained"])


async def test_a_second_payment_of_an_invoice_goes_back(till: Till) -> None:
    on = await till.subscribe("upi", paise=FEE)
    invoice = await take(till, on)
    await till.bill()
    await till.collect()
    key = till.razorpay.pay_link(till.links()[0]["id"])["payment"]["id"]
    second = await till.context.razorpay.fetch_payment(key)
    async with till.context.tenant_transaction(till.tenant_id) as session:
        await take_invoice(session, till.context, on, invoice, second, now_ms())
    assert [one.amount_paise for one in await till.refunds()] == [PAISE]
    assert [bill.paid_paise for bill in await base_bills(till)] == [FEE]


async def test_a_payment_that_failed_pays_nothing(till: Till) -> None:
    on = await till.subscribe("upi", paise=FEE)
    [invoice] = await till.context.razorpay.invoices_of(str(on.razorpay_id))
    payment = await till.context.razorpay.fetch_payment(str(invoice.payment_id))
    failed = entities.Payment(id=payment.id, status="failed", amount=FEE, currency="INR", created_at=1)
    async with till.context.tenant_transaction(till.tenant_id) as session:
        await take_invoice(session, till.context, on, invoice, failed, now_ms())
    assert (await till.payments(), await base_bills(till)) == ([], [])


# -------------------------------------------------------------------------------------------------- links


async def two_links(till: Till) -> Any:
    """A bill whose first link is cancelled, and whose second can be paid."""
    bill_id = await till.bill()
    await till.collect()
    await till.change(bill_id, credited_paise=18_000)
    await till.collect(2)
    return bill_id


async def pay_late(till: Till, link_id: str) -> None:
    """The bank's answer comes after the link was closed; the webhook tells of the payment alone."""
    payment = till.razorpay.pay_link(link_id, late=True)["payment"]
    assert await refresh_payment(till.context, await till.context.razorpay.fetch_payment(payment["id"]))


async def test_late_money_pays_the_open_bill_first(till: Till) -> None:
    bill_id = await two_links(till)
    first, second = await till.charges(bill_id)
    await pay_late(till, str(first.razorpay_id))
    await till.collect(2)
    bill, [payment] = await till.read(bill_id), await till.payments()
    assert (bill.state, bill.paid_paise) == ("paid", 100_000)
    assert (payment.applied_paise, payment.excess_paise) == (100_000, 18_000)
    assert [one.state for one in await till.charges(bill_id)] == ["paid", "void"]
    assert [link["status"] for link in till.links()] == ["cancelled", "cancelled"]
    assert second.razorpay_id == till.links()[1]["id"]
    assert till.kept() == 100_000


async def test_late_money_for_a_paid_bill_goes_back(till: Till) -> None:
    bill_id = await two_links(till)
    first, second = await till.charges(bill_id)
    till.razorpay.pay_link(str(second.razorpay_id))
    await refresh(till.context, till.tenant_id, second.id)
    await pay_late(till, str(first.razorpay_id))
    await till.collect(2)
    payments = await till.payments()
    assert balanced(payments)
    assert sorted(one.applied_paise for one in payments) == [0, 100_000]
    assert [(one.amount_paise, one.state) for one in await till.refunds()] == [(PAISE, "processed")]
    assert till.kept() == 100_000


async def test_both_links_paid_before_anybody_looked_keep_one_payment(till: Till) -> None:
    bill_id = await two_links(till)
    first, second = await till.charges(bill_id)
    till.razorpay.pay_link(str(first.razorpay_id), late=True)
    till.razorpay.pay_link(str(second.razorpay_id))
    for charge in (first, second, first):
        await refresh(till.context, till.tenant_id, charge.id)
    await till.collect(2)
    assert (await till.read(bill_id)).paid_paise == 100_000
    assert balanced(await till.payments())
    assert till.kept() == 100_000


async def test_what_was_given_back_by_hand_is_not_given_back_again(till: Till) -> None:
    bill_id = await two_links(till)
    first, second = await till.charges(bill_id)
    till.razorpay.pay_link(str(second.razorpay_id))
    await refresh(till.context, till.tenant_id, second.id)
    key = till.razorpay.pay_link(str(first.razorpay_id), late=True)["payment"]["id"]
    till.razorpay.refund_payment(key)
    await refresh(till.context, till.tenant_id, first.id)
    await till.collect(2)
    assert await till.refunds() == []
    assert balanced(await till.payments())
    assert till.kept() == 100_000


async def test_above_the_cap_what_is_too_much_waits(till: Till) -> None:
    till.context = at(till.context, refund_cap_paise=17_999)
    bill_id = await two_links(till)
    await pay_late(till, str((await till.charges(bill_id))[0].razorpay_id))
    await till.collect(2)
    assert [one.state for one in await till.refunds()] == ["awaiting_operator"]
    assert till.kept() == PAISE


# -------------------------------------------------------------------------------------------------- others


async def test_a_payment_for_an_extra_subscription_goes_back_whole(till: Till) -> None:
    on = await till.subscribe("upi", paise=FEE)
    [invoice] = await till.context.razorpay.invoices_of(str(on.razorpay_id))
    payment = await till.context.razorpay.fetch_payment(str(invoice.payment_id))
    for _ in range(2):
        async with till.context.tenant_transaction(till.tenant_id) as session:
            await record_extra(session, till.context, till.tenant_id, payment, now_ms())
    await till.collect()
    [refund], [row] = await till.refunds(), await till.payments()
    assert (refund.cause, refund.state) == (f"extra:{payment.id}", "processed")
    assert (row.applied_paise, row.excess_paise, row.refunded_paise) == (0, FEE, FEE)
    assert till.kept() == 0


async def test_only_a_known_payment_is_updated(till: Till) -> None:
    stranger = entities.Payment(id="pay_x", status="captured", amount=1, currency="INR", created_at=1)
    async with till.context.tenant_transaction(till.tenant_id) as session:
        assert await take_payment(session, stranger, now_ms()) is None
    on = await till.subscribe("upi", paise=FEE)
    await take(till, on)
    [row] = await till.payments()
    told = entities.Payment(
        id=row.razorpay_id, status="refunded", amount=FEE, amount_refunded=FEE, currency="INR", created_at=1
    )
    async with till.context.tenant_transaction(till.tenant_id) as session:
        known = await take_payment(session, told, now_ms())
    assert known is not None
    assert (known.status, known.refunded_paise, known.applied_paise) == ("refunded", FEE, FEE)
