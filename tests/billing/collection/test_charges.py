"""Collecting a bill: one link at a time, paid, expired, cancelled, or an add-on."""

import asyncio

import pytest
from sqlalchemy import update

from billing.collection.charges import retry_failed_charge
from billing.collection.collection import refresh_charge, refresh_charge_by_link, refresh_charge_by_payment
from billing.context import BillingContext
from billing.models import Charge, Subscription
from core.clock import DAY_MS, now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor
from tests.billing.billed_tenant import PAISE, BilledTenant, with_rules
from tests.billing.operator import OperatorSetup
from tests.simulated_razorpay import Razorpay

OPERATOR = Actor("cli:test")


@pytest.fixture
async def tenant(context: BillingContext, setup: OperatorSetup, razorpay: Razorpay) -> BilledTenant:
    """A tenant with a profile."""
    return BilledTenant(context, razorpay, await setup.tenant())


async def test_a_bill_is_collected_by_a_link_and_paid_once(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.collect(3)
    [link] = tenant.links()
    charge = await tenant.charge(bill_id)
    bill = await tenant.read(bill_id)
    assert (charge.state, charge.attempt, charge.razorpay_id) == ("submitted", 1, link["id"])
    assert link["reference_id"] == charge.reference == f"{bill_id.hex}-1"
    assert (link["amount"], link["accept_partial"], link["description"]) == (PAISE, False, f"Bill {bill.number}")
    assert link["customer"] == {"name": "Nimbus Tools", "email": "billing@nimbus.example", "contact": "+919812345670"}
    assert link["notes"] == {"tenant_id": str(tenant.tenant_id), "bill": str(bill_id), "charge": str(charge.id)}
    assert abs(link["expire_by"] * 1000 - (now_ms() + 30 * DAY_MS)) < 60_000
    tenant.razorpay.pay_link(link["id"])
    await refresh_charge(tenant.context, tenant.tenant_id, charge.id)
    await refresh_charge(tenant.context, tenant.tenant_id, charge.id)
    await tenant.collect(2)
    bill, charge, [payment] = await tenant.read(bill_id), await tenant.charge(bill_id), await tenant.payments()
    assert (bill.state, bill.paid_paise) == ("paid", PAISE)
    assert bill.paid_ms is not None
    assert charge.state == "paid"
    assert (payment.applied_paise, payment.excess_paise, payment.status) == (PAISE, 0, "captured")
    assert payment.charge_id == charge.id
    assert len(tenant.links()) == 1
    assert tenant.net_collected() == PAISE


async def test_what_no_webhook_told_is_seen_by_the_hourly_look(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[0]["id"])
    await tenant.collect()
    assert (await tenant.read(bill_id)).state == "open"  # it was just fetched
    await tenant.age()
    await tenant.collect()
    assert (await tenant.read(bill_id)).state == "paid"


async def test_no_bill_but_an_open_one_with_something_due_is_collected(tenant: BilledTenant) -> None:
    for fields in (
        {"state": "held"},
        {"state": "waived"},
        {"state": "paid", "paid_paise": PAISE},
        {"credited_paise": PAISE},
    ):
        await tenant.bill(**fields)
    almost = await tenant.bill(credited_paise=PAISE - 99)
    await tenant.collect(2)
    assert tenant.links() == []
    assert (await tenant.read(almost)).state == "credited"


async def test_a_credit_note_cancels_the_link_and_a_smaller_one_follows(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.collect()
    await tenant.credit(bill_id, 18_000)
    await tenant.collect(2)
    first, second = await tenant.charges(bill_id)
    assert (first.state, second.state, second.amount_paise, second.attempt) == ("void", "submitted", 100_000, 2)
    assert [link["status"] for link in tenant.links()] == ["cancelled", "created"]
    tenant.razorpay.pay_link(str(second.razorpay_id))
    await refresh_charge(tenant.context, tenant.tenant_id, second.id)
    assert (await tenant.read(bill_id)).state == "paid"
    assert tenant.net_collected() == 100_000


async def test_a_bill_that_was_credited_whole_leaves_nothing_to_pay(tenant: BilledTenant) -> None:
    bill_id, untold = await tenant.bill(), await tenant.bill()
    await tenant.collect()
    await tenant.credit(bill_id, PAISE)
    await tenant.change(untold, paid_paise=PAISE, state="paid")
    await tenant.collect(2)
    assert [link["status"] for link in tenant.links()] == ["cancelled", "cancelled"]
    assert [one.state for one in await tenant.charges(bill_id)] == ["void"]


async def test_an_intent_whose_bill_moved_is_never_sent(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        session.add(
            Charge(
                tenant_id=tenant.tenant_id,
                id=bill_id,
                bill_id=bill_id,
                attempt=1,
                instrument="payment_link",
                state="intended",
                amount_paise=PAISE + 1,
                reference=f"{bill_id.hex}-1",
                created_ms=now_ms(),
            )
        )
    await tenant.collect(2)
    assert [(one.state, one.amount_paise) for one in await tenant.charges(bill_id)] == [
        ("void", PAISE + 1),
        ("submitted", PAISE),
    ]
    assert [link["amount"] for link in tenant.links()] == [PAISE]


async def test_a_link_that_was_paid_before_it_could_be_cancelled_is_taken(tenant: BilledTenant) -> None:
    """Paid before a credit note was issued: the bill takes its part, the rest is refunded."""
    bill_id = await tenant.bill()
    await tenant.collect()
    tenant.razorpay.pay_link(tenant.links()[0]["id"])
    await tenant.credit(bill_id, 18_000)
    await tenant.collect(2)
    bill, [charge], [payment] = await tenant.read(bill_id), await tenant.charges(bill_id), await tenant.payments()
    assert (bill.state, bill.paid_paise, charge.state) == ("paid", 100_000, "paid")
    assert (payment.applied_paise, payment.excess_paise) == (100_000, 18_000)
    assert [(one.amount_paise, one.state) for one in await tenant.refunds()] == [(18_000, "processed")]
    assert tenant.net_collected() == 100_000


async def test_an_expired_link_is_void_once_it_reads_so(tenant: BilledTenant) -> None:
    tenant.context = with_rules(
        tenant.context, link_expires_ms=60_000
    )  # Razorpay takes no less than a quarter of an hour
    bill_id = await tenant.bill()
    await tenant.collect()
    [link] = tenant.links()
    assert link["expire_by"] * 1000 > now_ms() + 18 * 60_000
    tenant.razorpay.advance(seconds=25 * 60)
    await tenant.age()
    charge = await tenant.charge(bill_id)
    await refresh_charge(tenant.context, tenant.tenant_id, charge.id)
    assert (await tenant.context.read(Charge, tenant.tenant_id, charge.id)).state == "void"


async def test_a_refused_link_waits_for_an_operator(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    refusal = {"status": 400, "code": "BAD_REQUEST_ERROR", "description": "description exceeds 2048 characters"}
    tenant.razorpay.fault(route="POST /v1/payment_links", kind="error", **refusal)
    await tenant.collect(3)
    [charge] = await tenant.charges(bill_id)
    assert charge.state == "failed"
    assert "2048" in str(charge.error)
    assert await tenant.findings() == ["charge_failed"]
    await retry_failed_charge(tenant.context, OPERATOR, charge.id, reason="mended")
    await tenant.collect()
    assert [one.state for one in await tenant.charges(bill_id)] == ["void", "submitted"]
    with pytest.raises(Conflict):
        await retry_failed_charge(tenant.context, OPERATOR, charge.id, reason="mended")


async def test_a_wrong_key_fails_no_charge(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    tenant.razorpay.fault(
        route="POST /v1/payment_links", kind="error", status=401, code="BAD_REQUEST_ERROR", description="no"
    )
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "submitting"
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "submitted"


async def test_somebody_elses_link_under_our_reference_is_not_taken(tenant: BilledTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.context.razorpay.create_payment_link(
        amount_paise=500,
        reference_id=f"{bill_id.hex}-1",
        description="not ours",
        customer={},
        expire_by=tenant.razorpay.now() + 3600,
        notes={},
    )
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "failed"
    assert await tenant.findings() == ["charge_failed"]


@pytest.mark.slow
async def test_many_workers_at_once_make_one_charge_a_bill(tenant: BilledTenant) -> None:
    bills = [await tenant.bill() for _ in range(6)]
    await asyncio.gather(*(tenant.collect() for _ in range(4)))
    await tenant.collect()
    assert sorted(link["reference_id"] for link in tenant.links()) == sorted(f"{one.hex}-1" for one in bills)
    for bill_id in bills:
        assert [one.state for one in await tenant.charges(bill_id)] == ["submitted"]


async def test_a_paid_link_is_found_by_its_reference_and_its_payment(tenant: BilledTenant) -> None:
    """By the webhooks' ids, and also after the answer that created the link was lost."""
    bill_id = await tenant.bill()
    tenant.razorpay.fault(route="POST /v1/payment_links", kind="html", when="after")
    await tenant.collect()
    [link] = tenant.links()
    tenant.razorpay.pay_link(link["id"])
    assert not await refresh_charge_by_link(tenant.context, link["id"], "not-ours-1")
    assert await refresh_charge_by_link(tenant.context, link["id"], link["reference_id"])
    assert (await tenant.read(bill_id)).state == "paid"
    other = await tenant.bill()
    await tenant.collect()
    charge = await tenant.charge(other)
    key = tenant.razorpay.pay_link(str(charge.razorpay_id))["payment"]["id"]
    assert await refresh_charge_by_payment(tenant.context, await tenant.context.razorpay.fetch_payment(key))
    assert (await tenant.read(other)).state == "paid"


# ------------------------------------------------------------------------------------------------- add-ons


async def test_an_add_on_rides_the_next_invoice_of_an_international_card(tenant: BilledTenant) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    on = await tenant.subscribe()
    bill_id = await tenant.bill()
    await tenant.collect(2)
    charge, [addon] = await tenant.charge(bill_id), tenant.addons()
    assert (charge.instrument, charge.state, charge.razorpay_id) == ("addon", "submitted", addon["id"])
    assert charge.reference in addon["item"]["name"].split()
    assert addon["item"]["amount"] == PAISE
    assert tenant.links() == []
    due_ms = (await tenant.read(bill_id)).due_ms
    assert due_ms == (on.current_end_ms or 0) + tenant.context.rules.pay_within_ms  # not due before it can be paid


@pytest.mark.parametrize("method", ["upi", "card_domestic", "emandate"])
async def test_without_an_international_card_no_add_on_is_tried(tenant: BilledTenant, method: str) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    await tenant.subscribe(method)
    await tenant.bill()
    await tenant.collect()
    assert (tenant.addons(), len(tenant.links())) == ([], 1)


async def test_a_refused_add_on_becomes_a_link(tenant: BilledTenant) -> None:
    """The stored payment method was outdated."""
    tenant.context = with_rules(tenant.context, addons=True)
    on = await tenant.subscribe("upi")
    async with tenant.context.database.session() as session:
        known = update(Subscription).where(Subscription.id == on.id)
        await session.execute(known.values(international=True, payment_method="card"))
    bill_id = await tenant.bill()
    await tenant.collect(2)
    first, second = await tenant.charges(bill_id)
    assert (first.instrument, first.state) == ("addon", "void")
    assert "upi" in str(first.error)
    assert (second.instrument, second.state) == ("payment_link", "submitted")


async def test_an_add_on_of_a_subscription_that_ended_becomes_a_link(tenant: BilledTenant) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    on = await tenant.subscribe()
    bill_id = await tenant.bill()
    await tenant.collect()
    await tenant.context.razorpay.cancel_subscription(str(on.razorpay_id))
    async with tenant.context.database.session() as session:
        await session.execute(update(Subscription).where(Subscription.id == on.id).values(status="cancelled"))
    await tenant.age()
    await tenant.collect(2)
    assert tenant.addons() == []
    assert [(one.instrument, one.state) for one in await tenant.charges(bill_id)] == [
        ("addon", "void"),
        ("payment_link", "submitted"),
    ]


async def test_an_add_on_that_an_invoice_carries_is_not_switched(tenant: BilledTenant) -> None:
    tenant.context = with_rules(tenant.context, addons=True)
    on = await tenant.subscribe()
    bill_id = await tenant.bill()
    await tenant.collect()
    tenant.razorpay.outcomes(str(on.razorpay_id), ["insufficient_funds"])
    tenant.razorpay.advance(to=(on.current_end_ms or 0) / 1000 + 3600)
    await tenant.credit(bill_id, 18_000)
    await tenant.collect(2)
    [charge], [addon] = await tenant.charges(bill_id), tenant.addons()
    assert charge.state == "submitted"
    assert charge.razorpay_invoice_id == addon["invoice_id"]
    assert tenant.links() == []
