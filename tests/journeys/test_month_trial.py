"""A trial and its first charge; a pause in the UPI app; a revoked mandate."""

import pytest

from tests.journeys.shop import BASE_PAISE, Customer, Shop, gross


@pytest.mark.slow
async def test_a_trial_gives_the_plan_blocks_and_is_charged_at_its_end(shop: Shop) -> None:
    await shop.publish("tried", trial_days=10)
    customer = await shop.customer()
    assert (await customer.chat()).done, "no plan, no bounds"
    view = await customer.subscribe("tried")
    assert view["current"]["status"] == "authenticated"
    assert await customer.bills() == []
    assert (await customer.chat(input_tokens=1_000)).done
    assert (await customer.chat()).status in {413, 429}, "a trial ends at the allowance"
    await shop.advance(days=10.1)
    assert (await customer.current())["status"] == "active"
    assert [bill["total_paise"] for bill in await customer.bills()] == [gross(BASE_PAISE)]
    assert (await customer.chat(input_tokens=1_500)).done, "past the allowance it is billed now"
    assert [bill["kind"] for bill in await customer.bills()] == ["base"], "the trial cost nothing"
    await shop.money_agrees()


@pytest.mark.slow
async def test_paused_serves_what_is_paid_and_goes_on_when_resumed(shop: Shop) -> None:
    customer = await shop.customer()
    await customer.subscribe()
    end = await customer.current_end()
    await customer.call("POST", "/v1/billing/subscription/pause")
    await shop.turn()
    assert (await customer.current())["status"] == "paused"
    assert (await customer.chat()).done
    await shop.advance(to=end + 3_600)
    assert (await customer.chat()).status == 402
    await customer.call("POST", "/v1/billing/subscription/resume")
    await shop.turn()
    await shop.advance(days=1)
    assert (await customer.current())["status"] == "active"
    await shop.money_agrees()


@pytest.mark.slow
async def test_a_revoked_mandate_serves_what_is_paid(shop: Shop) -> None:
    customer = await shop.customer()
    await customer.subscribe()
    shop.razorpay.customer(await customer.razorpay_id(), "revoke")
    await shop.turn()
    assert (await customer.chat()).done
    await shop.advance(to=await _paid_through(customer) + 60)
    assert (await customer.chat()).status == 402
    await shop.money_agrees()


async def _paid_through(customer: Customer) -> int:
    (row,) = await customer.rows("SELECT paid_through_ms FROM subscriptions WHERE tenant_id = $1")
    return int(row["paid_through_ms"]) // 1000


async def test_an_e_mandate_gives_nothing_before_its_bank_has_confirmed(shop: Shop) -> None:
    customer = await shop.customer()
    view = await customer.subscribe(method="emandate")
    assert view["current"] is None
    assert view["waiting"]["status"] == "created"
    assert await customer.bills() == []
    await shop.advance(days=2)
    assert (await customer.current())["status"] == "active"
    assert [bill["total_paise"] for bill in await customer.bills()] == [gross(BASE_PAISE)]
    await shop.money_agrees()
