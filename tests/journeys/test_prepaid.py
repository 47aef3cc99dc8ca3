"""A wallet emptied by a race of a hundred, topped up by a repeated webhook once, and billed to the paisa."""

import asyncio
from typing import Any

import pytest

from tests.answers import Answer
from tests.harness import chat, scripted
from tests.journeys.shop import RATES, Customer, Shop, gross, post_form, rounded
from tests.journeys.test_month_mandate import TROUBLE, authorise

AT_ONCE = 100
NET = 2_000
"""Paise. A request of the race costs some 25, so about eighty fit."""
WORDS = 120
SMALLEST_HOLD = 30
"""Paise that the smallest grant of the race holds, rounded up: its prompt with slack, and 64 tokens of output."""
METERS = [{"meter": meter, "allowance": 0, "rate_paise": rate} for meter, rate in RATES.items()]


def price(customer: Customer) -> int:
    """The cost of the customer's usage, by the provider's own ledger."""
    used = customer.used()
    return sum(rounded(used[meter] * rate, 1_000_000) for meter, rate in RATES.items())


async def prepaid_customer(shop: Shop) -> Customer:
    """A customer on a prepaid plan without a base fee."""
    await shop.publish("prepaid", base_paise=0, past_allowance="prepaid", ceiling_paise=None, meters=METERS)
    customer = await shop.customer()
    path = f"/v1/admin/tenants/{customer.account.tenant_id}/plan"
    await shop.operate("PUT", path, code="prepaid")
    return customer


async def top_up(customer: Customer, paise: int) -> str:
    """Asks for a top-up and pays its link; returns the link's id."""
    asked = await customer.call("POST", "/v1/billing/wallet/top-ups", expect=201, paise=paise)
    again = await customer.call("POST", "/v1/billing/wallet/top-ups", expect=201, paise=paise)
    assert (again["id"], bool(again["pay_url"])) == (asked["id"], True), "who asks twice gets the first top-up"
    assert asked["total_paise"] == gross(paise)
    (row,) = await customer.rows("SELECT razorpay_id FROM charges WHERE tenant_id = $1 AND state = 'submitted'")
    customer.shop.razorpay.pay_link(row["razorpay_id"])
    await customer.shop.turn()
    return str(row["razorpay_id"])


@pytest.mark.slow
async def test_a_race_of_a_hundred_stops_at_zero(shop: Shop) -> None:
    customer = await prepaid_customer(shop)
    empty = await say(customer)
    assert (empty.status, (empty.error or {}).get("code")) == (402, "wallet_empty")
    assert "wallet is empty" in (empty.error or {})["detail"]
    await top_up(customer, NET)
    for event in shop.razorpay.deliveries("payment_link.paid"):
        shop.razorpay.replay(event["event_id"])
    await shop.turn()
    assert [row["paise"] for row in await entries(customer)] == [NET], "credited once"

    await asyncio.gather(*(until_refused(customer) for _ in range(AT_ONCE)))
    spent = price(customer)
    wallet = await customer.call("GET", "/v1/billing/wallet")
    assert spent <= NET, "never below zero"
    assert wallet["unused_paise"] == NET - spent
    assert NET - spent < SMALLEST_HOLD, "and used up"

    await top_up(customer, NET)
    assert (await say(customer)).done
    spent = price(customer)
    await shop.advance(days=32)
    (bill,) = await customer.bills("overage")
    assert (bill["state"], bill["taxable_paise"], bill["paid_paise"]) == ("paid", spent, gross(spent))
    wallet = await customer.call("GET", "/v1/billing/wallet")
    assert (wallet["balance_paise"], wallet["unused_paise"]) == (2 * NET - spent, 2 * NET - spent)

    vouchers = await shop.operate(
        "POST", f"/v1/admin/tenants/{customer.account.tenant_id}/wallet/refunds", expect=201, reason="leaves"
    )
    assert sum(one["taxable_paise"] for one in vouchers) == -(2 * NET - spent)
    await shop.turn()
    kept = shop.razorpay.money()["totals"]["kept"]
    assert abs(kept - gross(spent)) <= len(vouchers) + 1, "each document rounds its tax once"
    await books_agree(shop, customer, kept)


LINK_TROUBLE: list[dict[str, Any]] = [
    {"route": "POST /v1/payment_links", "kind": "cut", "when": "after"},
    {"event": "payment_link.paid", "kind": "duplicate", "copies": 3, "times": None},
    {"event": "payment.captured", "kind": "reorder", "times": None},
]


async def test_a_top_up_whose_answer_was_lost_is_credited_once(shop: Shop) -> None:
    customer = await prepaid_customer(shop)
    for fault in LINK_TROUBLE:
        shop.razorpay.fault(**fault)
    await top_up(customer, NET)
    await shop.advance(days=1)
    assert [row["paise"] for row in await entries(customer)] == [NET]
    assert len(shop.razorpay.ledger()["links"]) == 1
    await books_agree(shop, customer, gross(NET))


QR_TROUBLE: dict[str, list[dict[str, Any]]] = {
    "plain": [],
    "webhook twice": [{"event": "qr_code.credited", "kind": "duplicate", "copies": 3, "times": None}],
    "answer lost, shuffled webhooks": [
        {"route": "POST /v1/payments/qr_codes", "kind": "cut", "when": "after"},
        {"event": "qr_code.credited", "kind": "duplicate", "copies": 3, "times": None},
        {"event": "payment.captured", "kind": "reorder", "times": None},
    ],
    "webhooks lost": [{"event": "*", "kind": "drop", "times": None}],
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", QR_TROUBLE)
async def test_a_top_up_by_qr_code_is_credited_once(shop: Shop, trouble: str) -> None:
    customer = await prepaid_customer(shop)
    for fault in QR_TROUBLE[trouble]:
        shop.razorpay.fault(**fault)
    body = {"paise": NET, "instrument": "qr_code"}
    asked = await customer.call("POST", "/v1/billing/wallet/top-ups", expect=201, **body)
    await shop.turn()
    again = await customer.call("POST", "/v1/billing/wallet/top-ups", expect=201, **body)
    (code,) = shop.razorpay.ledger()["qr_codes"]
    assert (again["id"], again["collected_by"], again["total_paise"]) == (asked["id"], "qr_code", gross(NET))
    assert (again["pay_url"], again["upi_link"]) == (code["image_url"], code["image_content"])
    assert (await wallet_of(customer))["open_top_ups"] == [again]
    await asyncio.to_thread(post_form, again["pay_url"], method="upi", outcome="ok")
    await shop.turn()
    for event in shop.razorpay.deliveries("qr_code.credited"):
        shop.razorpay.replay(event["event_id"])
    await shop.turn()
    await shop.advance(days=1)
    assert [row["paise"] for row in await entries(customer)] == [NET]
    assert (await say(customer)).done
    (voucher,) = await customer.bills("receipt_voucher")
    assert (voucher["state"], voucher["paid_paise"], bool(voucher["number"])) == ("paid", gross(NET), True)
    assert shop.razorpay.ledger()["links"] == []
    await books_agree(shop, customer, gross(NET))


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_low_balance_is_topped_up_by_the_mandate(shop: Shop, trouble: str) -> None:
    customer = await prepaid_customer(shop)
    for fault in TROUBLE[trouble]:
        shop.razorpay.fault(**fault)
    await authorise(customer)
    rules = {"top_up_below_paise": NET - 10, "top_up_paise": NET}
    await customer.call("PUT", "/v1/billing/wallet/settings", **rules)
    for times in (1, 2):
        await shop.turn()
        assert [one["is_automatic"] for one in (await wallet_of(customer))["open_top_ups"]] == [True]
        await shop.advance(days=1.5)
        await shop.advance(days=0.5)
        assert [row["paise"] for row in await entries(customer)] == [NET] * times
        assert (await say(customer)).done
        if times == 1:
            continue
        rules = {"top_up_below_paise": 3 * NET, "top_up_paise": NET}
        (mandate,) = await customer.rows("SELECT token_id FROM mandates WHERE tenant_id = $1")
        shop.razorpay.debit_outcomes(mandate["token_id"], ["insufficient_funds"] * 4)
        await customer.call("PUT", "/v1/billing/wallet/settings", **rules)
    await shop.turn()
    await shop.advance(days=2.5)
    vouchers = await customer.bills("receipt_voucher")
    assert [bill["state"] for bill in vouchers] == ["paid", "paid", "void"]
    assert shop.razorpay.ledger()["links"] == [], "a top-up that nobody asked for has no link"
    await books_agree(shop, customer, 2 * gross(NET))


async def wallet_of(customer: Customer) -> dict[str, Any]:
    """The wallet, by the API."""
    return dict(await customer.call("GET", "/v1/billing/wallet"))


async def books_agree(shop: Shop, customer: Customer, kept: int) -> None:
    """The ledger's cash is what Razorpay kept, and its accounts add up to zero."""
    (row,) = await customer.rows(
        "SELECT sum(cash)::bigint AS cash, sum(receivable)::bigint AS receivable,"
        " sum(receivable + revenue + gst_payable + cash + customer_credit + write_off)::bigint AS total"
        " FROM ledger_entries WHERE tenant_id = $1"
    )
    assert (row["cash"], row["receivable"], row["total"]) == (kept, 0, 0)
    found = await shop.books.fetch("SELECT key FROM billing_findings WHERE closed_ms IS NULL")
    assert found == []


async def entries(customer: Customer) -> list[Any]:
    """The wallet's entries."""
    return await customer.rows("SELECT * FROM wallet_entries WHERE tenant_id = $1 ORDER BY id")


async def say(customer: Customer) -> Answer:
    """Sends a message whose tokens the provider counts as they are."""
    return await chat(customer.shop.http, customer.account, scripted(ref=customer.ref, words=WORDS))


async def until_refused(customer: Customer) -> list[Answer]:
    """A well-behaved client: it retries after a moment, and gives up when the balance is used up."""
    refusals: list[Answer] = []
    async with asyncio.timeout(120):
        while True:
            answer = await say(customer)
            if answer.status == 200:
                assert answer.done
                continue
            code = (answer.error or {}).get("code")
            assert (answer.status, code) in {(402, "wallet_empty"), (429, "held")}, answer.error
            refusals.append(answer)
            if code != "held":
                return refusals
            await asyncio.sleep(0.2)
