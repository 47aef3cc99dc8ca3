"""Overage by an add-on on an international card, up to the invoice that carries it."""

from dataclasses import replace

import pytest

from tests.journeys.shop import BASE_PAISE, Shop, gross, overage


@pytest.mark.slow
async def test_a_month_by_international_card(shop: Shop) -> None:
    shop.context = replace(shop.context, rules=replace(shop.context.rules, addons=True))
    customer = await shop.customer()
    await customer.subscribe(method="card_international")
    assert (await customer.chat(input_tokens=8_000, words=40)).done
    owed = overage(customer.used())
    await shop.advance(to=await customer.current_end() + 60)

    (charge,) = await customer.rows("SELECT * FROM charges WHERE tenant_id = $1")
    assert (charge["instrument"], charge["state"], charge["amount_paise"]) == ("addon", "submitted", gross(owed))
    (bill,) = await customer.bills("overage")
    assert (bill["state"], bill["taxable_paise"]) == ("open", owed)
    page = await shop.http.get(f"/v1/billing/bills/{bill['id']}/document.html", headers=customer.account.headers)
    assert "on the invoice after the next" in page.text

    assert (await customer.chat()).done
    await shop.advance(to=await customer.current_end() + 60)
    (bill,) = await customer.bills("overage")
    assert bill["state"] == "paid"
    carried = [one for one in shop.razorpay.ledger()["invoices"] if len(one["line_items"]) > 1]
    assert [(one["amount"], one["status"]) for one in carried] == [(gross(BASE_PAISE) + gross(owed), "paid")]
    assert [bill["total_paise"] for bill in await customer.bills("base")] == [gross(BASE_PAISE)] * 3
    assert shop.razorpay.ledger()["links"] == [], "no other way was tried"
    await shop.money_agrees()


async def test_by_upi_it_is_a_link_whatever_the_setting(shop: Shop) -> None:
    shop.context = replace(shop.context, rules=replace(shop.context.rules, addons=True))
    customer = await shop.customer()
    await customer.subscribe()
    assert (await customer.chat(input_tokens=8_000)).done
    await shop.advance(to=await customer.current_end() + 60)
    (charge,) = await customer.rows("SELECT * FROM charges WHERE tenant_id = $1")
    assert charge["instrument"] == "payment_link"
    await customer.pay_links()
    await shop.money_agrees()
