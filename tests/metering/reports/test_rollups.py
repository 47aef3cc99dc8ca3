"""The rollups agree: the same errors in all of them, and one lock order for repairs and settlements."""

import asyncio
from dataclasses import replace
from typing import Any

from metering.journal.journal import Opened, Settled
from metering.journal.records import ERRORS, Outcome
from metering.reconciliation.repair import repair_rollup
from tests.harness import Account, Books
from tests.metering.faults import agree
from tests.metering.process import Process
from tests.metering.proof import OPERATOR, check, found, this_month
from tests.metering.rows import request, settlement

ROLLUPS = ("usage_daily", "usage_monthly", "usage_by_day")


async def settled(process: Process, *accounts: Account, outcome: Outcome = Outcome.COMPLETED) -> None:
    """Settles a request of each account with the outcome."""
    asked = [request(account) for account in accounts]
    assert set(await asyncio.gather(*map(process.journal.opens.submit, asked))) == {Opened.OPEN}
    ended = [replace(settlement(one), outcome=outcome) for one in asked]
    assert set(await asyncio.gather(*map(process.journal.settlements.submit, ended))) == {Settled.NOW}


async def one_tenant(books: Books, users: int) -> list[Account]:
    first = await books.account()
    await books.fetch("INSERT INTO tenant_epochs VALUES ($1, 1)", first.tenant_id)
    return [first, *[await books.account(tenant_id=first.tenant_id) for _ in range(users - 1)]]


async def test_what_ended_as_an_error_is_one_in_every_rollup(process: Process, books: Books) -> None:
    (account,) = await one_tenant(books, 1)
    for outcome in Outcome:
        await settled(process, account, outcome=outcome)
    assert (await agree(books, account))["requests"] == len(Outcome)
    for table in ROLLUPS:
        (row,) = await books.fetch(f"SELECT sum(errors) AS n FROM {table} WHERE tenant_id = $1", account.tenant_id)
        assert row["n"] == len(ERRORS) == 6, table
    assert found(await check(process, account.tenant_id)) == {}


async def test_a_repair_never_stands_in_the_way_of_a_settlement_that_it_waits_for(
    process: Process, books: Books
) -> None:
    """With daily before monthly, repair and settlement would wait for each other's rows."""
    accounts = sorted(await one_tenant(books, 2), key=lambda account: account.user_id)
    first, second = accounts
    await settled(process, *accounts)
    for table in ROLLUPS:
        await books.fetch(f"UPDATE {table} SET input_tokens = input_tokens + 5 WHERE tenant_id = $1", first.tenant_id)
    async with books.connection() as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM usage_monthly WHERE user_id = $1 FOR UPDATE", first.user_id)
            repair = asyncio.create_task(repair_rollup(process.pool, OPERATOR, first.tenant_id, this_month()))
            await _until_it_waits(books, "usage_monthly")
            async with asyncio.timeout(20):
                await settled(process, second)
        assert await repair == 5, "two users' days and months, and a day"
    await agree(books, first)
    assert found(await check(process, first.tenant_id)) == {}


async def _until_it_waits(books: Books, table: str) -> None:
    """Returns once a statement waits for a row of the table: it holds the row's tuple lock meanwhile."""
    waiting = (
        "SELECT FROM pg_stat_activity JOIN pg_locks l USING (pid) WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND l.locktype = 'tuple' AND l.relation = $1::text::regclass"
    )
    async with asyncio.timeout(10):
        while not await books.fetch(waiting, table):  # noqa: ASYNC110 - another session waits, which is only seen by asking
            await asyncio.sleep(0.01)


async def test_a_repair_brings_errors_back(process: Process, books: Books) -> None:
    (account,) = await one_tenant(books, 1)
    await settled(process, account, outcome=Outcome.DEADLINE)
    for table in ROLLUPS:
        before = await _rows(books, account, table)
        await books.fetch(f"DELETE FROM {table} WHERE tenant_id = $1", account.tenant_id)
        assert await repair_rollup(process.pool, OPERATOR, account.tenant_id, this_month()) == 1
        assert await _rows(books, account, table) == before, table


async def _rows(books: Books, account: Account, table: str) -> list[dict[str, Any]]:
    rows = await books.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1", account.tenant_id)
    return [{name: value for name, value in row.items() if name != "shard"} for row in rows]
