"""A month: subscribe, chat past the allowance, next cycle, overage paid."""

from tests.journeys.shop import BASE_PAISE, Shop, gross, overage


async def test_a_month_by_upi(shop: Shop) -> None:
    customer = await shop.customer()
    view = await customer.subscribe(by_page=True)
    assert view["current"]["status"] == "active"
    (base,) = await customer.bills()
    assert (base["kind"], base["state"], base["total_paise"]) == ("base", "paid", gross(BASE_PAISE))

    for _ in range(3):
        assert (await customer.chat(input_tokens=5_000, words=60)).done
    assert await customer.bills("overage") == [], "nothing is billed before the period ends"
    await shop.advance(to=await customer.current_end() + 60)

    (bill,) = await customer.bills("overage")
    assert (bill["state"], bill["taxable_paise"]) == ("open", overage(customer.used()))
    assert bill["total_paise"] == gross(bill["taxable_paise"])
    assert len(await customer.bills("base")) == 2, "the next cycle is paid"
    await customer.pay_links()
    (bill,) = await customer.bills("overage")
    assert bill["state"] == "paid"

    asked = len(shop.provider.ledger(customer.ref))
    assert (await customer.chat(input_tokens=2_000, words=10)).done
    await shop.advance(days=32)
    await customer.pay_links()
    assert [bill["taxable_paise"] for bill in await customer.bills("overage")][1:] == [overage(customer.used(asked))]
    await shop.money_agrees()
