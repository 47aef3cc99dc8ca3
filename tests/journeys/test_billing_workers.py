"""Two real workers, forty due periods, and a kill -9 in between: one bill and one link each, no gap."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from billing.context import CLOSES, BillingContext
from billing.gst.invoice_numbers import parse_number
from tests.billing.operator import PERIOD, OperatorSetup
from tests.billing_context import open_billing_context
from tests.harness import Books, environment
from tests.programs import Process, starter, until
from tests.simulated_razorpay import Razorpay

TENANTS = 40
BILLS = "SELECT number, total_paise FROM bills WHERE number IS NOT NULL ORDER BY number"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts worker processes."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
async def context(database_url: str, redis_url: str, razorpay: Razorpay) -> AsyncIterator[BillingContext]:
    """A context for the setup."""
    async with open_billing_context(database_url, redis_url, razorpay) as made:
        yield made


async def test_a_worker_killed_among_forty_closes_and_charges_leaves_one_of_each(
    context: BillingContext, razorpay: Razorpay, database_url: str, redis_url: str, start: Callable[..., Process]
) -> None:
    setup, books = await OperatorSetup.open(context), Books(database_url)
    tenants = await setup.tenants(TENANTS)
    await setup.periods(tenants, PERIOD)
    for number, tenant_id in enumerate(tenants):
        await setup.add_usage(tenant_id, PERIOD, output_tokens=1_010 + number)
    settings = environment(database_url, redis_url, "http://127.0.0.1:9", LOG_LEVEL="info") | razorpay.env
    workers = [start("api.cli", "worker", **settings) for _ in range(2)]
    for worker in workers:
        await worker.says("queue_ready")

    async def count(query: str) -> int:
        (row,) = await books.fetch(f"SELECT count(*) AS n FROM {query}")
        return int(row["n"])

    async def enough(query: str, least: int) -> bool:
        return await count(query) >= least

    await context.post([CLOSES])
    await until(lambda: enough("charges WHERE state = 'submitted'", 5))
    workers[0].process.kill()
    await asyncio.to_thread(workers[0].process.wait, 10)
    assert await count("charges WHERE state = 'submitted'") < TENANTS, "it was killed in the middle"

    async def all_collected() -> bool:
        await context.post([CLOSES, "billing-collect"])
        await asyncio.sleep(0.3)
        return await enough("charges WHERE state = 'submitted'", TENANTS)

    await until(all_collected, within_s=120)
    bills = await books.fetch(BILLS)
    assert [parse_number(bill["number"]).running for bill in bills] == list(range(1, TENANTS + 1))
    links: list[dict[str, Any]] = [link for link in razorpay.ledger()["links"] if link["status"] == "created"]
    assert sorted(link["amount"] for link in links) == sorted(bill["total_paise"] for bill in bills)
    assert len({link["reference_id"] for link in links}) == TENANTS
    await books.close()
