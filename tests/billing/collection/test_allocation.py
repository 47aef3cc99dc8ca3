"""Payments are applied once, to the amount due first, and only the excess is refunded."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from billing.collection.allocation import apply_invoice_payment, refund_extra_payment
from billing.collection.collection import refresh_charge, refresh_charge_by_payment
from billing.context import BillingContext
from billing.models import Bill, Payment, Subscription
from billing.payments.payments import update_payment
from billing.razorpay import entities
from core.clock import now_ms
from tests.billing.billed_tenant import PAISE, BilledTenant, with_rules
from tests.billing.ledger_proof import proved
from tests.billing.operator import OperatorSetup
from tests.simulated_razorpay import Razorpay

FEE = 354_000


@pytest.fixture
async def tenant(context: BillingContext, setup: OperatorSetup, razorpay: Razorpay) -> AsyncIterator[BilledTenant]:
    """A tenant with a profile, whose ledger is proved in the end."""
    yield BilledTenant(context, razorpay, await setup.tenant())
    await proved(context)


async def take(tenant: BilledTenant, on: Subscription, number: int = 0, times: int = 1) -> entities.Invoice:
    """Applies an invoice of the subscription (0: the newest) as a sync would."""
    gateway = tenant.context.razorpay
    invoice = (await gateway.invoices_of(str(on.razorpay_id)))[number]
    payment = await gateway.fetch_payment(str(invoice.payment_id))
    for _ in range(times):
        async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
            await apply_invoice_payment(session, tenant.context, on, invoice, payment, now_ms())
    return invoice


async def base_bills(tenant: BilledTenant) -> list[Bill]:
    """The bills of base fees."""
    async with tenant.context.database.session() as session:
        return list((await session.scalars(select(Bill).where(Bill.kind == "base").order_by(Bill.id))).all())


def balanced(payments: list[Payment]) -> bool:
    """Checks `applied + excess = amount` of every payment."""
    return all(one.applied_paise + one.excess_paise == one.amount_paise for one in payments)


# ---------------------------------------------------------------------------------------------- invoices


async def test_a_paid_invoice_is_a_base_bill_that_is_paid(tenant: BilledTenant) -> None:
    on = await tenant.subscribe("upi", paise=FEE)
    invoice = await take(tenant, on, times=2)
    await tenant.collect()
    [bill], [payment] = await base_bills(tenant), await tenant.payments()
    assert (bill.state, bill.total_paise, bill.paid_paise, bill.razorpay_invoice_id) == ("paid", FEE, FEE, invoice.id)
    assert (payment.bill_id, payment.subscription_id, payment.charge_id) == (bill.id, on.id, None)
    assert (payment.applied_paise, payment.excess_paise, payment.method) == (FEE, 0, "upi")
    assert (tenant.links(), await tenant.refunds(), await tenant.findings()) == ([], [], [])
    assert tenant.net_collected() == FEE


async def with_addon(tenant: BilledTenant) -> tuple[Subscription, Any]:
    """A subscription, and a bill whose add-on is on its paid second invoice."""
    tenant.context = with_rules(tenant.context, addons=True)
    on = await tenant.subscribe(paise=FEE)
    await take(tenant, on)
    bill_id = await tenant.bill()
    await tenant.collect()
    tenant.razorpay.advance(to=(on.current_end_ms or 0) / 1000 + 7200)
    return on, bill_id


async def test_an_add_on_is_paid_with_its_invoice(tenant: BilledTenant) -> None:
    on, bill_id = await with_addon(tenant)
    invoice = await take(tenant, on, times=2)
    bill, charge, payments = await tenant.read(bill_id), await tenant.charge(bill_id), await tenant.payments()
    assert (bill.state, bill.paid_paise) == ("paid", PAISE)
    assert (charge.state, charge.razorpay_invoice_id) == ("paid", invoice.id)
    assert sorted((one.applied_paise, one.excess_paise) for one in payments) == [(FEE, 0), (FEE + PAISE, 0)]
    assert {one.bill_id for one in payments} == {one.id for one in await base_bills(tenant)}
    await tenant.collect()
    assert (tenant.links(), await tenant.findings()) == ([], [])
    assert tenant.net_collected() == 2 * FEE + PAISE


async def test_the_hourly_look_sees_a_paid_add_on(tenant: BilledTenant) -> None:
    _, bill_id = await with_addon(tenant)
    await tenant.age()
    await tenant.collect()
    assert (await tenant.read(bill_id)).state == "paid"
    assert len(await base_bills(tenant)) == 2


async def test_an_add_on_of_a_bill_that_shrank_brings_too_much(tenant: BilledTenant) -> None:
    on, bill_id = await with_addon(tenant)
    await tenant.credit(bill_id, 18_000)
    await take(tenant, on, times=2)
    await tenant.collect()
    bill, payments = await tenant.read(bill_id), await tenant.payments()
    assert (bill.state, bill.paid_paise) == ("paid", 100_000)
    assert balanced(payments)
    assert [(one.amount_paise, one.state) for one in await tenant.refunds()] == [(18_000, "processed")]
    assert tenant.net_collected() == 2 * FEE + 100_000


async def test_a_line_that_is_nobodys_is_told_and_not_given_back(tenant: BilledTenant) -> None:
    on = await tenant.subscribe(paise=FEE)
    await tenant.context.razorpay.create_addon(str(on.razorpay_id), name="by hand", amount_paise=5_000, description="")
    tenant.razorpay.advance(to=(on.current_end_ms or 0) / 1000 + 7200)
    await take(tenant, on, times=2)
    [payment] = await tenant.payments()
    assert (payment.applied_paise, payment.excess_paise) == (FEE, 5_000)
    assert (await tenant.refunds(), await tenant.findings()) == ([], ["payment_unexplained"])


async def test_a_second_payment_of_an_invoice_goes_back(tenant: BilledTenant) -> None:
    on = await tenant.subscribe("upi", paise=FEE)
    invoice = await take(tenant, on)
    await tenant.bill()
    await tenant.collect()
    key = tenant.razorpay.pay_link(tenant.links()[0]["id"])["payment"]["id"]
    second = await tenant.context.razorpay.fetch_payment(key)
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        await apply_invoice_payment(session, tenant.context, on, invoice, second, now_ms())
    assert [one.amount_paise for one in await tenant.refunds()] == [PAISE]
    assert [bill.paid_paise for bill in await base_bills(tenant)] == [FEE]


async def test_a_payment_that_failed_pays_nothing(tenant: BilledTenant) -> None:
    on = await tenant.subscribe("upi", paise=FEE)
    [invoice] = await tenant.context.razorpay.invoices_of(str(on.razorpay_id))
    payment = await tenant.context.razorpay.fetch_payment(str(invoice.payment_id))
    failed = entities.Payment(id=payment.id, status="failed", amount=FEE, currency="INR", created_at=1)
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        await apply_invoice_payment(session, tenant.context, on, invoice, failed, now_ms())
    assert (await tenant.payments(), await base_bills(tenant)) == ([], [])


# -------------------------------------------------------------------------------------------------- links


async def two_links(tenant: BilledTenant) -> Any:
    """A bill with a cancelled first link and an open second one."""
    bill_id = await tenant.bill()
    await tenant.collect()
    await tenant.credit(bill_id, 18_000)
    await tenant.collect(2)
    return bill_id


async def pay_late(tenant: BilledTenant, link_id: str) -> None:
    """The bank answers after the link was closed; the webhook names only the payment."""
    payment = tenant.razorpay.pay_link(link_id, late=True)["payment"]
    assert await refresh_charge_by_payment(tenant.context, await tenant.context.razorpay.fetch_payment(payment["id"]))


async def test_late_money_pays_the_open_bill_first(tenant: BilledTenant) -> None:
    bill_id = await two_links(tenant)
    first, second = await tenant.charges(bill_id)
    await pay_late(tenant, str(first.razorpay_id))
    await tenant.collect(2)
    bill, [payment] = await tenant.read(bill_id), await tenant.payments()
    assert (bill.state, bill.paid_paise) == ("paid", 100_000)
    assert (payment.applied_paise, payment.excess_paise) == (100_000, 18_000)
    assert [one.state for one in await tenant.charges(bill_id)] == ["paid", "void"]
    assert [link["status"] for link in tenant.links()] == ["cancelled", "cancelled"]
    assert second.razorpay_id == tenant.links()[1]["id"]
    assert tenant.net_collected() == 100_000


async def test_late_money_for_a_paid_bill_goes_back(tenant: BilledTenant) -> None:
    bill_id = await two_links(tenant)
    first, second = await tenant.charges(bill_id)
    tenant.razorpay.pay_link(str(second.razorpay_id))
    await refresh_charge(tenant.context, tenant.tenant_id, second.id)
    await pay_late(tenant, str(first.razorpay_id))
    await tenant.collect(2)
    payments = await tenant.payments()
    assert balanced(payments)
    assert sorted(one.applied_paise for one in payments) == [0, 100_000]
    assert [(one.amount_paise, one.state) for one in await tenant.refunds()] == [(PAISE, "processed")]
    assert tenant.net_collected() == 100_000


async def test_both_links_paid_before_anybody_looked_keep_one_payment(tenant: BilledTenant) -> None:
    bill_id = await two_links(tenant)
    first, second = await tenant.charges(bill_id)
    tenant.razorpay.pay_link(str(first.razorpay_id), late=True)
    tenant.razorpay.pay_link(str(second.razorpay_id))
    for charge in (first, second, first):
        await refresh_charge(tenant.context, tenant.tenant_id, charge.id)
    await tenant.collect(2)
    assert (await tenant.read(bill_id)).paid_paise == 100_000
    assert balanced(await tenant.payments())
    assert tenant.net_collected() == 100_000


async def test_what_was_given_back_by_hand_is_not_given_back_again(tenant: BilledTenant) -> None:
    bill_id = await two_links(tenant)
    first, second = await tenant.charges(bill_id)
    tenant.razorpay.pay_link(str(second.razorpay_id))
    await refresh_charge(tenant.context, tenant.tenant_id, second.id)
    key = tenant.razorpay.pay_link(str(first.razorpay_id), late=True)["payment"]["id"]
    tenant.razorpay.refund_payment(key)
    await refresh_charge(tenant.context, tenant.tenant_id, first.id)
    await tenant.collect(2)
    assert await tenant.refunds() == []
    assert balanced(await tenant.payments())
    assert tenant.net_collected() == 100_000


async def test_above_the_cap_what_is_too_much_waits(tenant: BilledTenant) -> None:
    tenant.context = with_rules(tenant.context, refund_cap_paise=17_999)
    bill_id = await two_links(tenant)
    await pay_late(tenant, str((await tenant.charges(bill_id))[0].razorpay_id))
    await tenant.collect(2)
    assert [one.state for one in await tenant.refunds()] == ["awaiting_operator"]
    assert tenant.net_collected() == PAISE


# -------------------------------------------------------------------------------------------------- others


async def test_a_payment_for_an_extra_subscription_goes_back_whole(tenant: BilledTenant) -> None:
    on = await tenant.subscribe("upi", paise=FEE)
    [invoice] = await tenant.context.razorpay.invoices_of(str(on.razorpay_id))
    payment = await tenant.context.razorpay.fetch_payment(str(invoice.payment_id))
    for _ in range(2):
        async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
            await refund_extra_payment(session, tenant.context, tenant.tenant_id, payment)
    await tenant.collect()
    [refund], [row] = await tenant.refunds(), await tenant.payments()
    assert (refund.cause, refund.state) == (f"extra:{payment.id}", "processed")
    assert (row.applied_paise, row.excess_paise, row.refunded_paise) == (0, FEE, FEE)
    assert tenant.net_collected() == 0


async def test_only_a_known_payment_is_updated(tenant: BilledTenant) -> None:
    stranger = entities.Payment(id="pay_x", status="captured", amount=1, currency="INR", created_at=1)
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        assert await update_payment(session, stranger) is None
    on = await tenant.subscribe("upi", paise=FEE)
    await take(tenant, on)
    [row] = await tenant.payments()
    told = entities.Payment(
        id=row.razorpay_id, status="refunded", amount=FEE, amount_refunded=FEE, currency="INR", created_at=1
    )
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        known = await update_payment(session, told)
    assert known is not None
    assert (known.status, known.refunded_paise, known.applied_paise) == ("refunded", FEE, FEE)
