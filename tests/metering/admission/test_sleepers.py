"""A process that only slept and was settled for: its own count is the better one, and becomes a revision."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from metering.adjustments.corrections import Amounts, correct
from metering.pricing.tokens import Usage
from metering.reports.requests import find_request
from tests.harness import ACTOR, TOKEN_FIELDS, Books
from tests.metering.faults import INPUT, agree, entries_of, recover, row_of, stream, write
from tests.metering.process import Process, redis_counters

Start = Callable[..., Awaitable[Process]]


@pytest.mark.slow
async def test_a_sleeper_brings_the_better_count(start: Start, books: Books) -> None:
    sleeper, alive = await start(), await start()
    account = await books.account()
    grant, recorder = await stream(sleeper, account, chars=40)
    await sleeper.heartbeat.beat()
    assert await recover(alive, sleeper, books) == 1
    async with books.database.session() as session:
        ids = (account.tenant_id, grant.request.id)
        await correct(session, ACTOR, *ids, Amounts(input_tokens=-7), reason="goodwill")
    assert (await row_of(books, grant))["hold_until"] is not None

    write(recorder, chars=400, told=90, ended=True)
    settlement = await sleeper.settlements.begin(grant, recorder)
    row = await row_of(books, grant)
    assert (row["outcome"], row["output_tokens"], row["hold_until"]) == ("lost", 10, None)
    correction, revision = await entries_of(books, account)
    assert (correction["kind"], correction["input_tokens"]) == ("correction", -7)
    assert (revision["kind"], revision["source"], revision["outcome"]) == ("revision", "final", "completed")
    assert [revision[field] for field in ("requests", *TOKEN_FIELDS)] == [0, 0, 80, 0, 0, 0]
    async with books.database.session() as session:
        counts = (await find_request(session, grant.request.id, tenant_id=None)).effective.counts
    assert Usage(*counts.tokens) == replace(INPUT, input_tokens=3, output_tokens=90)
    assert settlement.cost_nano_usd == grant.price.cost_nano_usd(replace(INPUT, output_tokens=90))
    await agree(books, account)
    assert grant.request.id not in sleeper.running

    await sleeper.settlements.begin(grant, recorder)  # twice is once
    assert len(await entries_of(books, account)) == 2
    again = await alive.admit(account)  # of counters that know it all
    running, (_, _, period) = (await redis_counters(alive.quota, again))[1]
    assert (running, period.used[:3], period.held[0]) == (1, (1, 3, 90), 1)


async def test_an_estimate_of_its_own_is_better_than_a_dead_process_s_word(start: Start, books: Books) -> None:
    sleeper, alive = await start(), await start()
    account = await books.account()
    grant, recorder = await stream(sleeper, account, chars=40)
    await sleeper.heartbeat.beat()
    await recover(alive, sleeper, books)
    recorder.output_chars = 120
    await sleeper.settlements.begin(grant, recorder)
    (revision,) = await entries_of(books, account)
    assert (revision["source"], revision["outcome"], revision["output_tokens"]) == ("estimated", "upstream_broke", 20)
    assert (await row_of(books, grant))["hold_until"] is None
    assert (await agree(books, account))["output_tokens"] == 30
