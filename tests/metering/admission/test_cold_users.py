"""Users new to a process cost at most one statement each, fewer when many come at once, and no pooled connection."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from core.postgres.database import Database
from metering.admission.snapshot import UserQuery, WindowRange, read_snapshot, read_user_snapshots
from metering.pricing.price_list import PriceList
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.query import Grant
from metering.quota.windows import WindowKind
from tests.harness import Account, Books
from tests.metering.process import KOLKATA, Process, books_say, redis_counters

CROWD = 60


async def crowd(books: Books, first: Account) -> list[Account]:
    """Users of one tenant, some with limits of their own."""
    day = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 150),))
    return [
        await books.account(tenant_id=first.tenant_id, limits=None if number % 3 else day) for number in range(CROWD)
    ]


@pytest.mark.slow
async def test_a_crowd_of_unseen_users_needs_no_connection_of_the_pools(process: Process, books: Books) -> None:
    first = await books.account()
    await process.admit(first)
    users = await crowd(books, first)
    async with AsyncExitStack() as stack:
        for _ in range(10):
            session = await stack.enter_async_context(process.database.session())
            await session.execute(text("SELECT 1"))
        for _ in range(4):
            await stack.enter_async_context(process.pool.acquire())
        grants = await asyncio.gather(*(process.admit(user, max_tokens=100) for user in users))
    for number, grant in enumerate(grants):
        assert grant.request.held_output_tokens == (100 if number % 3 else 50)
    assert await redis_counters(process.quota, grants[0]) == await books_say(books, grants[0])
    assert await redis_counters(process.quota, grants[-1]) == await books_say(books, grants[-1])


@pytest.mark.slow
async def test_users_read_together_are_what_they_are_alone(process: Process, books: Books) -> None:
    """Two tenants; one user queried at two moments; open requests, settled ones and none."""
    accounts = [await books.account() for _ in range(2)]
    accounts += [await books.account(tenant_id=accounts[0].tenant_id) for _ in range(3)]
    grants: list[Grant] = []
    for number, account in enumerate(accounts[:-1]):
        for turn in range(number + 1):
            grants.append(await process.admit(account, max_tokens=10 + turn))
            if turn % 2:
                await process.settle(grants[-1], Usage(1 + number, 2, 3, 4, 5))
    at_ms = grants[-1].request.opened_ms
    moments = [(account, at_ms) for account in accounts] + [(accounts[0], at_ms + 120_000)]
    asks = [
        UserQuery(account.tenant_id, account.user_id, WindowRange.around(KOLKATA, moment, around_ms=60_000))
        for account, moment in moments
    ]
    async with process.pool.acquire() as connection:
        together = await read_user_snapshots(connection, asks)
        for ask, (account, moment) in zip(asks, moments, strict=True):
            alone = await read_snapshot(
                connection, KOLKATA, account.tenant_id, account.user_id, moment, around_ms=60_000
            )
            assert together[ask] == alone
        held = [len(together[ask].holds) for ask in asks]
    assert held == [1, 1, 2, 2, 0, 1]


async def test_the_first_price_list_is_read_once_for_all_who_wait(metering_database: str) -> None:
    database = Database(metering_database, pool_size=1, timeout_s=5)
    prices = PriceList(database, ttl_s=60)
    books = await asyncio.gather(*(prices.book() for _ in range(50)))
    assert all(book is books[0] for book in books)
    await database.close()
