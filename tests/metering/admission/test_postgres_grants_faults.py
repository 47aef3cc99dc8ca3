"""Faults while Postgres admits: callers that leave, connections that are cut, rows that are refused."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import asyncpg
import pytest

from core.errors import NotFound, Unavailable
from metering.admission.admission import QuotaExceeded
from metering.admission.breaker import BreakerRules
from metering.admission.redis_scripts import tenant_key
from metering.journal.group_commit import Poisoned
from metering.pricing.tokens import Usage
from metering.quota.query import Grant, QuotaQuery
from sandbox.valkey import Valkey
from tests.harness import Account, Books
from tests.metering.outage import (
    QUICK,
    Start,
    crowd,
    mode,
    requests,
    until,
)
from tests.metering.process import MODEL, Process, principal, text_ask


async def current(process: Process, account: Account, model: str = MODEL) -> QuotaQuery:
    """A query for Postgres whose entitlement no epoch makes old."""
    query = await process.admission._query(principal(account), text_ask(10, 1, model=model))
    return replace(query, timeline=replace(query.timeline, read_epoch=1_000_000), redis_unreachable=True)


@pytest.mark.slow
async def test_a_tenant_that_postgres_refuses_keeps_no_other_from_a_grant(without_redis: Process, books: Books) -> None:
    accounts = [await books.account() for _ in range(6)]
    queries = [await current(without_redis, account) for account in accounts]
    (stretch,) = queries[2].timeline.stretches
    nameless = replace(stretch, entitlement=replace(stretch.entitlement, plan_version="\0"))
    poisoned = replace(queries[2], timeline=replace(queries[2].timeline, stretches=(nameless,)))
    same_tenant = queries[2]
    queries[2:3] = [poisoned, same_tenant]
    asks = [without_redis.postgres_grants.admit(query) for query in queries]
    answers = await asyncio.gather(*asks, return_exceptions=True)
    assert [isinstance(answer, Poisoned) for answer in answers] == [query is poisoned for query in queries]
    assert [len(await books.requests(account)) for account in accounts] == [1] * 6
    assert len(without_redis.running) == 6


async def test_a_redis_that_cannot_write_counts_as_unreachable(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    process = await start(redis=private_valkey(appendonly="no").url, **QUICK)
    account = await books.account(limits=requests(10))
    await process.admit(account)
    await process.pipeline.command("CONFIG", "SET", "maxmemory", "1")
    assert len(await crowd(process, account, 20)) == 9
    assert (await mode(books, account))[1]


@pytest.mark.slow
async def test_a_hash_that_the_scripts_cannot_read_affects_its_tenant_alone(process: Process, books: Books) -> None:
    account, other = await books.account(limits=requests(3)), await books.account()
    await process.pipeline.command("SET", tenant_key(account.tenant_id), "no hash")
    assert len(await crowd(process, account, 5)) == 3
    assert (await mode(books, account))[1]
    await process.admit(other)
    assert not (await mode(books, other))[1]


@pytest.mark.parametrize("in_fallback", [False, True])
async def test_a_caller_that_leaves_while_its_open_is_under_way_runs_nothing(
    process: Process, without_redis: Process, books: Books, *, in_fallback: bool
) -> None:
    asked = without_redis if in_fallback else process
    account = await books.account()
    await asked.settle(await asked.admit(account), Usage(1, 1))
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM tenant_epochs WHERE tenant_id = $1 FOR UPDATE", account.tenant_id)
        caller = asyncio.create_task(asked.admit(account))
        await asyncio.sleep(0.1)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert len(asked.running) == 0
    last = await asked.admit(account)  # after it in the same committer
    assert [request_id for request_id, _ in asked.running] == [last.request.id]
    await asked.recovery.recover_orphans()
    states = {row["id"]: row["state"] for row in await books.requests(account)}
    assert states.pop(last.request.id) == "open"
    assert set(states.values()) == {"settled"}


async def test_an_open_that_was_cut_off_is_made_void_and_asked_again(without_redis: Process, books: Books) -> None:
    account = await books.account(limits=requests(5))
    async with books.connection() as connection, connection.transaction():
        await connection.execute("SELECT FROM api_keys WHERE id = $1 FOR UPDATE", account.key_id)
        asked = [asyncio.create_task(without_redis.admit(account)) for _ in range(8)]
        await until(lambda: len(without_redis.running) > 0)
        minted = {request_id for request_id, _ in without_redis.running}
        await books.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'naka-fallback%'"
        )
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert Counter(type(answer) for answer in answers) == {Grant: 5, QuotaExceeded: 3}
    granted = {answer.request.id for answer in answers if isinstance(answer, Grant)}
    states = {row["id"]: row["state"] for row in await books.requests(account)}
    assert states == dict.fromkeys(minted, "void") | dict.fromkeys(granted, "open")
    assert {request_id for request_id, _ in without_redis.running} == granted


async def test_a_commit_whose_answer_was_lost_is_a_grant(
    without_redis: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await books.account(limits=requests(5))
    query = await current(without_redis, account)
    commit, lost = asyncpg.transaction.Transaction.commit, list[int]()

    async def lose_the_first_answer(self: asyncpg.transaction.Transaction) -> None:
        await commit(self)
        lost.append(1)
        if len(lost) == 1:
            raise ConnectionResetError

    monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", lose_the_first_answer)
    answers = await asyncio.gather(*(without_redis.postgres_grants.admit(query) for _ in range(3)))
    assert lost == [1]
    granted = {answer.request.id for answer in answers if isinstance(answer, Grant)}
    assert len(granted) == 3
    assert {row["id"]: row["state"] for row in await books.requests(account)} == dict.fromkeys(granted, "open")
    assert {request_id for request_id, _ in without_redis.running} == granted


async def test_while_the_breaker_is_open_no_call_waits_for_redis(without_redis: Process) -> None:
    with pytest.raises(Unavailable):
        without_redis.pipeline.command("PING").result()  # it has failed already
    assert not without_redis.pipeline._waiting or without_redis.pipeline._waiting[0].is_probe


async def test_a_short_pause_of_redis_moves_no_tenant(
    start: Start, books: Books, private_valkey: Callable[..., Valkey]
) -> None:
    server = private_valkey(appendonly="no")
    process = await start(redis=server.url, **(QUICK | {"breaker": BreakerRules(dwell_s=2)}))
    account = await books.account()
    await process.admit(account)
    server.pause()
    asked = asyncio.create_task(process.admit(account))
    await until(lambda: process.pipeline.breaker.state.value == "failing")
    server.resume()
    await asked
    assert not (await mode(books, account))[1]
    assert await process.pipeline.command("EXISTS", tenant_key(account.tenant_id))


async def test_no_price_is_no_grant(without_redis: Process, books: Books) -> None:
    account = await books.account()
    query = await current(without_redis, account, "no-such-model")
    with pytest.raises(Exception, match="no-such-model") as refused:
        await without_redis.postgres_grants.admit(query)
    assert not isinstance(refused.value, NotFound | Unavailable)
    assert await books.requests(account) == []
