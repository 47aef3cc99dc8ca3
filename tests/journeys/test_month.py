"""A month in a minute: subscribe, chat past the allowance, the next cycle, the overage paid; and what can go wrong."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from billing.desk import build_desk
from core.changes import Changes
from core.clock import follow_test_clock, stop_following
from core.database import Database
from core.settings import Settings
from tests import simulated_razorpay as sandbox
from tests.harness import Api, Books, Razorpay, Simulator, client, environment, running
from tests.journeys.shop import BASE_PAISE, Shop, gross, operator, overage


@pytest.fixture
async def shop(
    database_url: str, redis_url: str, razorpay: Razorpay, simulator: Simulator, run_folder: Path, worker: str
) -> AsyncIterator[Shop]:
    """Open for business."""
    assert razorpay.clock_file is not None
    follow_test_clock(razorpay.clock_file)
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        razorpay_key_id=sandbox.KEY_ID,
        razorpay_key_secret=sandbox.KEY_SECRET,
        razorpay_base_url=razorpay.url,
    )
    database, redis, books = Database(database_url), Redis.from_url(redis_url), Books(database_url)
    desk = build_desk(settings, database, Changes(redis))
    api = Api(environment(database_url, redis_url, simulator.url), run_folder / f"shop-{worker}.log", razorpay=razorpay)
    with running(api):
        async with client(api.url) as http:
            yield await Shop(http, books, desk, razorpay, simulator, await operator(books)).open()
    stop_following()
    desk.razorpay.close()
    await redis.aclose()
    await books.close()
    await database.close()


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
