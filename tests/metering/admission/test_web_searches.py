"""A limit on web searches, in both stores: held by the most that may run, settled by those that ran."""

import asyncio
import math

import pytest

from metering.admission.admission import AdmissionRequest, _Attempt
from metering.pricing.tokens import Usage
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.query import Grant, Refused, Retry
from metering.quota.windows import WindowKind
from tests.harness import Account, Books
from tests.metering.process import MODEL, Process, books_say, principal, redis_counters
from tests.metering.proof import check, found

LIMIT, MOST = 10, 3
AT_ONCE = 20
LONGEST_S = 60  # for a query that has to be asked again


async def search(process: Process, account: Account, most: int = MOST) -> Grant | Refused:
    """Asks for a request that may run `most` searches."""
    async with asyncio.timeout(LONGEST_S):
        while True:
            ask = AdmissionRequest(MODEL, 50, 42, 42, web_searches=most)
            query = await process.admission._query(principal(account), ask)
            answer = await process.admission._ask(query, _Attempt(0, math.inf))
            if not isinstance(answer, Retry):
                return answer


@pytest.mark.parametrize("of_tenant", [False, True])
async def test_a_race_holds_no_more_searches_than_the_limit(either: Process, books: Books, *, of_tenant: bool) -> None:
    limits = LimitSet((Limit(Meter.WEB_SEARCHES, WindowKind.DAY, LIMIT),))
    account = await (books.account(tenant_limits=limits) if of_tenant else books.account(limits=limits))
    answers = await asyncio.gather(*(search(either, account) for _ in range(AT_ONCE)))
    granted = [answer for answer in answers if isinstance(answer, Grant)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert (len(granted), {answer.cause for answer in refused}) == (LIMIT // MOST, {"held"})
    assert min(answer.room for answer in granted) == (LIMIT % MOST,)
    rows = await books.requests(account)
    assert [row["held_web_searches"] for row in rows] == [MOST] * len(granted)

    for ran, grant in enumerate(granted):
        await either.settle(grant, Usage(10, 20, thinking_tokens=15, web_searches=ran))  # 0, 1 and 2: 3 in all
    (status,) = (await either.limit_status.of(account.tenant_id, account.user_id)).limits
    assert (status.limit.unit, status.used, status.held, status.remaining) == ("searches", 3, 0, 7)
    answer = await search(either, account, most=8)
    assert isinstance(answer, Refused)
    assert answer.cause == "used"
    assert isinstance(await search(either, account, most=7), Grant)
    assert isinstance(await search(either, account, most=0), Grant)


async def test_reconciliation_compares_what_is_held(process: Process, books: Books) -> None:
    account = await books.account()
    ended, running = await search(process, account), await search(process, account)
    assert isinstance(ended, Grant)
    assert isinstance(running, Grant)
    await process.settle(ended, Usage(1, 20, 3, 4, 5, 7, 2))
    counters = await redis_counters(process.quota, running)
    assert counters == await books_say(books, running)
    assert counters[0][1][2].used[6:8] == (7, 2)
    assert counters[0][1][2].held[3] == MOST
    assert found(await check(process, account.tenant_id)) == {}
    await process.rebuilder.rebuild_tenant(account.tenant_id, running.request.epoch)
    await process.admit(account)
    assert (await redis_counters(process.quota, running))[1][1][2].held[3] == MOST
    assert found(await check(process, account.tenant_id)) == {}
