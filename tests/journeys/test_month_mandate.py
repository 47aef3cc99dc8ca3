"""Overage debited by a mandate: three closes, an opt-out, a debit that fails late; threshold bills in a heavy month."""

import asyncio
from typing import Any

import pytest

from billing.models import Plan
from tests.journeys.shop import ALLOWANCES, BASE_PAISE, RATES, Customer, Shop, gross, overage

RETRIED = ["insufficient_funds"] * 4
DAY_S = 86_400
_LOST = {"kind": "html", "when": "after", "times": 2, "skip": 1}
TROUBLE: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "lost answers": [
        {"route": "POST /v1/subscription_registration/auth_links", "kind": "html", "when": "after"},
        {"route": "POST /v1/orders", **_LOST},
        {"route": "POST /v1/payments/create/recurring", **_LOST},
        {"route": "POST /v1/payment_links", "kind": "cut", "when": "after"},
        {"route": "GET /v1/orders/*", "kind": "html", "times": 3},
    ],
    "webhooks": [
        {"event": "payment.*", "kind": "duplicate", "copies": 3, "times": None},
        {"event": "order.paid", "kind": "reorder", "times": None},
        {"event": "token.confirmed", "kind": "delay", "delay_s": 7200},
        {"event": "payment.captured", "kind": "drop", "times": 2, "skip": 1},
    ],
}


async def authorise(customer: Customer, **given: Any) -> dict[str, Any]:
    """Asks for a mandate and authorises it on Razorpay's page."""
    view = await customer.call("POST", "/v1/billing/mandate", expect=201, **given)
    for _ in range(4):
        if view["waiting"]["pay_url"]:
            break
        await customer.shop.advance(days=16 / 1440)
        view = await customer.call("GET", "/v1/billing/mandate")
    (row,) = await customer.rows("SELECT razorpay_id FROM mandates WHERE tenant_id = $1 AND state = 'submitted'")
    customer.shop.razorpay.register(row["razorpay_id"])
    await customer.shop.turn()
    await customer.call("POST", "/v1/billing/mandate/check")
    await customer.shop.turn()
    return dict(await customer.call("GET", "/v1/billing/mandate"))


async def publish_heavy(shop: Shop) -> None:
    """Publishes a plan that bills each Rs 15 of overage."""
    meters = [{"meter": meter, "allowance": ALLOWANCES[meter], "rate_paise": rate} for meter, rate in RATES.items()]
    async with shop.context.database.session() as session:
        session.add(
            Plan(
                code="heavy",
                version=1,
                name="Heavy",
                limits={},
                base_paise=BASE_PAISE,
                meters=meters,
                past_allowance="bill",
                ceiling_paise=1_000_000,
                threshold_paise=1_500,
            )
        )


async def close_cycle(customer: Customer) -> int:
    """Uses some overage, ends the cycle, and returns what is owed for it, before tax."""
    asked = len(customer.shop.provider.ledger(customer.ref))
    assert (await customer.chat(input_tokens=6_000, words=60)).done
    owed = overage(customer.used(asked))
    await customer.shop.advance(to=await customer.current_end() + 60)
    return owed


async def charges(customer: Customer) -> list[tuple[str, str]]:
    """Instrument and state of the charges, oldest first."""
    rows = await customer.rows("SELECT instrument, state FROM charges WHERE tenant_id = $1 ORDER BY id")
    return [(row["instrument"], row["state"]) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_months_by_mandate(shop: Shop, trouble: str) -> None:
    customer = await shop.customer()
    await customer.subscribe()
    for fault in TROUBLE[trouble]:
        shop.razorpay.fault(**fault)
    view = await authorise(customer)
    assert (view["active"]["max_paise"], view["waiting"]) == (1_180_000, None), "the plan's ceiling with GST"
    token_id = (await customer.rows("SELECT token_id FROM mandates WHERE tenant_id = $1"))[0]["token_id"]

    owed = []
    for _ in range(3):
        owed.append(await close_cycle(customer))
        await shop.advance(days=3)
    bills = await customer.bills("overage")
    assert [(bill["taxable_paise"], bill["state"]) for bill in bills] == [(each, "paid") for each in owed]
    assert await charges(customer) == [("mandate", "paid")] * 3
    assert shop.razorpay.ledger()["links"] == []

    owed.append(await close_cycle(customer))
    await shop.advance(days=0.1)
    (charge,) = await customer.rows("SELECT razorpay_id FROM charges WHERE tenant_id = $1 AND state = 'submitted'")
    shop.razorpay.opt_out(charge["razorpay_id"])
    await shop.advance(days=1)
    (link,) = [one for one in shop.razorpay.ledger()["links"] if one["status"] == "created"]
    assert link["amount"] == gross(owed[-1])
    await customer.pay_links()

    shop.razorpay.debit_outcomes(token_id, RETRIED)
    owed.append(await close_cycle(customer))
    await shop.advance(days=1.1)
    late = (await customer.rows("SELECT * FROM charges WHERE tenant_id = $1 ORDER BY id DESC LIMIT 1"))[0]
    assert (late["instrument"], late["state"]) == ("mandate", "submitted"), "Razorpay still tries"
    await shop.advance(days=1)
    assert (await charges(customer))[-2:] == [("mandate", "void"), ("payment_link", "submitted")]
    await asyncio.to_thread(shop.razorpay.authorise_late, late["razorpay_id"])
    await shop.advance(days=0.1)
    bills = await customer.bills("overage")
    assert [(bill["taxable_paise"], bill["state"]) for bill in bills] == [(each, "paid") for each in owed]
    assert [one["status"] for one in shop.razorpay.ledger()["links"]] == ["paid", "cancelled"]
    await shop.money_agrees()
    findings = await shop.books.fetch("SELECT kind FROM billing_findings WHERE closed_ms IS NULL")
    assert findings == []


@pytest.mark.slow
async def test_a_heavy_month_is_billed_as_it_goes(shop: Shop) -> None:
    await publish_heavy(shop)
    customer = await shop.customer()
    await customer.subscribe("heavy")
    await authorise(customer)
    for _ in range(5):
        for _ in range(3):
            assert (await customer.chat(input_tokens=15_000, words=500)).done
        await shop.advance(days=3)
    owed = overage(customer.used())
    bills = await customer.bills("overage")
    assert len(bills) > 2, "billed within the month"
    assert all(bill["taxable_paise"] >= 1_500 for bill in bills)
    assert all(bill["state"] == "paid" for bill in bills[:-1])
    await shop.advance(to=await customer.current_end() + 60)
    await shop.advance(days=4)
    bills = await customer.bills("overage")
    assert sum(bill["taxable_paise"] for bill in bills) == owed
    assert {bill["state"] for bill in bills} == {"paid"}
    assert {instrument for instrument, _ in await charges(customer)} == {"mandate"}
    await shop.money_agrees()
