"""Old months are detached, their sums stay, and reconciliation finds no drift before or after."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from core.clock import now_ms, to_datetime, to_ms
from core.errors import NotFound
from core.ids import uuid7
from core.postgres.database import Connections
from core.tenancy.models import User
from metering.adjustments.corrections import Amounts, correct, credit
from metering.admission.entitlements import project_entitlement
from metering.counts import COUNT_COLUMNS
from metering.journal.partitions import ensure_partitions
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Period, Schedule
from metering.quota.windows import Calendar
from metering.reconciliation.drifts import Month
from metering.reconciliation.reconcile import Scope, reconcile
from metering.reconciliation.retention import detach_old_months
from metering.reports.requests import find_request
from tests.harness import ACTOR, Account, Books
from tests.rollups import fill_rollups

KOLKATA = Calendar("Asia/Kolkata")
SUMS = ", ".join(COUNT_COLUMNS)
TAGGED: tuple[tuple[str | None, list[str] | None], ...] = (
    ('{"feature": "search"}', ["feature"]),
    ('{"feature": "chat", "conversation": "c-1"}', ["conversation", "feature"]),
    ('{"nk:token": "t-1", "team": "x"}', ["nk:token"]),
    (None, None),
)
"""Tags and the keys that are added up."""
WAITING = """SELECT FROM pg_stat_activity WHERE datname = current_database()
    AND query LIKE '%naka_detach_month%' AND wait_event = 'relation'"""


def this_month() -> Month:
    """The month of now in UTC, as partitions are made. `tests.metering.proof` has the operator's."""
    return Month(f"{to_datetime(now_ms()):%Y-%m}")


@pytest.fixture
async def old(database_url: str) -> AsyncIterator[Books]:
    books = Books(database_url)
    yield books
    await books.close()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Connections]:
    pool = Connections(database_url, timeout_s=10)
    await pool.start()
    yield pool
    await pool.close()


@pytest.fixture
async def account(old: Books, pool: Connections) -> Account:
    """Some requests in each of the last seven months, also at the boundaries of months in UTC."""
    account, dice = await old.account(), random.Random(2)
    async with old.connection() as connection:
        for back in range(7):
            month = this_month().later(-back)
            await ensure_partitions(connection, _ms(month))
            last = this_month().later(1 - back)
            for at in (
                _ms(month),
                _ms(month) + 1000,
                _ms(last) - 1,
                *(_ms(month) + dice.randrange(27 * 86_400_000) for _ in range(9)),
            ):
                if at < now_ms():
                    await _request(connection, account, at, dice)
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO usage_daily (tenant_id, user_id, day, period_id, key_id, model, " + SUMS + ")"
            " SELECT tenant_id, user_id, day, period_id, key_id, model, "
            + ", ".join(f"sum({name})" for name in COUNT_COLUMNS)
            + " FROM usage_requests WHERE state = 'settled' GROUP BY 1, 2, 3, 4, 5, 6"
        )
        await connection.execute(
            f"INSERT INTO usage_meters (tenant_id, period_id, shard, {SUMS}) SELECT tenant_id, period_id, 0, "
            + ", ".join(f"sum({name})" for name in COUNT_COLUMNS)
            + " FROM usage_daily GROUP BY 1, 2"
        )
    await fill_rollups(old)
    return account


def _ms(month: Month) -> int:
    return to_ms(datetime(month.first.year, month.first.month, 1, tzinfo=UTC))


async def _request(connection: object, account: Account, at: int, dice: random.Random, state: str = "settled") -> UUID:
    request_id = uuid7(at)
    counts = [dice.randrange(1000) for _ in COUNT_COLUMNS]
    await connection.execute(  # type: ignore[attr-defined]
        f"INSERT INTO usage_requests (tenant_id, id, user_id, key_id, state, day, period_id, model, outcome, source,"
        f" model_known, tags, tag_keys, {SUMS}) VALUES ($1, $2, $3, $4, $5, $6, $7, 'm', 'completed', 'final', true,"
        f" $8, $9, {', '.join(map(str, counts))})",
        account.tenant_id,
        request_id,
        account.user_id,
        account.key_id,
        state,
        KOLKATA.date_of(at),
        KOLKATA.month(at).name,
        *dice.choice(TAGGED),
    )
    return request_id


async def drifts(pool: Connections, account: Account) -> dict[str, int]:
    run = await reconcile(pool, None, Scope((account.tenant_id,)))
    assert run.since <= this_month().later(-5), "every month is compared but the first, which is taken for a part"
    return {name: check.found for name, check in run.checks.items() if check.found}


async def attached(books: Books) -> list[str]:
    rows = await books.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'usage_requests'::regclass"
    )
    months = [row["relname"][-7:].replace("_", "-") for row in rows]
    return sorted(month for month in months if month <= this_month().name)


async def until_waiting(books: Books) -> None:
    async with asyncio.timeout(5):
        while not await books.fetch(WAITING):  # noqa: ASYNC110 - Postgres tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_months_go_and_the_books_add_up(old: Books, pool: Connections, account: Account) -> None:
    assert await drifts(pool, account) == {}
    (oldest, *_) = await old.fetch("SELECT * FROM usage_requests ORDER BY id")
    assert await detach_old_months(pool, keep_months=0) == []
    gone = await asyncio.gather(*(detach_old_months(pool, keep_months=3) for _ in range(2)))
    wanted = [this_month().later(-back).name for back in (7, 6, 5, 4)]  # a month before the first is made as well
    assert set(gone[0]) | set(gone[1]) == set(wanted)
    assert await attached(old) == [this_month().later(-back).name for back in (3, 2, 1, 0)]
    assert await drifts(pool, account) == {}, "with months whose days stand in two"
    assert await detach_old_months(pool, keep_months=3) == []
    month = this_month().later(-5).name.replace("-", "_")
    kept = await old.fetch(f"SELECT count(*) AS n FROM usage_requests_{month}_detached")
    assert kept[0]["n"] > 0

    async with old.database.session() as session:
        with pytest.raises(NotFound, match="were archived"):
            await correct(session, ACTOR, account.tenant_id, oldest["id"], Amounts(input_tokens=1), reason="late")
        with pytest.raises(NotFound, match="were archived"):
            await find_request(session, oldest["id"], tenant_id=None)
        with pytest.raises(NotFound, match="no such request"):
            await find_request(session, uuid7(), tenant_id=account.tenant_id)
        with pytest.raises(NotFound, match="no such request"):
            await find_request(session, UUID(int=2**128 - 1), tenant_id=None)
        with pytest.raises(NotFound, match="no such request"):
            await find_request(session, oldest["id"], tenant_id=uuid7())  # another tenant's, or nobody's


async def test_a_credit_in_a_month_that_went_still_adds_up(old: Books, pool: Connections, account: Account) -> None:
    await detach_old_months(pool, keep_months=2)
    month = this_month().later(-4)
    before = await old.sums("usage_by_day", account.tenant_id)
    async with old.database.session() as session:
        user = await session.get_one(User, (account.tenant_id, account.user_id))
        amounts = Amounts(output_tokens=5)
        await credit(session, ACTOR, user, amounts, calendar=KOLKATA, period_id=month.name, reason="kind")
    assert await drifts(pool, account) == {}
    after = await old.sums("usage_by_day", account.tenant_id)
    assert before - after == {"output_tokens": 5}


@pytest.mark.slow
async def test_entries_of_tagged_requests_of_a_month_that_went_still_add_up(
    old: Books, pool: Connections, account: Account
) -> None:
    rows = await old.fetch("SELECT id FROM usage_requests WHERE tag_keys IS NOT NULL")
    for row in rows:
        async with old.database.session() as session:
            await correct(session, ACTOR, account.tenant_id, row["id"], Amounts(requests=3), reason="late")
    assert await drifts(pool, account) == {}
    sums = "SELECT sum(requests) AS sum FROM usage_by_tag WHERE tag_key <> 'nk:token'"
    before = await old.fetch(sums)
    await detach_old_months(pool, keep_months=2, drop=True)
    assert await drifts(pool, account) == {}
    assert await old.fetch(sums) == before


@pytest.mark.slow
async def test_a_correction_while_a_month_is_detached_is_not_lost(
    old: Books, pool: Connections, account: Account
) -> None:
    month = this_month().later(-6)
    (row,) = await old.fetch(
        "SELECT id FROM usage_requests WHERE tag_keys = '{feature}' AND day > $1 AND day < $2 LIMIT 1",
        month.first + timedelta(days=1),
        month.later(1).first - timedelta(days=1),
    )
    assert await detach_old_months(pool, keep_months=6) == [this_month().later(-7).name]
    async with old.database.session() as session:
        await correct(session, ACTOR, account.tenant_id, row["id"], Amounts(requests=3), reason="late")
        detaching = asyncio.create_task(detach_old_months(pool, keep_months=5))
        await until_waiting(old)  # its sums are stored; it waits for the correction to be committed
    assert await detaching == [], "the month stays, and is tried again"
    assert await drifts(pool, account) == {}
    assert await detach_old_months(pool, keep_months=5) == [month.name]
    assert await drifts(pool, account) == {}


@pytest.mark.slow
async def test_the_sums_of_short_lived_tokens_go_with_the_rows(old: Books, pool: Connections, account: Account) -> None:
    query = "SELECT DISTINCT day FROM usage_by_tag WHERE tag_key = 'nk:token' ORDER BY day"
    limit, before = this_month().later(-2).first, [row["day"] for row in await old.fetch(query)]
    assert min(before) < limit
    await detach_old_months(pool, keep_months=2)
    after = [row["day"] for row in await old.fetch(query)]
    assert after == [day for day in before if day > limit]  # the first day in India began in UTC's month before
    assert await old.fetch("SELECT FROM usage_tag_checkpoints WHERE tag_key = 'nk:token'") == []
    assert await drifts(pool, account) == {}


@pytest.mark.slow
async def test_a_drift_in_a_month_that_went_is_still_found(old: Books, pool: Connections, account: Account) -> None:
    await detach_old_months(pool, keep_months=2, drop=True)
    assert await drifts(pool, account) == {}
    month = this_month().later(-4)
    for table, column, check in (
        ("usage_daily", "day", "rollup"),
        ("usage_monthly", "month", "rollup"),
        ("usage_by_day", "day", "rollup"),
        ("usage_by_tag", "day", "rollup"),
        ("usage_meters", "period_id", "meters"),
    ):
        one = f"ctid = (SELECT ctid FROM {table} WHERE left({column}::text, 7) = $1 LIMIT 1)"
        (row,) = await old.fetch(
            f"UPDATE {table} SET input_tokens = input_tokens + 1 WHERE {one} RETURNING ctid::text AS at", month.name
        )
        assert await drifts(pool, account) == {check: 1}, table
        await old.fetch(f"UPDATE {table} SET input_tokens = input_tokens - 1 WHERE ctid = '{row['at']}'")
        assert await drifts(pool, account) == {}, table


@pytest.mark.slow
@pytest.mark.parametrize("why", ["open", "held", "counted"])
async def test_a_month_that_is_needed_stays_and_those_after_it(
    old: Books, pool: Connections, account: Account, why: str
) -> None:
    stays = this_month().later(-5)
    async with old.connection() as connection:
        if why == "open":
            await _request(connection, account, _ms(stays) + 5, random.Random(1), "open")
        elif why == "held":
            await connection.execute(
                "UPDATE usage_requests SET hold_until = clock_timestamp() + interval '1 hour' WHERE id = ("
                "SELECT id FROM usage_requests WHERE day >= $1 AND day < $2 ORDER BY id OFFSET 3 LIMIT 1)",
                stays.first + timedelta(days=2),
                stays.later(1).first,
            )
        else:
            period = Period(f"{stays.name}-trial", _ms(stays) + 1, now_ms() + 86_400_000)
            async with old.database.session() as session:
                await project_entitlement(
                    session,
                    account.tenant_id,
                    plan_version="p:1",
                    limits=PlanLimits(),
                    schedule=Schedule(periods=(period,)),
                )
    assert await detach_old_months(pool, keep_months=2) == [this_month().later(-7).name, this_month().later(-6).name]
    assert (await attached(old))[0] == stays.name
    assert await old.fetch("SELECT FROM usage_checkpoints WHERE month >= $1", stays.first) == []
    assert "rollup" not in await drifts(pool, account)


@pytest.mark.slow
async def test_a_busy_table_is_left_for_later(old: Books, pool: Connections, account: Account) -> None:
    async with old.connection() as connection, connection.transaction():
        await connection.execute("LOCK TABLE usage_requests IN ROW EXCLUSIVE MODE")
        assert await detach_old_months(pool, keep_months=2) == []
    assert await old.fetch("SELECT FROM usage_checkpoints") == []
    assert await detach_old_months(pool, keep_months=2) != []
    assert await drifts(pool, account) == {}
