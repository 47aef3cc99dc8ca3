"""Entries under faults: one transaction or nothing, deadlocks, and the counters of the next grant."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from core.tenancy.accounts import find_user
from metering.adjustments.corrections import Amounts, correct, credit
from metering.adjustments.ledger import SHARD
from metering.admission.admission import QuotaExceeded
from metering.journal.journal import settle_batch
from metering.journal.records import OpenRequest, Settlement
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import ACTOR, Books
from tests.metering.ledger_driver import (
    FINAL,
    HAIKU,
    LOST,
    LedgerDriver,
    open_ledger,
)
from tests.metering.process import Process
from tests.metering.rows import KOLKATA


@pytest.fixture
async def ledger(metering_database: str, books: Books) -> AsyncIterator[LedgerDriver]:
    """The ledger of a tenant."""
    async with open_ledger(metering_database, books) as ledger:
        yield ledger


async def lock_waits(books: Books) -> int:
    """The number of sessions that wait for a lock."""
    (row,) = await books.fetch(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return int(row["n"])


async def until_one_waits(books: Books) -> None:
    async with asyncio.timeout(10):
        while not await lock_waits(books):  # noqa: ASYNC110 - another session's wait has no event to wait for
            await asyncio.sleep(0.01)


@asynccontextmanager
async def holding(books: Books, statement: str, *args: object) -> AsyncIterator[Any]:
    """Another open transaction that has run `statement`; rolled back at the end."""
    async with books.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL deadlock_timeout = '30s'")  # whoever else is in a deadlock with it, loses
        await connection.execute(statement, *args)
        yield connection
        with suppress(asyncpg.PostgresError):
            await transaction.rollback()


Change = Callable[[LedgerDriver, OpenRequest], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "revise": lambda ledger, asked: ledger.revise(ledger.measured(asked, FINAL, Usage(5, 70), HAIKU)),
    "correct": lambda ledger, asked: ledger.correct(asked, output_tokens=-5),
    "credit": lambda ledger, _: ledger.credit(output_tokens=5),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
async def test_what_breaks_at_the_last_line_leaves_nothing(ledger: LedgerDriver, kind: str) -> None:
    """The epoch is written last: a failure there rolls back entry, rollup, meters, hold and audit entry."""
    asked = await ledger.settled(usage=Usage(5, 50))
    await ledger.books.fetch("UPDATE usage_requests SET hold_until = 'infinity' WHERE id = $1", asked.id)
    before = await ledger.everything()
    lock = "UPDATE tenant_epochs SET epoch = epoch WHERE tenant_id = $1"
    async with holding(ledger.books, lock, ledger.account.tenant_id):
        change = asyncio.ensure_future(CHANGES[kind](ledger, asked))
        await until_one_waits(ledger.books)
        assert not change.done()
        change.cancel()
        await asyncio.gather(change, return_exceptions=True)
    assert await ledger.everything() == before
    await CHANGES[kind](ledger, asked)
    await ledger.exact()


async def test_an_error_of_the_caller_leaves_nothing(ledger: LedgerDriver) -> None:
    asked = await ledger.settled(known=FINAL, usage=Usage(5, 50))
    before = await ledger.everything()

    async def correct_and_fail() -> None:
        async with ledger.books.database.session() as session:
            await correct(session, ACTOR, asked.tenant_id, asked.id, Amounts(output_tokens=-5), reason="-")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await correct_and_fail()
    assert await ledger.everything() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["revise", "correct"])
async def test_who_loses_a_deadlock_tries_again(ledger: LedgerDriver, kind: str) -> None:
    """A transaction with the opposite lock order: the rollup's row first, then the request's."""
    asked = await ledger.settled(usage=Usage(5, 50))
    daily = "UPDATE usage_daily SET requests = requests WHERE tenant_id = $1"
    async with holding(ledger.books, daily, ledger.account.tenant_id) as other:
        change = asyncio.ensure_future(CHANGES[kind](ledger, asked))
        await until_one_waits(ledger.books)
        async with asyncio.timeout(10):
            await other.execute("SELECT FROM usage_requests WHERE id = $1 FOR UPDATE", asked.id)
        assert not change.done()
    assert await change
    await ledger.exact()
    assert len([entry for entry in await ledger.entries() if entry["source"] or entry["kind"] == "correction"]) == 1


def tokens_a_day(limit: int) -> LimitSet:
    return LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, limit), Limit(Meter.TOKENS, WindowKind.PERIOD, limit)))


async def test_the_next_grant_counts_what_was_credited_and_corrected(process: Process, books: Books) -> None:
    account = await books.account(limits=tokens_a_day(1_000))
    grant = await process.admit(account)
    await process.settle(grant, Usage(400, 400))
    async with books.database.session() as session:
        user = await find_user(session, account.user_id, tenant_id=None)
        amounts = Amounts(output_tokens=150)
        await credit(session, ACTOR, user, amounts, calendar=KOLKATA, reason="goodwill")
    async with books.database.session() as session:
        await correct(session, ACTOR, account.tenant_id, grant.request.id, Amounts(input_tokens=-30), reason="x")
    following = await process.admit(account, max_tokens=5_000)
    assert following.request.held_prompt_tokens == 100
    assert following.request.held_output_tokens == 1_000 - (800 - 150 - 30) - 100
    assert following.room == (0, 0)


async def test_the_next_grant_counts_what_a_sleeper_brought(process: Process, books: Books) -> None:
    """A row recovered too low, with its hold kept: the exact count replaces both."""
    account = await books.account(limits=tokens_a_day(1_000))
    grant = await process.admit(account, max_tokens=500)
    lost = Settlement(
        account.tenant_id, grant.request.id, account.user_id, *LOST, grant.request.model, model_known=True, requests=1
    )
    async with books.connection() as connection:
        await settle_batch(connection, [lost], SHARD)
        await connection.execute(
            "UPDATE usage_requests SET hold_until = deadline_at WHERE tenant_id = $1", account.tenant_id
        )
    await process.settle(grant, Usage(60, 240))
    following = await process.admit(account, max_tokens=5_000)
    assert following.request.held_output_tokens == 1_000 - 300 - 100


async def test_a_limit_that_is_used_up_is_freed_by_a_credit(process: Process, books: Books) -> None:
    """Nobody is granted anything meanwhile, so no open bounces: the refusal itself has to look at the epoch."""
    account = await books.account(limits=tokens_a_day(1_000))
    await process.settle(await process.admit(account), Usage(500, 500))
    with pytest.raises(QuotaExceeded):
        await process.admit(account)
    async with books.database.session() as session:
        user = await find_user(session, account.user_id, tenant_id=None)
        await credit(session, ACTOR, user, Amounts(input_tokens=300), calendar=KOLKATA, reason="goodwill")
    assert (await process.admit(account, max_tokens=5_000)).request.held_output_tokens == 200
