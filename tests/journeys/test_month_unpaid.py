"""Unpaid fees: retries, halted, 402, and recovery; an overdue overage bill."""

import pytest

from tests.journeys.shop import BASE_PAISE, Shop, gross, overage

POOR = "insufficient_funds"


@pytest.mark.slow
async def test_a_charge_that_fails_for_good_and_is_paid_by_hand(shop: Shop) -> None:
    customer = await shop.customer()
    await customer.subscribe(method="card_domestic")
    razorpay_id, end = await customer.razorpay_id(), await customer.current_end()
    shop.razorpay.outcomes(razorpay_id, [POOR] * 4)
    await shop.advance(to=end + 60)
    assert (await customer.current())["status"] == "pending"
    assert (await customer.chat()).done, "Razorpay tries again: the grace lasts"

    await shop.advance(days=3.2)
    assert (await customer.current())["status"] == "halted"
    await shop.advance(days=1)
    refused = await customer.chat()
    assert refused.status == 402
    assert refused.error is not None
    assert (refused.error["code"], "http" in refused.error["detail"]) == ("payment_required", False)
    assert len(await customer.bills("base")) == 1

    (invoice,) = [one for one in shop.razorpay.ledger()["invoices"] if one["status"] == "issued"]
    shop.razorpay.pay_invoice(invoice["id"])
    await shop.turn()
    assert (await customer.chat()).done, "let in again at once"
    assert (await customer.current())["status"] == "active"
    assert [bill["state"] for bill in await customer.bills("base")] == ["paid", "paid"]
    await shop.money_agrees()


@pytest.mark.slow
async def test_an_overage_bill_past_its_due_date_and_paid_in_the_end(shop: Shop) -> None:
    customer = await shop.customer()
    await customer.subscribe()
    assert (await customer.chat(input_tokens=9_000, words=80)).done
    owed = overage(customer.used())
    await shop.advance(to=await customer.current_end() + 60)
    (bill,) = await customer.bills("overage")
    assert (bill["state"], bill["taxable_paise"]) == ("open", owed)

    await shop.advance(days=6.9)
    assert (await customer.chat()).done, "it is due in seven days"
    await shop.advance(days=0.2)
    refused = await customer.chat()
    assert refused.status == 402
    assert refused.error is not None
    assert refused.error["code"] == "bill_overdue"
    (shown,) = [one for one in (await customer.call("GET", "/v1/billing/bills"))["items"] if one["kind"] == "overage"]
    assert shown["pay_url"], "its own admin sees where to pay"

    await customer.pay_links()
    assert (await customer.chat()).done
    (bill,) = await customer.bills("overage")
    assert (bill["state"], bill["paid_paise"]) == ("paid", gross(owed))
    await shop.money_agrees()


async def test_who_does_not_pay_falls_back_to_its_own_plan_where_the_plan_says_so(shop: Shop) -> None:
    await shop.publish("kind", when_unpaid="free")
    await shop.publish("free", base_paise=0, past_allowance="block", ceiling_paise=None)
    customer = await shop.customer()
    await shop.operate("PUT", f"/v1/admin/tenants/{customer.account.tenant_id}/plan", code="free")
    await customer.subscribe("kind", method="card_domestic")
    shop.razorpay.outcomes(await customer.razorpay_id(), [POOR] * 4)
    await shop.advance(to=await customer.current_end() + 60)
    await shop.advance(days=4.5)
    assert (await customer.chat(input_tokens=1_000, words=5)).done, "within what Free includes"
    refused = await customer.chat()
    assert refused.status in {413, 429}, "and no further"
    assert [bill["total_paise"] for bill in await customer.bills()] == [gross(BASE_PAISE)]
    await shop.money_agrees()
