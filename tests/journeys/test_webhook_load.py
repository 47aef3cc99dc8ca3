"""200 webhooks a second (for LOAD_S) beside a busy relay, without a worker: all stored, and applied once.

All processes share the test machine's few cores, so no time is asserted. Run alone with `-s`, it prints the slowest
delivery.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from billing.context import BillingContext
from billing.models import Subscription
from billing.webhooks.processing import process_events
from core.ids import uuid7
from tests.billing.deliveries import event_body, read_subscription, signed, subscriber
from tests.billing.operator import OperatorSetup
from tests.billing_context import open_billing_context
from tests.harness import Account, Api, Books, Simulator, chat, client, environment, running, scripted
from tests.simulated_razorpay import WEBHOOK_SECRET, Razorpay

A_SECOND = 200
SECONDS = int(os.environ.get("LOAD_S", "3"))
CHATS_AT_ONCE = 24
PACE_MS = 15
"""A chunk every 15 ms for 24 streams: some 1,500 chunks a second."""


@pytest.fixture
async def context(database_url: str, redis_url: str, razorpay: Razorpay) -> AsyncIterator[BillingContext]:
    """A context for the worker that starts later."""
    async with open_billing_context(database_url, redis_url, razorpay) as made:
        yield made


async def _chat_on(http: httpx2.AsyncClient, account: Account, stop: asyncio.Event) -> int:
    """Chats in a loop; returns the number of completed answers."""
    answered = 0
    while not stop.is_set():
        answer = await chat(http, account, scripted(words=150, coalesce=False, piece_delay_ms=PACE_MS))
        assert answer.done, answer.error
        answered += 1
    return answered


async def _deliver(http: httpx2.AsyncClient, rows: list[Subscription]) -> list[float]:
    """Sends deliveries at a fixed rate, without waiting for answers; returns the seconds of each."""

    async def bring(body: bytes) -> float:
        began = time.perf_counter()
        answer = await http.post("/webhooks/razorpay", content=body, headers=signed(body, uuid7().hex[-14:]))
        assert answer.status_code == 200, answer.text
        return time.perf_counter() - began

    began, tasks = time.perf_counter(), []
    for number in range(A_SECOND * SECONDS):
        await asyncio.sleep(max(0.0, began + number / A_SECOND - time.perf_counter()))
        shown = {"id": rows[number % len(rows)].razorpay_id, "paid_count": number}  # a known body is not a new event
        tasks.append(asyncio.create_task(bring(event_body("subscription.charged", subscription=shown))))
    return sorted(await asyncio.gather(*tasks))


@pytest.mark.slow
async def test_two_hundred_events_a_second_beside_a_busy_relay(
    context: BillingContext,
    razorpay: Razorpay,
    simulator: Simulator,
    database_url: str,
    redis_url: str,
    run_folder: Path,
) -> None:
    setup, books = await OperatorSetup.open(context), Books(database_url)
    rows = [await subscriber(setup, razorpay) for _ in range(4)]
    account, stop = await books.account(), asyncio.Event()
    given = {"RAZORPAY_WEBHOOK_SECRET": WEBHOOK_SECRET, "STORE_DEADLINE_S": "30"}  # printed, not asserted
    settings = environment(database_url, redis_url, simulator.url) | given
    with running(Api(settings, run_folder / "webhook-load.log")) as api:
        async with client(api.url) as relay, client(api.url) as http:
            chats = [asyncio.create_task(_chat_on(relay, account, stop)) for _ in range(CHATS_AT_ONCE)]
            took_s = await _deliver(http, rows)
            stop.set()
            answered = sum(await asyncio.gather(*chats))

    kept = await books.fetch("SELECT state, count(*) FROM webhook_events GROUP BY state")
    assert [tuple(row) for row in kept] == [("received", A_SECOND * SECONDS)]
    await asyncio.gather(*(process_events(context) for _ in range(2)))
    ended = await books.fetch("SELECT state, tries, count(*) FROM webhook_events GROUP BY state, tries")
    assert [tuple(row) for row in ended] == [("applied", 1, A_SECOND * SECONDS)]
    assert {(await read_subscription(context, row.tenant_id, row.id)).status for row in rows} == {"active"}
    assert len(await setup.bills()) == len(rows)
    await books.close()
    p99_s = took_s[len(took_s) * 99 // 100]
    figures = f"{len(took_s)} events beside {answered} chats: p99 {p99_s:.3f} s, slowest {took_s[-1]:.3f} s"
    sys.stderr.write(f"{figures}\n")
    assert answered >= CHATS_AT_ONCE, "the relay was not busy"
