"""Bills debited by a mandate: once, with a payment link after a debit that failed, whatever answers are lost."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from billing.collection.charges import retry_failed_charge
from billing.collection.collection import refresh_charge_by_payment
from billing.mandates.mandates import end_mandate
from billing.models import Charge
from core.clock import DAY_MS, now_ms
from tests.billing.billed_tenant import PAISE
from tests.billing.mandated import MandatedTenant
from tests.billing.signup import ACTOR, Signup

RETRIED = ["insufficient_funds"] * 4
"""The outcomes of a debit and its three retries."""


@pytest.fixture
async def tenant(signup: Signup) -> MandatedTenant:
    """A tenant with an active mandate of Rs 15,000, whose authorisation payment was given back."""
    tenant = await MandatedTenant.start(signup)
    await tenant.authorised()
    await tenant.work()
    return tenant


@pytest.mark.slow
async def test_a_bill_is_debited_once(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    for _ in range(3):
        await tenant.work()
    charge, [mandate] = await tenant.charge(bill_id), await tenant.mandates()
    assert (charge.instrument, charge.state, charge.mandate_id) == ("mandate", "submitted", mandate.id)
    [debit] = tenant.razorpay.debits()
    assert (debit["payment_id"], debit["token_id"], debit["order_id"]) == (
        charge.razorpay_id,
        mandate.token_id,
        charge.order_id,
    )
    paid = await tenant.debited(charge)
    bill = await tenant.read(bill_id)
    assert (paid.state, bill.state, bill.paid_paise) == ("paid", "paid", PAISE)
    assert tenant.links() == []
    assert tenant.net_collected() == PAISE


@pytest.mark.slow
async def test_a_due_date_is_three_days_on(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill(due_ms=now_ms())
    began_ms = now_ms()
    await tenant.work()
    assert abs(((await tenant.read(bill_id)).due_ms or 0) - began_ms - 3 * DAY_MS) < 60_000
    tenant.razorpay.opt_out(str((await tenant.charge(bill_id)).razorpay_id))
    await tenant.pass_time(hours=60)
    await tenant.work()
    assert (await tenant.charge(bill_id)).instrument == "payment_link"
    assert abs(((await tenant.read(bill_id)).due_ms or 0) - now_ms() - 3 * DAY_MS) < 120_000


@pytest.mark.slow
@pytest.mark.parametrize("how", ["opt_out", "retries", "declined", "cancelled"])
async def test_a_debit_that_failed_for_good_becomes_a_link(tenant: MandatedTenant, how: str) -> None:
    bill_id = await tenant.bill()
    [mandate] = await tenant.mandates()
    await tenant.work()
    charge, token_id = await tenant.charge(bill_id), str(mandate.token_id)
    match how:
        case "opt_out":
            tenant.razorpay.opt_out(str(charge.razorpay_id))
        case "retries":
            tenant.razorpay.debit_outcomes(token_id, RETRIED)
            await tenant.pass_time(hours=27)
            assert tenant.links() == [], "Razorpay still tries"
        case "declined":
            tenant.razorpay.debit_outcomes(token_id, ["debit_declined"])
        case _:
            tenant.razorpay.mandate(token_id, "cancel")
    failed = await tenant.debited(charge)
    await tenant.work()
    [link] = tenant.links("created")
    assert (failed.state, bool(failed.error)) == ("void", True)
    assert [one.instrument for one in await tenant.charges(bill_id)] == ["mandate", "payment_link"]
    assert (await tenant.mandate(mandate.id)).state == ("ended" if how == "cancelled" else "active")
    tenant.razorpay.pay_link(link["id"])
    await tenant.pass_time(hours=2)
    assert (await tenant.read(bill_id)).state == "paid"
    assert tenant.net_collected() == PAISE
    assert await tenant.findings() == []


@pytest.mark.slow
async def test_a_debit_captured_after_it_failed_is_applied_and_the_link_cancelled(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    [mandate] = await tenant.mandates()
    await tenant.work()
    charge = await tenant.charge(bill_id)
    tenant.razorpay.debit_outcomes(str(mandate.token_id), ["debit_declined"])
    await tenant.debited(charge)
    await tenant.work()
    assert len(tenant.links("created")) == 1
    tenant.razorpay.authorise_late(str(charge.razorpay_id))
    payment = await tenant.context.razorpay.fetch_payment(str(charge.razorpay_id))
    assert await refresh_charge_by_payment(tenant.context, payment)
    await tenant.work()
    assert (await tenant.read(bill_id)).state == "paid"
    assert [link["status"] for link in tenant.links()] == ["cancelled"]
    assert tenant.net_collected() == PAISE


@pytest.mark.slow
async def test_a_bill_paid_by_link_and_late_debit_gives_one_of_them_back(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    [mandate] = await tenant.mandates()
    await tenant.work()
    charge = await tenant.charge(bill_id)
    tenant.razorpay.debit_outcomes(str(mandate.token_id), ["debit_declined"])
    await tenant.debited(charge)
    await tenant.work()
    tenant.razorpay.pay_link(tenant.links("created")[0]["id"])
    tenant.razorpay.authorise_late(str(charge.razorpay_id))
    payment = await tenant.context.razorpay.fetch_payment(str(charge.razorpay_id))
    assert await refresh_charge_by_payment(tenant.context, payment)
    await tenant.pass_time(hours=2)
    await tenant.work()
    bill = await tenant.read(bill_id)
    assert (bill.state, bill.paid_paise) == ("paid", PAISE)
    assert tenant.net_collected() == PAISE


@pytest.mark.parametrize("paise", [1_500_001, 400_001])
async def test_a_bill_above_the_maximum_is_a_link(signup: Signup, paise: int) -> None:
    tenant = await MandatedTenant.start(signup)
    await tenant.authorised(max_paise=400_000 if paise == 400_001 else None)
    bill_id = await tenant.bill(paise)
    await tenant.work()
    assert (await tenant.charge(bill_id)).instrument == "payment_link"


async def test_a_paused_mandate_is_not_debited(tenant: MandatedTenant) -> None:
    [mandate] = await tenant.mandates()
    tenant.razorpay.mandate(str(mandate.token_id), "pause")
    await tenant.fetch(mandate)
    bill_id = await tenant.bill()
    await tenant.work()
    assert (await tenant.charge(bill_id)).instrument == "payment_link"


@pytest.mark.slow
@pytest.mark.parametrize("route", ["POST /v1/orders", "POST /v1/payments/create/recurring"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["html", "throttle"])
async def test_a_lost_answer_debits_once(tenant: MandatedTenant, route: str, when: str, kind: str) -> None:
    fault: dict[str, Any] = {"kind": "html", "when": when} if kind == "html" else {"kind": "error", "status": 429}
    tenant.razorpay.fault(route=route, **fault)
    bill_id = await tenant.bill()
    await asyncio.gather(tenant.collect(), tenant.collect())
    await tenant.work()
    await tenant.pass_time(lag=True)
    await tenant.work()
    charge = await tenant.charge(bill_id)
    assert (charge.instrument, charge.state) == ("mandate", "submitted")
    assert len(tenant.razorpay.debits()) == 1
    assert (await tenant.debited(charge)).state == "paid"
    assert tenant.net_collected() == PAISE


@pytest.mark.parametrize("route", ["POST /v1/orders", "POST /v1/payments/create/recurring"])
async def test_a_refused_debit_becomes_a_link(tenant: MandatedTenant, route: str) -> None:
    fault = {"kind": "error", "status": 400, "code": "BAD_REQUEST_ERROR", "description": "not enabled"}
    tenant.razorpay.fault(route=route, **fault)
    bill_id = await tenant.bill()
    await tenant.collect(3)
    assert [(one.instrument, one.state) for one in await tenant.charges(bill_id)] == [
        ("mandate", "void"),
        ("payment_link", "submitted"),
    ]
    assert tenant.razorpay.debits() == []


async def test_a_wrong_key_voids_no_debit(tenant: MandatedTenant) -> None:
    fault = {"kind": "error", "status": 401, "code": "BAD_REQUEST_ERROR", "description": "no"}
    tenant.razorpay.fault(route="POST /v1/payments/create/recurring", **fault)
    bill_id = await tenant.bill()
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "submitting"
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "submitted"


async def test_an_intent_whose_mandate_ended_is_never_sent(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    [mandate] = await tenant.mandates()
    async with tenant.context.tenant_transaction(tenant.tenant_id) as session:
        session.add(
            Charge(
                tenant_id=tenant.tenant_id,
                id=bill_id,
                bill_id=bill_id,
                attempt=1,
                instrument="mandate",
                mandate_id=mandate.id,
                state="intended",
                amount_paise=PAISE,
                reference=f"{bill_id.hex}-1",
                created_ms=now_ms(),
            )
        )
    await end_mandate(tenant.context, ACTOR, tenant.tenant_id, reason="the tenant's wish")
    await tenant.collect(2)
    assert [one.instrument for one in await tenant.charges(bill_id)] == ["mandate", "payment_link"]
    assert tenant.razorpay.debits() == []


@pytest.mark.slow
async def test_one_debit_at_a_time(tenant: MandatedTenant) -> None:
    """Razorpay asks to wait for the outcome; a second bill waits, but for two days at most."""
    first, second = await tenant.bill(), await tenant.bill(20_000)
    await tenant.work()
    assert (len(await tenant.charges(first)), len(await tenant.charges(second))) == (1, 0)
    await tenant.debited(await tenant.charge(first))
    await tenant.work()
    charge = await tenant.charge(second)
    assert (charge.instrument, (await tenant.debited(charge)).state) == ("mandate", "paid")
    assert tenant.net_collected() == PAISE + 20_000


@pytest.mark.slow
async def test_a_credit_note_while_the_debit_is_announced_is_refunded(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.work()
    await tenant.change(bill_id, credited_paise=18_000)
    await tenant.work()
    charge = await tenant.charge(bill_id)
    assert charge.state == "submitted"  # it can't be called back
    await tenant.debited(charge)
    await tenant.work()
    bill = await tenant.read(bill_id)
    assert (bill.state, bill.paid_paise, len(await tenant.charges(bill_id))) == ("paid", 100_000, 1)
    assert tenant.net_collected() == 100_000


async def test_a_mandate_replaced_while_it_is_debited_ends_afterwards(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.work()
    charge = await tenant.charge(bill_id)
    await tenant.authorised("card")
    await tenant.work()
    assert len(tenant.tokens("confirmed")) == 2
    assert (await tenant.debited(charge)).state == "paid"
    await tenant.work()
    await tenant.work()
    assert [one["method"] for one in tenant.tokens("confirmed")] == ["card"]


@pytest.mark.slow
async def test_a_debit_without_an_outcome_is_reported(tenant: MandatedTenant) -> None:
    bill_id = await tenant.bill()
    await tenant.work()
    async with tenant.context.database.session() as session:
        await session.execute(update(Charge).values(tried_ms=now_ms() - 6 * DAY_MS, checked_ms=0))
    await tenant.collect()
    assert (await tenant.charge(bill_id)).state == "submitted"
    assert await tenant.findings() == ["debit_pending"]
    charge = await tenant.charge(bill_id)
    await retry_failed_charge(tenant.context, ACTOR, charge.id, reason="stuck at the bank")
    await tenant.collect(2)
    assert (await tenant.charge(bill_id)).instrument == "payment_link"
