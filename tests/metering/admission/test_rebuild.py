"""Redis lost, flushed, restored or restarted: the next grant counts exactly what Postgres has."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from redis.asyncio import Redis

from core.errors import Unavailable
from metering.admission.admission import QuotaExceeded
from metering.admission.redis_scripts import built_users_key, tenant_key, user_key
from metering.journal.records import OpenRequest
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.query import Grant, Mend, Retry
from metering.quota.windows import WindowKind
from sandbox.valkey import Valkey
from tests.harness import Account, Books
from tests.metering.process import Process, books_say, redis_counters
from tests.metering.switch import Switch

Start = Callable[..., Awaitable[Process]]
Loss = Callable[[Process, Account], Awaitable[None]]


async def epoch(books: Books, tenant_id: UUID) -> int:
    """The tenant's epoch in Postgres."""
    rows = await books.fetch("SELECT epoch FROM tenant_epochs WHERE tenant_id = $1", tenant_id)
    return int(rows[0]["epoch"]) if rows else 0


async def live(process: Process, account: Account) -> list[Grant]:
    """Three requests: two settled, one that still runs."""
    grants = [await process.admit(account, max_tokens=100 + size) for size in range(3)]
    await process.settle(grants[0], Usage(1, 20, 300, 4_000, 50_000))
    await process.settle(grants[1], Usage(7, 7, 7, 7, 7))
    return grants


async def flush(process: Process, _: Account) -> None:
    await process.pipeline.command("FLUSHDB")


async def lose_tenant(process: Process, account: Account) -> None:
    assert await process.pipeline.command("DEL", tenant_key(account.tenant_id)) == 1


async def lose_user(process: Process, account: Account) -> None:
    assert await process.pipeline.command("DEL", user_key(account.tenant_id, account.user_id)) == 1


async def lose_user_and_the_set(process: Process, account: Account) -> None:
    """Then the only trace of the user's hash is that the set is smaller than the tenant's hash says."""
    await lose_user(process, account)
    assert await process.pipeline.command("DEL", built_users_key(account.tenant_id)) == 1


async def lose_the_size_of_the_set(process: Process, account: Account) -> None:
    assert await process.pipeline.command("HDEL", tenant_key(account.tenant_id), "n") == 1


async def counters_of_an_older_version(process: Process, account: Account) -> None:
    """That version's hashes have other keys and another layout: as if there were none."""
    for key in (tenant_key(account.tenant_id), user_key(account.tenant_id, account.user_id)):
        assert key.startswith("naka:2:{")
        await process.pipeline.command("RENAME", key, key.replace("naka:2:", "naka:"))
    await process.pipeline.command("DEL", built_users_key(account.tenant_id))


async def another_run(process: Process, account: Account) -> None:
    await process.pipeline.command("HSET", tenant_key(account.tenant_id), "r", "0" * 40)


@pytest.mark.parametrize(
    "lose",
    [
        flush,
        lose_tenant,
        lose_user,
        lose_user_and_the_set,
        lose_the_size_of_the_set,
        counters_of_an_older_version,
        another_run,
    ],
)
async def test_counters_that_redis_lost_are_rebuilt_from_postgres(process: Process, books: Books, lose: Loss) -> None:
    account = await books.account()
    other = await books.account(tenant_id=account.tenant_id)
    await live(process, account)
    last = (await live(process, other))[-1]
    assert await redis_counters(process.quota, last) == await books_say(books, last)
    before = await epoch(books, account.tenant_id)
    await lose(process, account)
    for who in (account, other):
        grant = await process.admit(who)
        mine = await redis_counters(process.quota, grant)
        assert mine == await books_say(books, grant)
        assert mine[0][1][2].used[:6] == (2, 8, 27, 307, 4_007, 50_007)
        assert mine[0][0] == 2
    assert await epoch(books, account.tenant_id) == before + 1


async def test_a_grant_that_was_given_before_the_flush_bounces_and_is_asked_again(
    process: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await books.account()
    await live(process, account)
    submit, asked = process.journal.opens.submit, list[OpenRequest]()

    async def flush_between(request: OpenRequest) -> object:
        asked.append(request)
        if len(asked) == 1:
            await process.pipeline.command("FLUSHDB")
            await process.rebuilder.rebuild_tenant(account.tenant_id, request.epoch)
        return await submit(request)

    monkeypatch.setattr(process.journal.opens, "submit", flush_between)
    grant = await process.admit(account)
    assert [request.epoch for request in asked] == [asked[0].epoch, asked[0].epoch + 1]
    assert grant.request == asked[1]
    assert asked[0].id not in {row["id"] for row in await books.requests(account)}
    assert await redis_counters(process.quota, grant) == await books_say(books, grant)


@pytest.mark.slow
async def test_an_old_copy_that_came_back_after_a_restart(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    server = private_valkey()
    process = await start(redis=server.url)
    account = await books.account()
    await live(process, account)
    keys = tenant_key(account.tenant_id), user_key(account.tenant_id, account.user_id)
    copies = [await process.pipeline.command("DUMP", key) for key in keys]
    for copied in (False, True):
        await live(process, account)
        server.restart()
        with pytest.raises(Unavailable):
            await process.pipeline.command("PING")
        run_id = await process.pipeline.connect()
        if copied:
            for key, copy in zip(keys, copies, strict=True):
                await process.pipeline.command("RESTORE", key, 0, copy, "REPLACE")
        assert await process.pipeline.command("HGET", keys[0], "r") not in (None, run_id.encode())
        grant = await process.admit(account)
        assert await redis_counters(process.quota, grant) == await books_say(books, grant)


@pytest.mark.slow
async def test_a_query_sent_to_one_server_is_not_answered_by_another(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    """A replica takes over with slightly older hashes, while queries wait for the old server's answer."""
    old, replica = private_valkey(), private_valkey()
    async with Switch(old).open() as switch, Redis.from_url(old.url) as of_old, Redis.from_url(replica.url) as of_new:
        for client in (of_old, of_new):
            await client.config_set("requirepass", "")
        process = await start(redis=f"redis://127.0.0.1:{switch.port}/0")
        account = await books.account(limits=LimitSet((Limit(Meter.REQUESTS, WindowKind.PERIOD, 5),)))
        await live(process, account)
        for key in (tenant_key(account.tenant_id), user_key(account.tenant_id, account.user_id)):
            copy = await of_old.dump(key)
            assert copy is not None
            await of_new.restore(key, 0, copy)
        await process.admit(account)
        await process.admit(account)
        old.pause()
        try:
            asked = [asyncio.create_task(process.admit(account))]
            await asyncio.sleep(0.3)  # sent, so the next one waits in the pipeline
            asked.append(asyncio.create_task(process.admit(account)))
            await asyncio.sleep(0.3)
            switch.lead_to(replica)
            for task in asked:  # both are answered by the other server, after a rebuild
                with pytest.raises(QuotaExceeded):
                    await task
        finally:
            old.resume()
    assert len(await books.requests(account)) == 5


async def test_the_first_request_of_a_user_does_not_move_the_epoch(process: Process, books: Books) -> None:
    account = await books.account()
    await process.admit(account)
    before = await epoch(books, account.tenant_id)
    assert before == 1
    for _ in range(3):
        newcomer = await books.account(tenant_id=account.tenant_id)
        grant = await process.admit(newcomer)
        assert await redis_counters(process.quota, grant) == await books_say(books, grant)
    assert await epoch(books, account.tenant_id) == before


async def test_one_rebuild_serves_all_that_wait(process: Process, books: Books) -> None:
    account = await books.account()
    await process.admit(account)
    before = await epoch(books, account.tenant_id)
    await process.pipeline.command("FLUSHDB")
    grants = await asyncio.gather(*(process.admit(account) for _ in range(50)))
    assert await epoch(books, account.tenant_id) - before == 1
    assert await redis_counters(process.quota, grants[-1]) == await books_say(books, grants[-1])
    assert len(await books.requests(account)) == 51


async def test_a_flush_in_the_middle_of_a_crowd(process: Process, books: Books) -> None:
    limit = Limit(Meter.REQUESTS, WindowKind.PERIOD, 30)
    account = await books.account(limits=LimitSet((limit,)))

    async def flush_often() -> None:
        for _ in range(5):
            await asyncio.sleep(0.02)
            await process.pipeline.command("FLUSHDB")

    results, _ = await asyncio.gather(crowd(process, account, 60), flush_often())
    granted = [answer for answer in results if isinstance(answer, Grant)]
    assert {row["id"] for row in await books.requests(account)} == {grant.request.id for grant in granted}
    assert len(granted) == 30


@pytest.mark.slow
async def test_two_processes_on_two_redises_never_grant_past_a_limit(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    processes = [await start(redis=private_valkey(appendonly="no").url) for _ in range(2)]
    limits = LimitSet((Limit(Meter.REQUESTS, WindowKind.PERIOD, 40), Limit(Meter.TOKENS, WindowKind.PERIOD, 7_000)))
    account = await books.account(limits=limits)
    answers = [
        answer
        for half in await asyncio.gather(*(crowd(process, account, 100) for process in processes))
        for answer in half
    ]
    granted = {answer.request.id: answer.request for answer in answers if isinstance(answer, Grant)}
    rows = await books.requests(account)
    assert {row["id"] for row in rows if row["state"] == "open"} == granted.keys()
    assert len(rows) <= 40
    assert sum(row["held_prompt_tokens"] + row["held_output_tokens"] for row in rows) <= 7_000
    async with asyncio.timeout(60):
        for process in processes:  # a process that asks alone reaches the limit, for both
            while not isinstance((await crowd(process, account, 1))[0], QuotaExceeded):
                pass
    rows = await books.requests(account)
    assert sum(row["held_prompt_tokens"] + row["held_output_tokens"] for row in rows) == 7_000
    assert len(rows) == 35


async def crowd(process: Process, account: Account, size: int) -> list[Grant | QuotaExceeded]:
    """`size` requests at once; each is granted or refused, whatever happens to Redis."""
    answers = await asyncio.gather(*(process.admit(account) for _ in range(size)), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, Grant | QuotaExceeded), answer
    return list(answers)  # type: ignore[arg-type]


async def test_an_old_builder_does_not_overwrite_a_newer_epoch(process: Process, books: Books) -> None:
    account = await books.account()
    grant = await process.admit(account)
    run_id, now = await process.pipeline.connect(), grant.request.epoch
    assert not await process.quota.build_tenant(account.tenant_id, now, run_id, {"c": 0})
    assert not await process.quota.build_tenant(account.tenant_id, now - 1, run_id, {"c": 0})
    assert not await process.quota.build_user(account.tenant_id, account.user_id, now, run_id, {"c": 0})
    assert not await process.quota.build_user(account.tenant_id, account.key_id, now + 1, run_id, {"c": 0})
    assert await redis_counters(process.quota, grant) == await books_say(books, grant)
    assert await process.quota.build_tenant(account.tenant_id, now + 1, run_id, {"c": 0})
    stale = await process.quota.read(account.tenant_id, account.user_id, [])
    assert stale == Retry(now + 1, Mend.USER)
