"""A test clock: grants, windows, days, periods and ids follow it, and running requests are not lost."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from core import clock
from core.clock import now_ms, to_datetime
from core.ids import uuid7, uuid7_ms
from core.tenancy.accounts import find_user
from metering.adjustments.corrections import Amounts, credit
from metering.admission.admission import QuotaExceeded
from metering.admission.redis_scripts import tenant_key
from metering.journal.partitions import months_around
from metering.pricing.tokens import Usage
from metering.quota.schedule import Schedule
from metering.reconciliation.reconcile import Scope, reconcile
from tests.harness import ACTOR, Account, Books
from tests.metering.outage import Start
from tests.metering.process import KOLKATA, Process, books_say, redis_counters
from tests.metering.scheduled import DAY_MS, HOUR_MS, TestClock, cycle, project, requests


async def drifts(process: Process, account: Account) -> int:
    found = await reconcile(process.pool, process.quota, Scope(tenants=(account.tenant_id,)))
    assert found.whole
    return found.drifts


def test_a_file_that_says_nothing_is_the_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_READ_EVERY_S", 0)
    file = tmp_path / "clock"
    clock.follow_test_clock(file)
    try:
        found = []
        for text in (None, "", "no number", "5000", "-1"):
            if text is not None:
                file.write_text(text)
            found.append(clock.offset_ms())
        assert found == [0, 0, 0, 5000, -1]
        file.write_text(str(HOUR_MS))
        real_ms = now_ms() - HOUR_MS
        assert uuid7_ms(uuid7()) - real_ms >= HOUR_MS
    finally:
        clock.stop_following()
    assert not clock.follows_test_clock()
    assert now_ms() - real_ms < HOUR_MS


@pytest.mark.slow
async def test_a_request_of_next_month_lands_in_it_and_the_one_that_still_runs_in_its_own(
    test_clock: TestClock, process: Process, books: Books
) -> None:
    account = await books.account()
    first, running = await process.admit(account), await process.admit(account)
    await process.settle(first, Usage(10, 20))
    await test_clock.move(31 * DAY_MS)
    later = await process.admit(account)
    assert later.request.opened_ms - first.request.opened_ms >= 31 * DAY_MS
    assert uuid7_ms(later.request.id) == later.request.opened_ms
    assert (later.request.period_id, later.request.day) == (
        KOLKATA.month(now_ms()).name,
        KOLKATA.date_of(now_ms()),
    )
    # By this clock, the running request is past its deadline.
    await process.expired_holds.look(account.tenant_id, account.user_id)
    assert {row["state"] for row in await books.requests(account)} == {"open", "settled"}
    await process.settle(running, Usage(1, 2))
    await process.settle(later, Usage(3, 4))
    meters = await books.fetch(
        "SELECT period_id, sum(output_tokens)::int AS output FROM usage_meters WHERE tenant_id = $1 GROUP BY 1",
        account.tenant_id,
    )
    assert dict(map(tuple, meters)) == {first.request.period_id: 22, later.request.period_id: 4}
    assert await redis_counters(process.quota, later) == await books_say(books, later)
    assert await drifts(process, account) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("test_clock")
async def test_a_hold_of_the_future_expires_at_its_deadline(start: Start, books: Books) -> None:
    process, patient = await start(ttl_ms=1), await start()
    account = await books.account()
    grant, running = await process.admit(account), await patient.admit(account)
    await asyncio.sleep(0.01)
    found = await process.quota.expired_holds(tenant_key(account.tenant_id), 1_000)
    assert found == [(grant.request.id, account.user_id)]
    assert running.request.deadline_ms > now_ms()


@pytest.mark.slow
async def test_a_month_that_was_interrupted_goes_on_where_it_was(
    test_clock: TestClock, either: Process, books: Books
) -> None:
    account = await books.account()
    other = await books.account(tenant_id=account.tenant_id)
    start_ms = now_ms()
    between = cycle(start_ms + HOUR_MS, start_ms + 2 * HOUR_MS)
    await project(books, account, Schedule(periods=(between,)), limits=requests(3))
    for who in (account, other):
        await either.settle(await either.admit(who), Usage(1, 1))
    await test_clock.move_to(between.starts_ms)
    for who in (account, other, account):
        assert (await either.admit(who)).request.period_id == between.name
    with pytest.raises(QuotaExceeded) as refused:
        await either.admit(account)
    assert refused.value.code == "held"
    status = (await either.limit_status.of(account.tenant_id, account.user_id)).limits[0]
    assert (status.held, status.remaining, status.resets_ms) == (3, 0, between.ends_ms)
    await test_clock.move_to(between.ends_ms)
    status = (await either.limit_status.of(account.tenant_id, account.user_id)).limits[0]
    assert (status.used, status.remaining) == (2, 1)
    assert (await either.admit(other)).request.period_id == KOLKATA.month(start_ms).name
    for who in (account, other):
        with pytest.raises(QuotaExceeded):
            await either.admit(who)
    assert len(await books.requests(account)) + len(await books.requests(other)) == 6


@pytest.mark.slow
async def test_a_sleeper_of_the_future_holds_no_longer_than_its_deadline(
    test_clock: TestClock, process: Process, books: Books
) -> None:
    account = await books.account()
    grant = await process.admit(account)
    await test_clock.move(HOUR_MS // 120)
    (beat,) = await books.fetch("SELECT beat FROM processes WHERE id = $1", process.journal.process_id)
    assert await process.recovery.recover(process.journal.process_id, beat=beat["beat"]) == 1
    (row,) = await books.fetch(
        "SELECT hold_until - clock_timestamp() AS left FROM usage_requests WHERE id = $1", grant.request.id
    )
    assert timedelta(seconds=20) < row["left"] <= timedelta(seconds=30)


@pytest.mark.slow
@pytest.mark.usefixtures("test_clock")
async def test_a_credit_goes_to_the_period_of_the_moment(process: Process, books: Books) -> None:
    account = await books.account()
    start_ms = now_ms()
    present = cycle(start_ms - 2 * DAY_MS, start_ms + DAY_MS)
    await project(books, account, Schedule(periods=(present,)))
    await process.settle(await process.admit(account), Usage(100, 100))

    async def place(period_id: str | None = None, days_ago: int | None = None) -> tuple[str, object]:
        async with books.database.session() as session:
            user = await find_user(session, account.user_id, tenant_id=None)
            day = None if days_ago is None else KOLKATA.date_of(now_ms() - days_ago * DAY_MS)
            entry = await credit(
                session,
                ACTOR,
                user,
                Amounts(output_tokens=1),
                calendar=KOLKATA,
                period_id=period_id,
                day=day,
                reason="x",
            )
        return entry.entry["period_id"], entry.entry["day"]

    today = KOLKATA.date_of(start_ms)
    month = KOLKATA.month(start_ms).name
    assert await place() == (present.name, today)
    assert await place(days_ago=1) == (present.name, today - timedelta(days=1))
    assert await place(month) == (month, today)
    assert await place(present.name, 2) == (present.name, today - timedelta(days=2))
    for period_id, days_ago in (
        (present.name, 3),
        ("2026-11-no-such", None),
        (KOLKATA.month(start_ms + 31 * DAY_MS).name, None),
    ):
        with pytest.raises(Exception, match=r"not in the period|of the tenant|in a future day"):
            await place(period_id, days_ago)
    await project(books, account)  # the schedule no longer has it, but it has usage
    assert await place(present.name) == (present.name, today)
    assert await place() == (month, today)
    assert await drifts(process, account) == 0


@pytest.mark.usefixtures("test_clock")
async def test_a_year_of_months_is_made_where_the_clock_may_jump(books: Books) -> None:
    assert len(months_around(now_ms())) == 16
    names = {
        row["relname"]
        for row in await books.fetch("SELECT relname FROM pg_class WHERE relname LIKE 'usage_requests_%'")
    }
    assert f"usage_requests_{to_datetime(now_ms() + 365 * DAY_MS):%Y_%m}" in names
