"""Budgets of tags and of short-lived tokens: never passed, however many ask at once, and however they are granted."""

import asyncio

import pytest

from metering.quota.limits import Meter
from metering.quota.windows import WindowKind
from sandbox.daemon import free_port
from tests.harness import Books
from tests.metering.budgeted import SEARCH, at_most, crowd_as, limit_tag, token, use_up_as, used_by
from tests.metering.outage import PROMPT, QUICK, Start, until
from tests.metering.process import SMALLEST_GRANT, Process, principal

RATE = 15_000
"""The dearest nano-USD of an output token of the model; that of a prompt token is less."""


@pytest.fixture(params=["redis", "postgres", "both"])
async def pair(request: pytest.FixtureRequest, start: Start) -> tuple[Process, Process]:
    """Two processes: both with Redis, both without, or one of each."""
    made = []
    for number in range(2):
        if request.param == "redis" or (request.param == "both" and number == 0):
            made.append(await start())
            continue
        process = await start(redis=f"redis://127.0.0.1:{free_port()}/0", **QUICK)
        await until(lambda process=process: process.pipeline.breaker.is_open)  # type: ignore[misc]
        made.append(process)
    return made[0], made[1]


@pytest.mark.slow
async def test_a_hundred_at_once_never_pass_a_tokens_budget_of_requests(
    pair: tuple[Process, Process], books: Books
) -> None:
    account = await books.account()
    who = token(account, requests=30)
    halves = await asyncio.gather(*(crowd_as(process, who, 50) for process in pair))
    granted = {grant.request.id for half in halves for grant in half}
    assert len(granted) == 30
    assert granted == {row["id"] for row in await books.requests(account) if row["state"] == "open"}
    other = await pair[0].admit_as(token(account, "t-2", requests=1))
    assert other.budgets[0].budget.name == "token-requests"


async def test_a_tokens_budget_of_tokens_is_used_up_and_never_passed(
    pair: tuple[Process, Process], books: Books
) -> None:
    limit = 9_950
    account = await books.account()
    who = token(account, tokens=limit)
    granted = sum(await asyncio.gather(*(use_up_as(pair[number % 2], who) for number in range(100))))
    requests, tokens, _ = await used_by(books, account)
    assert limit - (PROMPT + SMALLEST_GRANT) < tokens <= limit
    assert requests == granted


@pytest.mark.slow
async def test_a_tokens_budget_of_spend_is_used_up_and_never_passed(
    pair: tuple[Process, Process], books: Books
) -> None:
    limit_micro_usd = 50_000
    account = await books.account()
    who = token(account, spend=limit_micro_usd)
    await asyncio.gather(*(use_up_as(pair[number % 2], who) for number in range(100)))
    _, _, nano_usd = await used_by(books, account)
    limit = limit_micro_usd * 1_000
    assert limit - (PROMPT + SMALLEST_GRANT) * RATE < nano_usd <= limit


@pytest.mark.slow
@pytest.mark.parametrize("window", list(WindowKind))
async def test_a_hundred_at_once_never_pass_a_tags_budget(
    pair: tuple[Process, Process], books: Books, window: WindowKind
) -> None:
    first = await books.account()
    second = await books.account(tenant_id=first.tenant_id)
    await limit_tag(books, first, at_most(Meter.REQUESTS, 30, window))
    asked = [(process, who) for process in pair for who in (first, second)]
    granted = await asyncio.gather(*(crowd_as(process, principal(who), 25, tags=SEARCH) for process, who in asked))
    assert sum(map(len, granted)) == 30 or window is WindowKind.MINUTE
    rows = await books.fetch(
        "SELECT count(*) AS requests FROM usage_requests WHERE tenant_id = $1 AND state = 'open'"
        " GROUP BY date_trunc('minute', opened_at)",
        first.tenant_id,
    )
    assert max(row["requests"] for row in rows) == 30


@pytest.mark.slow
async def test_the_budgets_of_a_tag_and_a_token_hold_together(pair: tuple[Process, Process], books: Books) -> None:
    account = await books.account()
    await limit_tag(books, account, at_most(Meter.TOKENS, 4_000, WindowKind.PERIOD), at_most(Meter.SPEND, 40_000))
    tokens = [token(account, f"t-{number}", tokens=1_500) for number in range(4)]
    await asyncio.gather(*(use_up_as(pair[number % 2], tokens[number % 4], tags=SEARCH) for number in range(100)))
    _, used, nano_usd = await used_by(books, account, "feature")
    assert 4_000 - (PROMPT + SMALLEST_GRANT) < used <= 4_000
    assert nano_usd <= 40_000_000
    rows = await books.fetch(
        "SELECT sum(input_tokens + output_tokens)::bigint AS used FROM usage_requests WHERE tenant_id = $1"
        " GROUP BY tags ->> 'nk:token'",
        account.tenant_id,
    )
    assert len(rows) == 4
    assert all(row["used"] <= 1_500 for row in rows)
