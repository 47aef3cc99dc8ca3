"""A request that gives up waiting for Postgres: its hold is released, and a row that it opened does not stay open."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from core.errors import Unavailable
from metering.quota.query import Grant
from tests.harness import Books
from tests.metering.process import Process, principal, redis_counters, start_process, text_ask

REQUESTS = 12


@pytest.fixture
async def ours(metering_database: str, redis_url: str) -> AsyncIterator[Process]:
    process = await start_process(metering_database, redis_url)
    yield process
    await process.stop()


async def test_holds_are_released_and_nothing_stays_open(
    ours: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the tenant's lock is held, one batch is sent and waits for it; the others are never sent."""
    account = await books.account()
    first = await ours.admit(account)
    await ours.settlements.begin(first, ours.settlements.recorder(first))
    monkeypatch.setattr("metering.journal.group_commit._MAX_BATCH", 4)

    async def ask() -> float:
        began_s = time.monotonic()
        with pytest.raises(Unavailable):
            await ours.admission.admit(principal(account), text_ask(100, 68), within_s=0.5)
        return time.monotonic() - began_s

    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM tenant_epochs WHERE tenant_id = $1 FOR UPDATE", account.tenant_id)
        waited_s = await asyncio.gather(*(ask() for _ in range(REQUESTS)))
        assert max(waited_s) < 1.5
        assert len(ours.running) == 0
        assert await running(ours, first, at_most=4) <= 4  # those that were sent
    async with asyncio.timeout(20):
        while await running(ours, first, at_most=0):
            await ours.recovery.recover_orphans()
    assert {row["state"] for row in await books.requests(account)} <= {"settled", "void"}
    sums = await books.sums("usage_requests", account.tenant_id)
    assert sums.pop("requests") <= 1 + 4, "each that was opened is an attempt"
    assert not any(sums.values())


async def running(process: Process, first: Grant, *, at_most: int) -> int:
    """The user's running requests in Redis, once at most `at_most`, or after a second."""
    count = -1
    for _ in range(50):
        (count, _), _ = await redis_counters(process.quota, first)
        if count <= at_most:
            break
        await asyncio.sleep(0.02)
    return count
