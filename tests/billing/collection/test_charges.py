"""Collecting a bill: one link at a time, paid, expired, cancelled, or an add-on where Razorpay takes one."""

import asyncio

import pytest
from sqlalchemy import update

from billing.collection.attempts import read
from billing.collection.charges import refresh, refresh_link, refresh_payment, retry
from billing.context import DAY_MS, BillingContext
from billing.models import Charge, Subscription
from core.clock import now_ms
from core.errors import Conflict
from core.tenancy.audit import Actor
from tests.billing.office import Office
from tests.billing.till import PAISE, Till, at
from tests.simulated_razorpay import Razorpay

OPERATOR = Actor("cli:test")


@pytest.fixture
async def till(context: BillingContext, office: Office, razorpay: Razorpay) -> Till:
    """A tenant's."""
    return Till(context, razorpay, await office.tenant())


async def test_a_bill_is_collected_by_a_link_and_paid_once(till: Till) -> None:
    bill_id = await till.bill()
    await till.collect(3)
    [link] = till.links()
    charge = await till.charge(bill_id)
    bill = await till.read(bill_id)
    assert (charge.state, charge.attempt, charge.razorpay_id) == ("submitted", 1, link["id"])
    assert link["reference_id"] == charge.reference == f"{bill_id.hex}-1"
    assert (link["amount"], link["accept_partial"], link["description"]) == (PAISE, False, f"Bill {bill.number}")
    assert link["customer"] == {"name": "Nimbus Tools", "email": "billing@nimbus.example", "contact": "+919812345670"}
    assert link["notes"] == {"tenant_id": str(till.tenant_id), "bill": str(bill_id), "charge": str(charge.id)}
    assert abs(link["expire_by"] * 1000 - (now_ms() + 30 * DAY_MS)) < 60_000
    till.razorpay.pay_link(link["id"])
    await refresh(till.context, till.tenant_id, charge.id)
    await refresh(till.context, till.tenant_id, charge.id)
    await till.collect(2)
    bill, charge, [payment] = await till.read(bill_id), await till.charge(bill_id), await till.payments()
    assert (bill.state, bill.paid_paise) == ("paid", PAISE)
    assert bill.paid_ms is not None
    assert charge.state == "paid"
    assert (payment.applied_paise, payment.excess_paise, payment.status) == (PAISE, 0, "captured")
    assert payment.charge_id == charge.id
    assert len(till.links()) == 1
    assert till.kept() == PAISE


async def test_what_no_webhook_told_is_seen_by_the_hourly_look(till: Till) -> None:
    bill_id = await till.bill()
    await till.collect()
    till.razorpay.pay_link(till.links()[0]["id"])
    await till.collect()
    assert (await till.read(bill_id)).state == "open"  # it was looked at a moment ago
    await till.age()
    await till.collect()
    assert (await till.read(bill_id)).state == "paid"


async def test_no_bill_but_an_open_one_with_something_due_is_collected(till: Till) -> None:
    for fields in (
        {"state": "held"},
        {"state": "waived"},
        {"state": "paid", "paid_paise": PAISE},
        {"credited_paise": PAISE},
        {"kind": "base"},
        {"kind": "credit_note", "state": "issued", "total_paise": -PAISE},
    ):
        await till.bill(**fields)
    almost = await till.bill(credited_paise=PAISE - 99)
    await till.collect(2)
    assert till.links() == []
    assert (await till.read(almost)).state == "credited"


async def test_a_credit_note_cancels_the_link_and_a_smaller_one_follows(till: Till) -> None:
    bill_id = await till.bill()
    await till.collect()
    await till.change(bill_id, credited_paise=18_000)
    await till.collect(2)
    first, second = await till.charges(bill_id)
    assert (first.state, second.state, second.amount_paise, second.attempt) == ("void", "submitted", 100_000, 2)
    assert [link["status"] for link in till.links()] == ["cancelled", "created"]
    till.razorpay.pay_link(str(second.razorpay_id))
    await refresh(till.context, till.tenant_id, second.id)
    assert (await till.read(bill_id)).state == "paid"
    assert till.kept() == 100_000


async def test_a_bill_that_was_credited_whole_leaves_nothing_to_pay(till: Till) -> None:
    bill_id, untold = await till.bill(), await till.bill()
    await till.collect()
    await till.change(bill_id, credited_paise=PAISE, state="credited")
    await till.change(untold, paid_paise=PAISE, state="paid")
    await till.collect(2)
    assert [link["status"] for link in till.links()] == ["cancelled", "cancelled"]
    assert [one.state for one in await till.charges(bill_id)] == ["void"]


async def test_an_intent_whose_bill_moved_is_never_sent(till: Till) -> None:
    bill_id = await till.bill()
    async with till.context.tenant_transaction(till.tenant_id) as session:
        session.add(
            Charge(
                tenant_id=till.tenant_id,
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
    await till.collect(2)
    assert [(one.state, one.amount_paise) for one in await till.charges(bill_id)] == [
        ("void", PAISE + 1),
        ("submitted", PAISE),
    ]
    assert [link["amount"] for link in till.links()] == [PAISE]


async def test_a_link_that_was_paid_before_it_could_be_cancelled_is_taken(till: Till) -> None:
    """The payer was faster than a credit note: the bill takes its part, the rest goes back."""
    bill_id = await till.bill()
    await till.collect()
    till.razorpay.pay_link(till.links()[0]["id"])
    await till.change(bill_id, credited_paise=18_000)
    await till.collect(2)
    bill, [charge], [payment] = await till.read(bill_id), await till.charges(bill_id), await till.payments()
    assert (bill.state, bill.paid_paise, charge.state) == ("paid", 100_000, "paid")
    assert (payment.applied_paise, payment.excess_paise) == (100_000, 18_000)
    assert [(one.amount_paise, one.state) for one in await till.refunds()] == [(18_000, "processed")]
    assert till.kept() == 100_000


async def test_an_expired_link_is_void_once_it_reads_so(till: Till) -> None:
    till.context = at(till.context, link_expires_ms=60_000)  # Razorpay takes no less than a quarter of an hour
    bill_id = await till.bill()
    await till.collect()
    [link] = till.links()
    assert link["expire_by"] * 1000 > now_ms() + 18 * 60_000
    till.razorpay.advance(seconds=25 * 60)
    await till.age()
    charge = await till.charge(bill_id)
    await refresh(till.context, till.tenant_id, charge.id)
    assert (await read(till.context, till.tenant_id, charge.id)).state == "void"


async def test_a_refused_link_waits_for_an_operator(till: Till) -> None:
    bill_id = await till.bill(customer={"legal_name": "x", "email": "a@b.example"}, number="x" * 2100)
    await till.collect(3)
    [charge] = await till.charges(bill_id)
    assert charge.state == "failed"
    assert "2048" in str(charge.error)
    assert await till.findings() == ["charge_failed"]
    await till.change(bill_id, number="N26/000001")
    await retry(till.context, OPERATOR, charge.id, reason="mended")
    await till.collect()
    assert [one.state for one in await till.charges(bill_id)] == ["void", "submitted"]
    with pytest.raises(Conflict):
        await retry(till.context, OPERATOR, charge.id, reason="mended")


async def test_a_wrong_key_fails_no_charge(till: Till) -> None:
    bill_id = await till.bill()
    till.razorpay.fault(
        route="POST /v1/payment_links", kind="error", status=401, code="BAD_REQUEST_ERROR", description="no"
    )
    await till.collect()
    assert (await till.charge(bill_id)).state == "submitting"
    await till.collect()
    assert (await till.charge(bill_id)).state == "submitted"


async def test_somebody_elses_link_under_our_reference_is_not_taken(till: Till) -> None:
    bill_id = await till.bill()
    await till.context.razorpay.create_payment_link(
        amount_paise=500,
        reference_id=f"{bill_id.hex}-1",
        description="not ours",
        customer={},
        expire_by=till.razorpay.now() + 3600,
        notes={},
    )
    await till.collect()
    assert (await till.charge(bill_id)).state == "failed"
    assert await till.findings() == ["charge_failed"]


async def test_many_workers_at_once_make_one_charge_a_bill(till: Till) -> None:
    bills = [await till.bill() for _ in range(6)]
    await asyncio.gather(*(till.collect() for _ in range(4)))
    await till.collect()
    assert sorted(link["reference_id"] for link in till.links()) == sorted(f"{one.hex}-1" for one in bills)
    for bill_id in bills:
        assert [one.state for one in await till.charges(bill_id)] == ["submitted"]


async def test_a_paid_link_is_found_by_its_reference_and_its_payment(till: Till) -> None:
    """As the webhooks name them; also while the answer that made the link is lost."""
    bill_id = await till.bill()
    till.razorpay.fault(route="POST /v1/payment_links", kind="html", when="after")
    await till.collect()
    [link] = till.links()
    till.razorpay.pay_link(link["id"])
    assert not await refresh_link(till.context, link["id"], "not-ours-1")
    assert await refresh_link(till.context, link["id"], link["reference_id"])
    assert (await till.read(bill_id)).state == "paid"
    other = await till.bill()
    await till.collect()
    charge = await till.charge(other)
    key = till.razorpay.pay_link(str(charge.razorpay_id))["payment"]["id"]
    assert await refresh_payment(till.context, await till.context.razorpay.fetch_payment(key))
    assert (await till.read(other)).state == "paid"


# ------------------------------------------------------------------------------------------------- add-ons


async def test_an_add_on_rides_the_next_invoice_of_an_international_card(till: Till) -> None:
    till.context = at(till.context, addons=True)
    on = await till.subscribe()
    bill_id = await till.bill()
    await till.collect(2)
    charge, [addon] = await till.charge(bill_id), till.addons()
    assert (charge.instrument, charge.state, charge.razorpay_id) == ("addon", "submitted", addon["id"])
    assert charge.reference in addon["item"]["name"].split()
    assert addon["item"]["amount"] == PAISE
    assert till.links() == []
    due_ms = (await till.read(bill_id)).due_ms
    assert due_ms == (on.current_end_ms or 0) + till.context.rules.pay_within_ms  # not overdue before it can be paid


@pytest.mark.parametrize("method", ["upi", "card_domestic", "emandate"])
async def test_without_an_international_card_no_add_on_is_tried(till: Till, method: str) -> None:
    till.context = at(till.context, addons=True)
    await till.subscribe(method)
    await till.bill()
    await till.collect()
    assert (till.addons(), len(till.links())) == ([], 1)


async def test_a_refused_add_on_becomes_a_link(till: Till) -> None:
    """Our idea of the method was old."""
    till.context = at(till.context, addons=True)
    on = await till.subscribe("upi")
    async with till.context.database.session() as session:
        known = update(Subscription).where(Subscription.id == on.id)
        await session.execute(known.values(international=True, payment_method="card"))
    bill_id = await till.bill()
    await till.collect(2)
    first, second = await till.charges(bill_id)
    assert (first.instrument, first.state) == ("addon", "void")
    assert "upi" in str(first.error)
    assert (second.instrument, second.state) == ("payment_link", "submitted")


async def test_an_add_on_of_a_subscription_that_ended_becomes_a_link(till: Till) -> None:
    till.context = at(till.context, addons=True)
    on = await till.subscribe()
    bill_id = await till.bill()
    await till.collect()
    await till.context.razorpay.cancel_subscription(str(on.razorpay_id))
    async with till.context.database.session() as session:
        await session.execute(update(Subscription).where(Subscription.id == on.id).values(status="cancelled"))
    await till.age()
    await till.collect(2)
    assert till.addons() == []
    assert [(one.instrument, one.state) for one in await till.charges(bill_id)] == [
        ("addon", "void"),
        ("payment_link", "submitted"),
    ]


async def test_an_add_on_that_an_invoice_carries_is_not_switched(till: Till) -> None:
    till.context = at(till.context, addons=True)
    on = await till.subscribe()
    bill_id = await till.bill()
    await till.collect()
    till.razorpay.outcomes(str(on.razorpay_id), ["insufficient_funds"])
    till.razorpay.advance(to=(on.current_end_ms or 0) / 1000 + 3600)
    await till.change(bill_id, credited_paise=18_000)
    await till.collect(2)
    [charge], [addon] = await till.charges(bill_id), till.addons()
    assert charge.state == "submitted"
    assert charge.razorpay_invoice_id == addon["invoice_id"]
    assert till.links() == []
