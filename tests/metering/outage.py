"""Requests of the tests without Redis, and waiting for their effects."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from metering.admission.admission import QuotaExceeded
from metering.admission.breaker import BreakerRules
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.query import Grant
from metering.quota.windows import WindowKind
from tests.harness import TOKEN_FIELDS, Account, Books
from tests.metering.process import Process

Start = Callable[..., Awaitable[Process]]
QUICK: dict[str, Any] = {
    "breaker": BreakerRules(dwell_s=0.2),
    "probe_s": 0.05,
    "fallback_s": 1.0,
    "redis_timeout_s": 0.3,
}
PROMPT = 100
"""What the prompt of `Process.admit` holds."""


def tokens(limit: int) -> LimitSet:
    return LimitSet((Limit(Meter.TOKENS, WindowKind.PERIOD, limit),))


def requests(limit: int, *, concurrency: int | None = None) -> LimitSet:
    return LimitSet((Limit(Meter.REQUESTS, WindowKind.PERIOD, limit),), concurrency)


async def until(true: Callable[[], bool], *, within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for happens in other processes' stores
            await asyncio.sleep(0.01)


async def crowd(process: Process, account: Account, size: int) -> list[Grant]:
    """So many at once; those that are granted. The others are refused, and nothing else happens to any."""
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(process.admit(account) for _ in range(size)), return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, Grant | QuotaExceeded), answer
    return [answer for answer in answers if isinstance(answer, Grant)]


async def use_up(process: Process, account: Account) -> int:
    """Asks and uses all that is granted, until the limit is reached; how often it was granted."""
    granted = 0
    while True:
        try:
            grant = await process.admit(account)
        except QuotaExceeded as refusal:
            if refusal.code == "limit_reached":
                return granted
            await asyncio.sleep(0.02)
        else:
            await asyncio.sleep(0.02)  # it runs
            await process.settle(grant, Usage(PROMPT, grant.request.held_output_tokens))
            granted += 1


async def used(books: Books, account: Account) -> int:
    sums = await books.sums("usage_requests", account.tenant_id)
    return sum(sums[name] for name in TOKEN_FIELDS)


async def mode(books: Books, account: Account) -> tuple[int, bool]:
    """The tenant's epoch, and whether Postgres admits it."""
    query = "SELECT epoch, fallback_until FROM tenant_epochs WHERE tenant_id = $1"
    (row,) = await books.fetch(query, account.tenant_id)
    return row["epoch"], row["fallback_until"] is not None


async def back_to_redis(process: Process, account: Account, books: Books) -> Grant:
    """Asks until Redis admits the tenant again."""
    async with asyncio.timeout(30):
        while True:
            grant = await process.admit(account)
            if not (await mode(books, account))[1]:
                return grant
            await asyncio.sleep(0.05)
