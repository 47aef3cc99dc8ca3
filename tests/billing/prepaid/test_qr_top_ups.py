"""Top-ups by UPI QR code: paid once whatever is lost, repeated or late, and closed when nobody wants them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from billing.collection.collection import refresh_charge_by_payment
from billing.models import Charge
from billing.razorpay import calls
from billing.reconciliation import reconcile_razorpay
from billing.reconciliation.charges import compare_qr_codes
from billing.reconciliation.report import RazorpayReport
from billing.reconciliation.windows import Window
from billing.webhooks.envelope import Target
from billing.webhooks.handlers import refresh_target
from tests.billing.payments.test_money_faults import TWICE
from tests.billing.prepaid.prepaid_tenant import PrepaidTenant

CREATE, CLOSE = "POST /v1/payments/qr_codes", "POST /v1/payments/qr_codes/*/close"
LIST = "GET /v1/payments/qr_codes"
NET, GROSS = 100_000, 118_000
LAG_S = 16 * 60


async def credited(prepaid: PrepaidTenant, times: int = 1) -> None:
    """The money of one top-up is in the wallet, and Razorpay kept what the books say."""
    assert await prepaid.entries() == [("top_up", NET)] * times
    assert prepaid.razorpay.money()["totals"]["kept"] == times * GROSS
    assert (await prepaid.booked())["cash"] == times * GROSS


async def told(prepaid: PrepaidTenant, qr_code_id: str) -> bool:
    """What the event of a code does."""
    target = Target("qr_code", qr_code_id)
    return (await refresh_target(prepaid.context, target, {}, set())).ours


async def test_a_code_is_made_shown_and_paid_once(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up_by_qr(NET)
    [code], charge = prepaid.codes(), await prepaid.charge(bill)
    assert (code["usage"], code["fixed_amount"], code["payment_amount"]) == ("single_use", True, GROSS)
    assert (charge.instrument, charge.state, charge.razorpay_id) == ("qr_code", "submitted", code["id"])
    assert (charge.short_url, charge.upi_link) == (code["image_url"], code["image_content"])
    assert (charge.expire_by_ms or 0) // 1000 == code["close_by"]
    assert (await prepaid.top_up_by_qr(NET)).id == bill.id, "who asks twice gets the first top-up"
    prepaid.razorpay.scan(code["id"])
    assert await told(prepaid, code["id"])
    assert await told(prepaid, code["id"])
    await prepaid.collect()
    bill, charge = await prepaid.read(bill), await prepaid.charge(bill)
    assert (bill.state, bill.paid_paise, charge.state) == ("paid", GROSS, "paid")
    assert bill.number is not None
    assert prepaid.razorpay.ledger()["links"] == []
    await credited(prepaid)


async def test_a_code_whose_webhook_was_lost_is_found_by_looking(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up_by_qr(NET)
    await prepaid.pay_code()
    assert (await prepaid.charge(bill)).state == "paid"
    await credited(prepaid)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_one_code_whatever_happens_to_its_making(prepaid: PrepaidTenant, trouble: dict[str, Any]) -> None:
    prepaid.be_impatient()
    prepaid.razorpay.fault(route=CREATE, **trouble)
    bill = await prepaid.try_by_qr(NET)
    for _ in range(3):
        await prepaid.collect()
    await asyncio.sleep(trouble.get("delay_s", 0))  # the effect of a slow call comes while nobody waits for it
    if not prepaid.codes():  # the call had no effect, which only time shows
        await prepaid.advance(seconds=LAG_S)
    await prepaid.collect()
    [code], charge = prepaid.codes(), await prepaid.charge(bill)
    assert (charge.state, charge.razorpay_id) == ("submitted", code["id"])
    await prepaid.pay_code()
    await credited(prepaid)


async def test_two_codes_after_a_doubt_bring_one_top_up(prepaid: PrepaidTenant) -> None:
    """The list hid the first one for longer than it may: both are scanned, one payment is given back."""
    prepaid.razorpay.fault(route=CREATE, kind="cut", when="after")
    prepaid.razorpay.fault(route="GET /v1/payments/qr_codes", kind="lag", delay_s=3600, times=None)
    bill = await prepaid.try_by_qr(NET)
    await prepaid.advance(seconds=LAG_S)
    await prepaid.collect()
    first, second = sorted(prepaid.codes(), key=lambda code: (code["created_at"], code["id"]))
    assert (await prepaid.charge(bill)).razorpay_id == second["id"]
    prepaid.razorpay.scan(first["id"])
    prepaid.razorpay.scan(second["id"])
    assert await told(prepaid, first["id"])
    assert await told(prepaid, second["id"])
    for _ in range(2):
        await prepaid.collect()
    await credited(prepaid)
    totals = prepaid.razorpay.money()["totals"]
    assert (totals["collected"], totals["refunded"]) == (2 * GROSS, GROSS)


async def test_a_second_code_that_nobody_scanned_is_closed(prepaid: PrepaidTenant) -> None:
    prepaid.razorpay.fault(route=CREATE, kind="cut", when="after")
    prepaid.razorpay.fault(route="GET /v1/payments/qr_codes", kind="lag", delay_s=3600, times=None)
    await prepaid.try_by_qr(NET)
    await prepaid.advance(seconds=LAG_S)
    await prepaid.collect()
    prepaid.razorpay.clear_faults()
    first, second = sorted(prepaid.codes(), key=lambda code: (code["created_at"], code["id"]))
    found = await reconcile_razorpay(prepaid.context)
    assert found.is_clean
    assert [code["status"] for code in prepaid.codes() if code["id"] == first["id"]] == ["closed"]
    assert [code["status"] for code in prepaid.codes() if code["id"] == second["id"]] == ["active"]


async def test_money_of_a_second_code_is_found_by_the_comparison_though_the_first_has_paid(
    prepaid: PrepaidTenant,
) -> None:
    """Its events are lost, and its payment does not name the charge."""
    prepaid.razorpay.fault(route=CREATE, kind="cut", when="after")
    prepaid.razorpay.fault(route=LIST, kind="lag", delay_s=3600, times=None)
    bill = await prepaid.try_by_qr(NET)
    await prepaid.advance(seconds=LAG_S)
    await prepaid.collect()
    prepaid.razorpay.clear_faults()
    for code in prepaid.codes():
        prepaid.razorpay.scan(code["id"])
    assert await told(prepaid, str((await prepaid.charge(bill)).razorpay_id))
    assert (await prepaid.charge(bill)).state == "paid"
    now = prepaid.razorpay.now()
    for _ in range(2):
        await compare_qr_codes(prepaid.context, RazorpayReport(), Window(now - 86_400, now + 60))
        await prepaid.collect()
    await credited(prepaid)
    totals = prepaid.razorpay.money()["totals"]
    assert (totals["collected"], totals["refunded"]) == (2 * GROSS, GROSS)


async def test_of_two_codes_that_are_found_at_once_one_is_kept(prepaid: PrepaidTenant) -> None:
    prepaid.razorpay.fault(route=CREATE, kind="cut", when="after", times=2)
    prepaid.razorpay.fault(route=LIST, kind="lag", delay_s=3600, times=None)
    bill = await prepaid.try_by_qr(NET)
    await prepaid.advance(seconds=LAG_S)
    await prepaid.collect()
    assert ((await prepaid.charge(bill)).state, len(prepaid.codes())) == ("submitting", 2)
    prepaid.razorpay.clear_faults()
    await prepaid.collect()
    assert sorted(code["status"] for code in prepaid.codes()) == ["active", "closed"]
    [active] = [code["id"] for code in prepaid.codes() if code["status"] == "active"]
    assert (await prepaid.charge(bill)).razorpay_id == active


async def test_a_code_is_looked_for_in_its_time_only(prepaid: PrepaidTenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long outage the account has more other codes than a search may list."""
    monkeypatch.setattr(calls, "PAGE", 2)
    monkeypatch.setattr(calls, "MAX_PAGES", 1)
    prepaid.razorpay.fault(route=CREATE, kind="cut", when="before")
    bill = await prepaid.try_by_qr(NET)
    await prepaid.advance(seconds=3 * 3_600)
    for _ in range(2):
        await prepaid.context.razorpay.create_qr_code(
            name="Shop", amount_paise=100, description="Tea", close_by=prepaid.razorpay.now() + 3_600, notes={}
        )
    await prepaid.collect()
    assert (await prepaid.charge(bill)).state == "submitted"


async def test_another_amount_or_instrument_closes_the_code(prepaid: PrepaidTenant) -> None:
    first = await prepaid.top_up_by_qr(NET)
    await prepaid.top_up_by_qr(NET // 2)
    await prepaid.collect()
    assert (await prepaid.read(first)).state == "void"
    assert [code["status"] for code in prepaid.codes()] == ["closed", "active"]
    third = await prepaid.top_up(NET // 2)
    await prepaid.collect()
    assert (await prepaid.charge(third)).instrument == "payment_link"
    assert [code["status"] for code in prepaid.codes()] == ["closed", "closed"]
    assert (await prepaid.charge(first)).state == "void"


@pytest.mark.parametrize("trouble", TWICE.values(), ids=TWICE)
async def test_a_code_is_closed_whatever_happens_to_the_call(prepaid: PrepaidTenant, trouble: dict[str, Any]) -> None:
    prepaid.be_impatient()
    first = await prepaid.top_up_by_qr(NET)
    prepaid.razorpay.fault(route=CLOSE, **trouble)
    await prepaid.top_up(NET // 2)
    for _ in range(4):
        await prepaid.collect()
    assert [code["status"] for code in prepaid.codes()] == ["closed"]
    assert (await prepaid.charge(first)).state == "void"


async def test_a_code_that_expired_gives_the_top_up_up_and_late_money_is_added(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up_by_qr(NET)
    await prepaid.advance(seconds=7_300)
    await prepaid.collect()
    assert (await prepaid.charge(bill)).state == "void"
    await prepaid.run()
    assert (await prepaid.read(bill)).reason == "not paid"
    [code] = prepaid.codes()
    paid = prepaid.razorpay.scan(code["id"], late=True)
    payment = await prepaid.context.razorpay.fetch_payment(paid["id"])
    assert await refresh_charge_by_payment(prepaid.context, payment)
    assert (await prepaid.read(bill)).state == "paid"
    await credited(prepaid)


async def test_money_of_a_code_that_no_event_named_is_found_by_the_comparison(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up_by_qr(NET)
    [code] = prepaid.codes()
    prepaid.razorpay.scan(code["id"])
    async with prepaid.context.database.session() as session:
        await session.execute(update(Charge).values(state="void"))
    found = await reconcile_razorpay(prepaid.context)
    assert found.is_clean
    assert {one["kind"] for one in found.healed} >= {"charge"}
    assert (await prepaid.read(bill)).state == "paid"
    await credited(prepaid)
    assert (await reconcile_razorpay(prepaid.context)).healed == []


async def test_a_code_whose_payment_is_not_listed_yet_is_not_gone(prepaid: PrepaidTenant) -> None:
    bill = await prepaid.top_up_by_qr(NET)
    [code] = prepaid.codes()
    prepaid.razorpay.scan(code["id"])
    prepaid.razorpay.fault(route="GET /v1/payments/qr_codes/*/payments", kind="lag", delay_s=600, times=None)
    await prepaid.collect()
    assert (await prepaid.charge(bill)).state == "submitted"
    await prepaid.advance(seconds=601)
    await prepaid.collect()
    await credited(prepaid)


async def test_an_account_without_codes_gets_a_link(prepaid: PrepaidTenant) -> None:
    refusal = {"status": 400, "code": "BAD_REQUEST_ERROR", "description": "QR codes are not enabled for the merchant"}
    prepaid.razorpay.fault(route=CREATE, kind="error", **refusal)
    bill = await prepaid.top_up_by_qr(NET)
    await prepaid.collect()
    charge = await prepaid.charge(bill)
    assert (charge.instrument, charge.state, prepaid.codes()) == ("payment_link", "submitted", [])
    assert (await prepaid.top_up_by_qr(NET)).id == bill.id
    await prepaid.pay(bill)
    await credited(prepaid)


async def test_a_wrong_key_makes_no_link(prepaid: PrepaidTenant) -> None:
    refusal = {"status": 401, "code": "BAD_REQUEST_ERROR", "description": "The api key provided is invalid"}
    prepaid.razorpay.fault(route=CREATE, kind="error", **refusal)
    bill = await prepaid.try_by_qr(NET)
    assert (await prepaid.charge(bill)).state == "intended"
    await prepaid.collect()
    assert ((await prepaid.charge(bill)).state, len(prepaid.codes())) == ("submitted", 1)


async def test_a_code_of_another_database_is_a_finding(prepaid: PrepaidTenant) -> None:
    notes = {"tenant_id": str(prepaid.tenant_id), "charge": "018f0000-0000-7000-8000-000000000000"}
    close_by = prepaid.razorpay.now() + 3600
    made = await prepaid.context.razorpay.create_qr_code(
        name="Naka", amount_paise=GROSS, description="Top-up", close_by=close_by, notes=notes
    )
    assert not await told(prepaid, made.id)
    prepaid.razorpay.scan(made.id)
    assert not await told(prepaid, made.id)
    assert await prepaid.setup.findings() == ["payment_unplaced"]
