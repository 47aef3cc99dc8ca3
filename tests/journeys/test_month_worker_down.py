"""The worker is down across two cycle ends, with webhooks stored by the API, and with none arriving."""

import asyncio

import pytest

from billing.reconciliation import reconcile_razorpay
from tests.journeys.shop import BASE_PAISE, Customer, Shop, gross, overage


async def _two_cycles(shop: Shop, customer: Customer) -> list[int]:
    """Uses tokens in two cycles while no worker runs; returns their overage."""
    owed, asked = [], 0
    for tokens in (6_000, 11_000):
        assert (await customer.chat(input_tokens=tokens, words=30)).done
        owed.append(overage(customer.used(asked)))
        asked = len(shop.provider.ledger(customer.ref))
        await asyncio.to_thread(lambda: shop.razorpay.advance(days=31, drain=True))
    return owed


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
async def test_two_cycle_ends_are_made_up_for(shop: Shop, lost: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    customer = await shop.customer()
    await customer.subscribe()
    if lost:
        shop.razorpay.set_webhook(enabled=False)
    owed = await _two_cycles(shop, customer)
    if lost:
        found = await reconcile_razorpay(shop.context)
        assert (bool(found.healed), found.unexplained) == (True, [])
    await shop.turn()
    assert [bill["taxable_paise"] for bill in await customer.bills("overage")] == owed
    assert [bill["total_paise"] for bill in await customer.bills("base")] == [gross(BASE_PAISE)] * 3

    await customer.pay_links()
    await reconcile_razorpay(shop.context)
    await shop.turn()
    assert {bill["state"] for bill in await customer.bills("overage")} == {"paid"}
    found = await reconcile_razorpay(shop.context)
    assert (found.healed, found.unexplained) == ([], [])
    await shop.money_agrees()
