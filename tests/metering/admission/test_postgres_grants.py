"""Postgres admits while Redis is unreachable, for one process or all: exactly the same limits, and back by itself."""

import asyncio
from collections.abc import Callable

import pytest

from core.tenancy.accounts import find_key, revoke_key
from core.tenancy.principal import Unauthenticated
from metering.admission.admission import QuotaExceeded, TooLarge
from metering.journal.journal import InFallback
from metering.journal.records import OpenRequest
from metering.pricing.tokens import Usage
from metering.quota.query import Grant
from sandbox.daemon import free_port
from sandbox.valkey import Valkey
from tests.harness import ACTOR, TOKEN_FIELDS, Books
from tests.metering.outage import (
    PROMPT,
    QUICK,
    Start,
    back_to_redis,
    crowd,
    mode,
    requests,
    tokens,
    until,
    use_up,
    used,
)
from tests.metering.process import SMALLEST_GRANT, Process, books_say, redis_counters
from tests.metering.switch import Switch


@pytest.mark.slow
async def test_a_hundred_race_for_the_last_tokens_without_redis(without_redis: Process, books: Books) -> None:
    limit = 9_950
    account = await books.account(limits=tokens(limit))
    granted = sum(await asyncio.gather(*(use_up(without_redis, account) for _ in range(100))))
    assert limit - (PROMPT + SMALLEST_GRANT) < await used(books, account) <= limit
    rows = await books.requests(account)
    assert len(rows) == granted
    assert {row["state"] for row in rows} == {"settled"}
    assert len(without_redis.running) == 0


async def test_two_hundred_requests_at_once_of_a_tenant_without_an_epoch(without_redis: Process, books: Books) -> None:
    account = await books.account(limits=requests(150))
    granted = await crowd(without_redis, account, 200)
    assert len(granted) == 150
    assert {grant.request.id for grant in granted} == {row["id"] for row in await books.requests(account)}
    assert {request_id for request_id, _ in without_redis.running} == {grant.request.id for grant in granted}
    assert await mode(books, account) == (1, True)
    rooms = sorted(grant.room for grant in granted)
    assert rooms == [(room,) for room in range(150)]


@pytest.mark.slow
async def test_two_processes_without_redis_share_one_limit(start: Start, without_redis: Process, books: Books) -> None:
    other = await start(redis=f"redis://127.0.0.1:{free_port()}/0", **QUICK)
    account = await books.account(limits=requests(95), tenant_limits=tokens(100_000))
    first = [await crowd(process, account, 1) for process in (without_redis, other)]
    halves = [*first, *await asyncio.gather(*(crowd(process, account, 100) for process in (without_redis, other)))]
    granted = {grant.request.id for half in halves for grant in half}
    assert len(granted) == 95
    assert granted == {row["id"] for row in await books.requests(account)}
    assert all(first), "one of them was never asked"


@pytest.mark.slow
async def test_concurrency_and_the_tenants_own_limits_hold(without_redis: Process, books: Books) -> None:
    first = await books.account(limits=requests(50, concurrency=3), tenant_limits=requests(5))
    second = await books.account(tenant_id=first.tenant_id)
    assert len(await crowd(without_redis, first, 20)) == 3
    granted = await crowd(without_redis, second, 20)
    assert len(granted) == 2
    with pytest.raises(QuotaExceeded, match="running requests hold the rest of this period's 5 requests") as refused:
        await without_redis.admit(second)
    assert refused.value.code == "held"
    for grant in granted:
        await without_redis.settle(grant, Usage(1, 1))
    with pytest.raises(QuotaExceeded) as refused:
        await without_redis.admit(first)
    assert (refused.value.code, refused.value.retry_after_s) == ("too_many_at_once", 1)


async def test_a_refusal_groups_digits_as_the_pages_do(without_redis: Process, books: Books) -> None:
    account = await books.account(limits=tokens(150_000))
    with pytest.raises(TooLarge, match="too large for your limit of 1,50,000 tokens per billing period"):
        await without_redis.admit(account, prompt_bytes=200_000)


@pytest.mark.slow
async def test_a_revoked_key_opens_nothing_and_takes_no_room_of_others(without_redis: Process, books: Books) -> None:
    victim = await books.account(tenant_limits=requests(5))
    other = await books.account(tenant_id=victim.tenant_id)
    await crowd(without_redis, other, 1)
    async with books.database.session() as session:
        await revoke_key(session, ACTOR, await find_key(session, victim.key_id, tenant_id=None))
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM tenant_epochs WHERE tenant_id = $1 FOR UPDATE", victim.tenant_id)
        first = asyncio.create_task(crowd(without_redis, other, 1))
        await asyncio.sleep(0.1)  # it waits for the lock; the following ones are one batch, the revoked first
        late = [asyncio.create_task(without_redis.admit(who)) for who in (victim,) * 9 + (other,) * 3]
        await asyncio.sleep(0.05)
    assert len(await first) == 1
    answers = await asyncio.gather(*late, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unauthenticated] * 9 + [Grant] * 3
    assert await books.requests(victim) == []
    assert len(without_redis.running) == 5


@pytest.mark.slow
async def test_one_process_loses_its_redis_and_races_another_for_the_limit(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    server, limit = private_valkey(appendonly="no"), 300_000
    async with Switch(server).open() as switch:
        seeing, losing = await start(redis=server.url, **QUICK), await start(redis=switch.url, **QUICK)
        account = await books.account(limits=tokens(limit))
        other = await books.account(tenant_id=account.tenant_id)
        await seeing.settle(await seeing.admit(account), Usage(1, 1))
        load = [asyncio.create_task(use_up(process, account)) for process in (seeing, losing) * 10]
        await until(lambda: len(losing.running) > 5)
        switch.cut()
        await until(lambda: losing.pipeline.breaker.is_open)
        await until(lambda: seeing.postgres_grants.serves(account.tenant_id))  # noted when its opens bounced
        assert not seeing.pipeline.breaker.is_open
        switch.mend()
        await until(lambda: not losing.pipeline.breaker.is_open)
        for process in (losing, seeing):
            grant = await back_to_redis(process, other, books)
            assert not process.postgres_grants.serves(other.tenant_id)
            await process.settle(grant, Usage(1, 1))
        assert not any(task.done() for task in load), "it was over before Redis was back"
        await asyncio.gather(*load)
        last = await losing.admit(other)
        for process in (seeing, losing):
            assert await redis_counters(process.quota, last) == await books_say(books, last)
    rows = await books.requests(account)
    assert limit - (PROMPT + SMALLEST_GRANT) < sum(row[name] for row in rows for name in TOKEN_FIELDS) <= limit


@pytest.mark.slow
async def test_two_processes_with_two_redises_never_pass_a_limit_and_nobody_fails(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    limit = 12_000
    processes = [await start(redis=private_valkey(appendonly="no").url, **QUICK) for _ in range(2)]
    account = await books.account(limits=tokens(limit))
    await asyncio.gather(*(use_up(process, account) for process in processes * 20))
    assert limit - (PROMPT + SMALLEST_GRANT) < await used(books, account) <= limit
    for process in processes:
        assert len(process.running) == 0
        assert not process.pipeline.breaker.is_open


@pytest.mark.slow
async def test_postgres_decides_between_two_redises_that_bounce_each_others_grants(
    start: Start, books: Books, private_valkey: Callable[..., Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = [await start(redis=private_valkey(appendonly="no").url, **QUICK) for _ in range(2)]
    account = await books.account(limits=requests(10))
    await ours.admit(account)
    submit, bounced = ours.journal.opens.submit, list[OpenRequest]()

    async def be_overtaken(request: OpenRequest) -> object:
        bounced.append(request)
        await theirs.admit(account)
        return await submit(request)

    monkeypatch.setattr(ours.journal.opens, "submit", be_overtaken)
    grant = await ours.admit(account)
    assert len(bounced) == 2
    assert (await mode(books, account)) == (grant.request.epoch, True)
    assert len(await books.requests(account)) == 4


@pytest.mark.slow
async def test_what_redis_granted_before_postgres_took_over_bounces_and_is_asked_there(
    process: Process, without_redis: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await books.account(limits=requests(3))
    await process.admit(account)
    submit, asked = process.journal.opens.submit, list[OpenRequest]()

    async def lose_the_race(request: OpenRequest) -> object:
        asked.append(request)
        await without_redis.admit(account)
        return await submit(request)

    monkeypatch.setattr(process.journal.opens, "submit", lose_the_race)
    monkeypatch.setattr(process.rebuilder, "rebuild_tenant", None)  # the bounce is enough
    grant = await process.admit(account)
    assert len(asked) == 1
    assert asked[0].id not in {row["id"] for row in await books.requests(account)}
    assert (grant.request.epoch, grant.room) == (asked[0].epoch + 1, (0,))
    assert process.postgres_grants.serves(account.tenant_id)
    with pytest.raises(QuotaExceeded):
        await process.admit(account)


@pytest.mark.slow
async def test_redis_is_built_again_no_sooner_than_postgres_lets_go(
    process: Process, without_redis: Process, books: Books
) -> None:
    account = await books.account()
    first = await process.admit(account)
    await without_redis.admit(account)
    held_off = await process.rebuilder.rebuild_tenant(account.tenant_id, first.request.epoch)
    assert isinstance(held_off, InFallback)
    assert 0 < held_off.remaining_s <= 1.0
    assert await mode(books, account) == (first.request.epoch + 1, True)
    grant = await back_to_redis(process, account, books)
    assert await mode(books, account) == (first.request.epoch + 2, False)
    assert grant.request.epoch == first.request.epoch + 2
    assert await redis_counters(process.quota, grant) == await books_say(books, grant)


@pytest.mark.slow
async def test_where_a_user_stands_is_the_same_without_redis(
    process: Process, without_redis: Process, books: Books
) -> None:
    account = await books.account(limits=tokens(10_000), tenant_limits=requests(100, concurrency=9))
    other = await books.account(tenant_id=account.tenant_id)
    for who in (account, other, account):
        await process.settle(await process.admit(who), Usage(1, 20, 300, 4_000, 5))
    await process.admit(account)
    seen = await process.limit_status.of(account.tenant_id, account.user_id)
    assert seen == await without_redis.limit_status.of(account.tenant_id, account.user_id)
    assert [(item.used, item.held) for item in seen.limits] == [(8_652, 200), (3, 1)]
    await without_redis.admit(account)  # now Redis's hash is stale, and this process does not know
    seen = await process.limit_status.of(account.tenant_id, account.user_id)
    assert [(item.used, item.held) for item in seen.limits] == [(8_652, 400), (3, 2)]
    assert seen == await without_redis.limit_status.of(account.tenant_id, account.user_id)
