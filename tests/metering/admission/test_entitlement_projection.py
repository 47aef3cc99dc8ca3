"""A projection of billing applies from its commit on: no request opens under an older one, whatever is cached."""

import asyncio

import pytest

from core.clock import now_ms
from core.errors import PaymentRequired
from metering.admission.admission import QuotaExceeded
from metering.journal.records import OpenRequest
from metering.pricing.tokens import Usage
from metering.quota.query import Grant
from metering.quota.schedule import Schedule, Segment
from tests.harness import Account, Books
from tests.metering.outage import Start, mode
from tests.metering.process import Process, books_say, redis_counters
from tests.metering.proof import check, found
from tests.metering.scheduled import HOUR_MS, UNPAID, blocked, cycle, project, requests


@pytest.fixture
async def pair(start: Start) -> tuple[Process, Process]:
    """Two processes that cache entitlements, and receive no change notices."""
    return await start(remember_s=60), await start(remember_s=60)


async def refused(process: Process, account: Account) -> PaymentRequired:
    with pytest.raises(PaymentRequired) as raised:
        await process.admit(account)
    return raised.value


async def test_a_block_applies_at_once_in_processes_with_an_older_cache(
    pair: tuple[Process, Process], books: Books
) -> None:
    account = await books.account()
    for process in pair:
        await process.settle(await process.admit(account), Usage(1, 1))
    assert await project(books, account, blocked())
    for process in (*pair, *pair):
        error = await refused(process, account)
        assert (error.code, str(error)) == ("bill_overdue", UNPAID.detail)
    assert len(await books.requests(account)) == 2
    assert await project(books, account)
    for process in pair:  # each has the block cached
        grant = await process.admit(account)
        assert await redis_counters(process.quota, grant) == await books_say(books, grant)


async def test_a_request_that_was_granted_when_the_block_committed_does_not_open(
    process: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await books.account()
    grant = await process.admit(account)
    submit = process.journal.opens.submit

    async def be_overtaken(request: OpenRequest) -> object:
        await project(books, account, blocked())
        return await submit(request)

    monkeypatch.setattr(process.journal.opens, "submit", be_overtaken)
    await refused(process, account)
    assert [row["id"] for row in await books.requests(account)] == [grant.request.id]
    assert len(process.running) == 1


async def test_nothing_is_asked_of_redis_or_stored_for_a_tenant_that_is_blocked(process: Process, books: Books) -> None:
    account = await books.account()
    await project(books, account, blocked())
    before = await mode(books, account)
    await refused(process, account)
    assert await process.quota.epoch(account.tenant_id, await process.pipeline.connect()) is None
    assert await books.requests(account) == []
    assert await mode(books, account) == before


@pytest.mark.slow
async def test_a_scheduled_block_applies_without_any_job(pair: tuple[Process, Process], books: Books) -> None:
    account = await books.account()
    at_ms = now_ms() + 2_000
    await project(books, account, blocked(at_ms))
    process, _ = pair
    grant = await process.admit(account)
    assert grant.request.opened_ms < at_ms
    await asyncio.sleep((at_ms - now_ms()) / 1000 + 0.05)
    await refused(process, account)
    assert (await mode(books, account))[0] == grant.request.epoch


async def test_a_process_whose_clock_is_late_is_told_so_by_redis(process: Process, books: Books) -> None:
    account = await books.account()
    await project(books, account, blocked(now_ms() - 1_000))
    process.admission.redis_grants.skew_ms = -60_000
    await refused(process, account)
    assert await books.requests(account) == []


async def test_a_block_applies_without_redis_as_well(without_redis: Process, books: Books) -> None:
    account = await books.account()
    await without_redis.admit(account)
    await project(books, account, blocked())
    await refused(without_redis, account)
    await project(books, account)
    await without_redis.admit(account)


async def test_a_stale_process_counts_in_the_new_period_and_by_its_limits(
    pair: tuple[Process, Process], books: Books
) -> None:
    account = await books.account()
    await project(books, account, limits=requests(5))
    answers: list[Grant | QuotaExceeded] = []
    projected = asyncio.Event()

    async def ask(process: Process) -> None:
        asked_since = 0
        while asked_since < 12:
            asked_since += projected.is_set()
            try:
                answers.append(await process.admit(account))
            except QuotaExceeded as error:
                answers.append(error)

    for process in pair:
        await process.admit(account)
    new = cycle(now_ms() - HOUR_MS, now_ms() + HOUR_MS)
    asked = [asyncio.create_task(ask(process)) for process in pair * 2]
    await asyncio.sleep(0.01)
    schedule = Schedule((Segment(0, "team@2", requests(7)),), (new,))
    assert await project(books, account, schedule, limits=requests(5))
    projected.set()
    await asyncio.gather(*asked)
    rows = await books.requests(account)
    by_period = {name: [row for row in rows if row["period_id"] == name] for name in {row["period_id"] for row in rows}}
    assert len(by_period[new.name]) == 7
    assert {row["plan_version"] for row in by_period.pop(new.name)} == {"team@2"}
    assert all(len(others) <= 5 for others in by_period.values())
    last = max((answer for answer in answers if isinstance(answer, Grant)), key=lambda grant: grant.request.epoch)
    if not (await mode(books, account))[
        1
    ]:  # processes that bounce each other's grants leave the tenant to Postgres for a while
        assert await redis_counters(pair[0].quota, last) == await books_say(books, last)


async def test_projecting_the_same_again_is_nothing_new(process: Process, books: Books) -> None:
    account = await books.account()
    schedule = Schedule((Segment(5, "team@1", requests(3)),), (cycle(now_ms(), now_ms() + HOUR_MS),))
    assert await project(books, account, schedule)
    epoch = await mode(books, account)
    assert not await project(books, account, schedule)
    assert await mode(books, account) == epoch
    assert await project(books, account, schedule, limits=requests(4))
    assert (await mode(books, account))[0] == epoch[0] + 1
    (row,) = await books.fetch("SELECT version FROM entitlements WHERE tenant_id = $1", account.tenant_id)
    assert row["version"] == 2
    assert (await process.admit(account)).entitlement.plan_version == "team@1"


async def test_an_epoch_that_moved_for_another_reason_costs_one_more_reading(
    start: Start, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await start(remember_s=60)
    account = await books.account()
    await process.admit(account)
    reads, read = list[int](), process.entitlements._read

    async def count(*who: object) -> object:
        reads.append(1)
        return await read(*who)  # type: ignore[arg-type]

    monkeypatch.setattr(process.entitlements, "_read", count)
    for _ in range(3):
        await process.pipeline.command("FLUSHDB")
        await asyncio.gather(*(process.admit(account) for _ in range(50)))
        await process.admit(account)
    assert len(reads) <= 3 * 2


async def test_epochs_that_postgres_has_lost_are_restored(start: Start, books: Books) -> None:
    process = await start(remember_s=60)
    account = await books.account()
    await process.admit(account)
    grant = await process.admit(account)
    await books.fetch("UPDATE tenant_epochs SET epoch = 0 WHERE tenant_id = $1", account.tenant_id)
    process.entitlements.forget(account.tenant_id)
    again = await process.admit(account)
    assert again.request.epoch > grant.request.epoch
    assert await redis_counters(process.quota, again) == await books_say(books, again)


async def test_a_flush_within_a_scheduled_period_loses_nothing_of_it(process: Process, books: Books) -> None:
    account = await books.account()
    other = await books.account(tenant_id=account.tenant_id)
    period = cycle(now_ms() - HOUR_MS, now_ms() + HOUR_MS)
    await project(books, account, Schedule(periods=(period,)), limits=requests(4))
    for who in (account, other):
        await process.settle(await process.admit(who), Usage(1, 2))
    running = await process.admit(account)
    await process.pipeline.command("FLUSHDB")
    for user in (account, other):  # built for the first, then for the other
        (status,) = (await process.limit_status.of(user.tenant_id, user.user_id)).limits
        assert (status.used, status.held, status.resets_ms) == (2, 1, period.ends_ms)
    last = await process.admit(other)
    assert last.request.period_id == running.request.period_id == period.name
    with pytest.raises(QuotaExceeded):
        await process.admit(other)
    for user_id in (account.user_id, other.user_id):
        assert await redis_counters(process.quota, last, user_id) == await books_say(books, last, user_id)


@pytest.mark.slow
async def test_a_cut_period_meters_in_its_segment_and_limits_go_on(
    process: Process, without_redis: Process, books: Books
) -> None:
    account = await books.account()
    whole = cycle(now_ms() - HOUR_MS, now_ms() + HOUR_MS)
    await project(books, account, Schedule((), (whole,)), limits=requests(4))
    running = await process.admit(account)
    await process.settle(await process.admit(account), Usage(1, 2))
    cut_ms = now_ms()
    first, rest = cycle(whole.starts_ms, cut_ms, whole.name), cycle(cut_ms, whole.ends_ms, f"{whole.name}~2")
    assert await project(books, account, Schedule((), (first, rest)), limits=requests(4))

    third = await process.admit(account)
    assert (running.request.period_id, third.request.period_id) == (whole.name, f"{whole.name}~2")
    assert await redis_counters(process.quota, third) == await books_say(books, third)
    assert third.room == (1,)
    await process.settle(running, Usage(3, 4))
    await process.settle(third, Usage(5, 6))
    assert await redis_counters(process.quota, third) == await books_say(books, third)
    assert found(await check(process, account.tenant_id)) == {}
    status = await process.limit_status.of(account.tenant_id, account.user_id)
    assert [(one.used, one.held, one.remaining) for one in status.limits] == [(3, 0, 1)]
    assert (await without_redis.admit(account)).request.period_id == f"{whole.name}~2"
    with pytest.raises(QuotaExceeded):
        await without_redis.admit(account)
    query = "SELECT period_id, output_tokens FROM usage_meters WHERE tenant_id = $1"
    meters = await books.fetch(query, account.tenant_id)
    sums: dict[str, int] = {}
    for row in meters:
        sums[row["period_id"]] = sums.get(row["period_id"], 0) + row["output_tokens"]
    assert sums == {whole.name: 6, f"{whole.name}~2": 6}
