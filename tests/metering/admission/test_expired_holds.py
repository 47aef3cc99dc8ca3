"""A hold past its deadline counts until Postgres has answered for it; one that Postgres does not know is voided."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from core.ids import uuid7
from metering.admission.redis_scripts import QuotaScripts, tenant_key, user_key
from metering.journal.group_commit import Poisoned
from metering.journal.journal import Opened
from metering.pricing.tokens import Usage
from metering.quota.counters import Hold, WindowState
from metering.quota.query import Grant
from tests.harness import Account, Books
from tests.metering.process import Process, books_say, recorder, redis_counters

Start = Callable[..., Awaitable[Process]]
USAGE = Usage(10, 20, 30, 40, 50, 5, 2)


@pytest.fixture
async def short(start: Start) -> Process:
    """A process whose requests may run for one millisecond."""
    return await start(ttl_ms=1)


def hold_like(grant: Grant) -> Hold:
    """A hold in the windows of `grant`, past its deadline."""
    request = grant.request
    minute, day = request.opened_ms // 60_000, request.day.isoformat()
    return Hold(7, 8, 2, 9, request.opened_ms - 1, minute, day, request.period_id, request.user_id)


def keys(account: Account) -> tuple[str, str]:
    """The tenant's hash and the user's."""
    return tenant_key(account.tenant_id), user_key(account.tenant_id, account.user_id)


async def field(quota: QuotaScripts, key: str, name: str) -> bytes | None:
    answer: bytes | None = await quota.pipeline.command("HGET", key, name)
    return answer


async def test_an_open_request_goes_on_counting(short: Process, books: Books) -> None:
    account = await books.account()
    grant = await short.admit(account)
    before = await redis_counters(short.quota, grant)
    await asyncio.sleep(0.01)
    assert await short.expired_holds.look(account.tenant_id, account.user_id) == 0
    assert await redis_counters(short.quota, grant) == before == await books_say(books, grant)
    for key in keys(account):  # checked again, but not at once
        assert int(await field(short.quota, key, "x") or 0) > await short.quota.now_ms() + 5_000


async def test_a_settled_request_takes_the_place_of_its_hold(short: Process, books: Books) -> None:
    account = await books.account()
    grant = await short.admit(account)
    settlement = await short.settlements._measure(grant, recorder(USAGE))
    await asyncio.sleep(0.01)
    await short.journal.settlements.submit(settlement)  # then the process died, before it could settle in Redis
    assert await redis_counters(short.quota, grant) != await books_say(books, grant)
    assert await short.expired_holds.look(account.tenant_id, account.user_id) == 1
    after = await redis_counters(short.quota, grant)
    assert after == await books_say(books, grant)
    assert after[0][1][1] == WindowState((1, 10, 20, 30, 40, 50, 5, 2, settlement.cost_nano_usd))
    assert await short.expired_holds.look(account.tenant_id, account.user_id) == 0
    assert await field(short.quota, keys(account)[0], "x") is None


async def test_a_hold_that_postgres_does_not_know_is_voided_first(process: Process, books: Books) -> None:
    account = await books.account()
    grant = await process.admit(account)
    before = await redis_counters(process.quota, grant)
    hold, unknown = hold_like(grant), uuid7(grant.request.opened_ms)
    names = f"m:{hold.minute}", f"d:{hold.day}", f"p:{hold.period}"
    for key in keys(account):
        for name in names:
            state = WindowState.unpack(await field(process.quota, key, name))
            more = tuple(a + b for a, b in zip(state.held, (1, 7, 8, 2, 9), strict=True))
            await process.quota.pipeline.command("HSET", key, name, WindowState(state.used, more).pack())
        await process.quota.pipeline.command("HSET", key, f"h:{unknown.hex}", hold.pack(), "c", 2)
    assert await process.expired_holds.look(account.tenant_id, account.user_id) == 1
    assert await redis_counters(process.quota, grant) == before
    (row,) = await books.fetch("SELECT * FROM usage_requests WHERE id = $1", unknown)
    assert (row["state"], row["outcome"], row["user_id"]) == ("void", "not_opened", account.user_id)
    late = replace(grant.request, id=unknown)
    with pytest.raises(Poisoned, match="refuses this row"):
        await process.journal.opens.submit(late)
    (row,) = await books.fetch("SELECT state FROM usage_requests WHERE id = $1", unknown)
    assert row["state"] == "void"
    assert await process.journal.opens.submit(replace(grant.request, id=uuid7())) is Opened.OPEN


async def test_one_check_at_a_time(short: Process, books: Books) -> None:
    account = await books.account()
    await short.admit(account)
    looks = [short.expired_holds.look(account.tenant_id, account.user_id) for _ in range(5)]
    assert len(set(looks)) == 1
    await looks[0]
    assert short.expired_holds.look(account.tenant_id, account.user_id) is not looks[0]


async def test_a_check_reads_holds_and_no_users(short: Process, books: Books) -> None:
    account = await books.account()
    grant = await short.admit(account)
    tenant, _ = keys(account)
    before = await short.pipeline.command("HLEN", tenant)
    run_id = await short.pipeline.connect()
    for _ in range(300):
        assert await short.quota.build_user(account.tenant_id, uuid7(), grant.request.epoch, run_id, {"c": 0})
    assert await short.pipeline.command("HLEN", tenant) == before  # expired_holds.lua reads only this hash
    assert await short.pipeline.command("HGET", tenant, "n") == b"301"
