"""Changes: another plan, authorised or not; cancellation; the last cycle and a renewal."""

import asyncio
from dataclasses import replace

import pytest

from billing.alerts.alerts import store_alerts
from billing.subscriptions.intents import subscribe
from tests.harness import ACTOR
from tests.journeys.shop import BASE_PAISE, Customer, Shop, gross, overage, taxable


@pytest.mark.slow
async def test_a_change_of_plan_begins_where_the_paid_time_ends(shop: Shop) -> None:
    await shop.publish("big", base_paise=500_000)
    customer = await shop.customer()
    await customer.subscribe()
    end = await customer.current_end()
    assert (await customer.chat(input_tokens=4_000)).done
    first = customer.used()
    view = await customer.subscribe("big")
    assert view["waiting"] is None
    assert await customer.rows("SELECT 1 FROM subscriptions WHERE tenant_id = $1 AND status = 'active'")
    await shop.advance(to=end - 86_400)
    assert await _statuses(customer) == ["cancelled", "authenticated"]
    assert (await customer.chat()).done, "the old one is paid to its end"
    first = customer.used()

    await shop.advance(to=end + 3_600)
    assert await _statuses(customer) == ["cancelled", "active"]
    assert [bill["total_paise"] for bill in await customer.bills("base")] == [gross(BASE_PAISE), gross(500_000)]
    assert taxable(await customer.bills("overage")) == overage(first)
    await customer.pay_links()
    assert (await customer.chat()).done
    await shop.money_agrees()


@pytest.mark.slow
async def test_a_change_that_nobody_authorises_changes_nothing(shop: Shop) -> None:
    await shop.publish("big", base_paise=500_000)
    customer = await shop.customer()
    await customer.subscribe()
    end = await customer.current_end()
    view = await customer.call("POST", "/v1/billing/subscription", expect=201, plan="big")
    assert view["waiting"]["plan"] == "big"
    again = await customer.call("POST", "/v1/billing/subscription", expect=201, plan="big")
    assert again["waiting"]["pay_url"] == view["waiting"]["pay_url"], "who asks twice gets the first link"
    await shop.advance(to=end + 7_200)
    view = await customer.call("GET", "/v1/billing/subscription")
    assert (view["current"]["plan"], view["waiting"]) == ("team", None)
    assert [bill["total_paise"] for bill in await customer.bills("base")] == [gross(BASE_PAISE)] * 2
    assert (await customer.chat()).done
    await shop.money_agrees()


async def test_two_clicks_at_once_are_answered_with_one_link(shop: Shop) -> None:
    """The second request finds the first one's call to Razorpay running."""
    customer = await shop.customer()
    shop.razorpay.fault(route="POST /v1/subscriptions", kind="slow", when="before", delay_s=1.5)

    views = await asyncio.gather(
        *(customer.call("POST", "/v1/billing/subscription", expect=201, plan="team") for _ in range(3))
    )

    links = {view["waiting"]["pay_url"] for view in views}
    assert len(links) == 1
    assert None not in links
    assert len(shop.razorpay.ledger()["subscriptions"]) == 1


@pytest.mark.slow
async def test_from_block_to_bill_at_the_same_price_at_once(shop: Shop) -> None:
    await shop.publish("strict", past_allowance="block", ceiling_paise=None)
    customer = await shop.customer()
    await customer.subscribe("strict")
    assert (await customer.chat(input_tokens=1_000, words=40)).done
    assert (await customer.chat()).status in {413, 429}, "it blocks at the allowance"
    view = await customer.call("POST", "/v1/billing/subscription", expect=201, plan="team")
    assert (view["current"]["plan"], view["waiting"]) == ("team", None)
    assert (await customer.chat(input_tokens=900, words=40)).done
    await shop.advance(to=await customer.current_end() + 60)
    assert taxable(await customer.bills("overage")) == overage(customer.used())
    await customer.pay_links()
    await shop.money_agrees()


@pytest.mark.slow
async def test_the_end_at_the_cycles_end_with_a_last_overage(shop: Shop) -> None:
    customer = await shop.customer()
    await customer.subscribe()
    end = await customer.current_end()
    view = await customer.call("POST", "/v1/billing/subscription/cancel", when="period_end")
    assert view["current"]["ends_at"] is not None
    view = await customer.call("DELETE", "/v1/billing/subscription/cancel")
    assert view["current"]["ends_at"] is None, "taken back in time"
    await customer.call("POST", "/v1/billing/subscription/cancel", when="period_end")
    await shop.advance(to=end - 3_600)
    assert (await customer.chat(input_tokens=7_000, words=60)).done, "it serves to its end"
    await shop.advance(to=end + 60)
    refused = await customer.chat()
    assert refused.status == 402
    assert refused.error is not None
    assert refused.error["code"] == "subscription_required"
    (bill,) = await customer.bills("overage")
    assert bill["taxable_paise"] == overage(customer.used())
    await customer.pay_links()
    await shop.advance(days=35)
    assert len(await customer.bills("base")) == 1, "no further charge"
    await shop.money_agrees()


@pytest.mark.slow
async def test_cancelled_now_and_served_to_the_end_of_what_is_paid(shop: Shop) -> None:
    customer = await shop.customer()
    await customer.subscribe()
    end = await customer.current_end()
    await customer.call("POST", "/v1/billing/subscription/cancel", when="now")
    await shop.turn()
    assert await _statuses(customer) == ["cancelled"]
    assert (await customer.chat()).done
    await shop.advance(to=end + 60)
    assert (await customer.chat()).status == 402
    await shop.money_agrees()


@pytest.mark.slow
async def test_the_last_cycle_and_a_renewal(shop: Shop) -> None:
    shop.context = replace(shop.context, rules=replace(shop.context.rules, cycles=2))
    customer = await shop.customer()
    await subscribe(shop.context, ACTOR, customer.account.tenant_id, "team")
    await shop.turn()
    shop.razorpay.authorise(await customer.razorpay_id(), "upi")
    await shop.turn()
    await shop.advance(to=await customer.current_end() + 60)
    assert (await _statuses(customer), (await customer.chat(input_tokens=3_000)).done) == (["completed"], True)
    last = customer.used()
    end = await customer.current_end()
    for _ in range(2):
        await store_alerts(shop.context)
    alerts = (await customer.call("GET", "/v1/billing/alerts"))["items"]
    assert [one["type"] for one in alerts].count("subscription.renewal_due") == 1, "a renewal is offered, once"
    await customer.subscribe()
    assert await _statuses(customer) == ["completed", "authenticated"]
    await shop.advance(to=end + 60)
    assert await _statuses(customer) == ["completed", "active"]
    assert len(await customer.bills("base")) == 3
    assert taxable(await customer.bills("overage")) == overage(last), "the last cycle has no next invoice"
    assert (await customer.chat()).done
    await customer.pay_links()
    await shop.money_agrees()


async def _statuses(customer: Customer) -> list[str]:
    rows = await customer.rows("SELECT status FROM subscriptions WHERE tenant_id = $1 ORDER BY id")
    return [row["status"] for row in rows]
