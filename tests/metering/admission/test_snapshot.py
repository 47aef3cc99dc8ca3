"""Counters from Postgres: sleepers hold in full instead of counting, and entries count in their minute."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from core.clock import now_ms
from core.ids import uuid7
from metering.admission.snapshot import CounterSnapshot, names_at, read_snapshot
from metering.pricing.tokens import Usage
from metering.quota.counters import ScopeCounters, WindowState
from metering.quota.query import Grant, Retry
from tests.harness import Account, Books
from tests.metering.process import Process, books_say, redis_counters
from tests.metering.rows import KOLKATA

NOTHING = WindowState()


async def both(process: Process, account: Account, grant: Grant) -> tuple[ScopeCounters, ScopeCounters]:
    """The counters of the user and its tenant from Postgres, in the windows of the grant."""
    at_ms = grant.request.opened_ms
    async with process.pool.acquire() as connection:
        snapshots: list[CounterSnapshot] = [
            await read_snapshot(connection, KOLKATA, account.tenant_id, user_id, at_ms)
            for user_id in (account.user_id, None)
        ]
    user, tenant = (read.counters(names_at(KOLKATA, at_ms)) for read in snapshots)
    return user, tenant


async def sleep_until(books: Books, grant: Grant, after_s: float) -> None:
    """Makes a request one that recovery settled while its process may only sleep."""
    await books.fetch(
        "UPDATE usage_requests SET hold_until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1",
        grant.request.id,
        after_s,
    )


async def test_a_sleeper_holds_in_full_and_its_counts_wait(process: Process, books: Books) -> None:
    account = await books.account()
    other = await books.account(tenant_id=account.tenant_id)
    grant, running = await process.admit(account), await process.admit(other, max_tokens=7)
    settlement = await process.settle(grant, Usage(1, 2, 3, 4, 5, 1, 6))
    counts = (1, 1, 2, 3, 4, 5, 1, 6, settlement.cost_nano_usd)
    hold, its = grant.request.held_nano_usd, running.request.held_nano_usd
    user, tenant = await both(process, account, grant)
    assert user == ScopeCounters(0, (WindowState(counts),) * 3)
    assert tenant == ScopeCounters(1, (WindowState(counts, (1, 100, 7, 0, its)),) * 3)

    await sleep_until(books, grant, 60)
    user, tenant = await both(process, account, grant)
    assert user == ScopeCounters(1, (WindowState(NOTHING.used, (1, 100, 100, 0, hold)),) * 3)
    assert tenant == ScopeCounters(2, (WindowState(NOTHING.used, (2, 200, 107, 0, hold + its)),) * 3)
    user, _ = await both(process, other, grant)
    assert user == ScopeCounters(1, (WindowState(NOTHING.used, (1, 100, 7, 0, its)),) * 3)

    await sleep_until(books, grant, -1)
    user, tenant = await both(process, account, grant)
    assert user == ScopeCounters(0, (WindowState(counts),) * 3)
    assert tenant == ScopeCounters(1, (WindowState(counts, (1, 100, 7, 0, its)),) * 3)


@pytest.mark.slow
async def test_the_hold_of_a_sleeper_is_not_released_before_its_time(
    start: Callable[..., Awaitable[Process]], books: Books
) -> None:
    process = await start(ttl_ms=1)
    account = await books.account()
    grant = await process.admit(account)
    settlement = await process.settlements._measure(grant, process.settlements.recorder(grant))
    await asyncio.sleep(0.01)
    await process.journal.settlements.submit(settlement)  # by recovery
    await sleep_until(books, grant, 60)
    held = await redis_counters(process.quota, grant)
    assert await process.expired_holds.look(account.tenant_id, account.user_id) == 0
    assert await redis_counters(process.quota, grant) == held
    await process.rebuilder.rebuild_tenant(account.tenant_id, grant.request.epoch)
    await process.rebuilder.build_user(account.tenant_id, account.user_id, grant.request.epoch + 1)
    assert await redis_counters(process.quota, grant) == held
    assert [of[0] for of in held] == [1, 1]
    assert await process.expired_holds.look(account.tenant_id, account.user_id) == 0
    assert await redis_counters(process.quota, grant) == held

    await sleep_until(books, grant, 0.5)
    await process.rebuilder.rebuild_tenant(account.tenant_id, grant.request.epoch + 1)
    await process.rebuilder.build_user(account.tenant_id, account.user_id, grant.request.epoch + 2)
    assert await redis_counters(process.quota, grant) == held
    await asyncio.sleep(0.55)
    assert await process.expired_holds.look(account.tenant_id, account.user_id) == 1
    assert await redis_counters(process.quota, grant) == await books_say(books, grant)


async def test_an_entry_counts_in_the_minute_of_its_request(process: Process, books: Books) -> None:
    account = await books.account()
    other = await books.account(tenant_id=account.tenant_id)
    grant = await process.admit(account)
    await process.settle(grant, Usage(10, 20, 30, 40, 50))
    long_ago = uuid7(grant.request.opened_ms - 600_000)
    for request_id, tokens in ((grant.request.id, -7), (grant.request.id, 2), (long_ago, 1_000), (None, 10_000)):
        await books.fetch(
            "INSERT INTO usage_entries"
            " (tenant_id, id, kind, request_id, user_id, period_id, output_tokens, actor, reason)"
            " VALUES ($1, $2, 'correction', $3, $4, $5, $6, 'test', 'test')",
            account.tenant_id,
            uuid7(),
            request_id,
            account.user_id,
            grant.request.period_id,
            tokens,
        )
    user, tenant = await both(process, account, grant)
    assert user.windows[0].used[:6] == tenant.windows[0].used[:6] == (1, 10, 15, 30, 40, 50)
    assert (await both(process, other, grant))[0].windows[0] == NOTHING


async def test_what_was_settled_while_redis_was_built_is_not_held_in_it(process: Process, books: Books) -> None:
    """Its settlement looked for the hold before the hash was written."""
    account = await books.account()
    grant, last = await process.admit(account), await process.admit(account)
    async with process.pool.acquire() as connection:
        before = await read_snapshot(connection, KOLKATA, account.tenant_id, None, now_ms())
    assert before.holds.keys() == {grant.request.id, last.request.id}
    await process.settle(grant, Usage(1, 2, 3, 4, 5))
    run_id, epoch = await process.pipeline.connect(), grant.request.epoch + 1
    assert await process.quota.build_tenant(account.tenant_id, epoch, run_id, before.fields())
    await process.rebuilder._release(account.tenant_id, before)
    names = names_at(KOLKATA, now_ms())
    assert isinstance(await process.quota.read(account.tenant_id, account.user_id, names), Retry)
    await process.rebuilder.build_user(account.tenant_id, account.user_id, epoch)
    assert await redis_counters(process.quota, grant) == await books_say(books, grant)
