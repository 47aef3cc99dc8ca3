"""Corrections and credits: their limits, their cost, and one entry per reference."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from core.clock import now_ms
from core.errors import Conflict, Invalid, NotFound
from metering.adjustments.corrections import Amounts, Written
from metering.adjustments.measurement import Measurement
from metering.counts import COUNT_COLUMNS, UsageCounts
from metering.pricing.price_list import read_prices
from metering.pricing.tokens import Usage
from tests.harness import Books
from tests.metering.ledger_driver import (
    FINAL,
    SONNET,
    LedgerDriver,
    open_ledger,
)
from tests.metering.rows import KOLKATA, request


@pytest.fixture
async def ledger(metering_database: str, books: Books) -> AsyncIterator[LedgerDriver]:
    """The ledger of a tenant."""
    async with open_ledger(metering_database, books) as ledger:
        yield ledger


async def test_a_correction_costs_what_the_price_list_says(ledger: LedgerDriver) -> None:
    price = ledger.book.at(SONNET, now_ms())
    asked = await ledger.settled(known=FINAL, usage=Usage(100, 50, 40, 30, 20))
    deltas = Amounts(0, -10, 5, -4, 3, -2)
    written = await ledger.correct(asked, **{name: getattr(deltas, name) for name in COUNT_COLUMNS[1:6]})
    band = price.bands[0]
    cost = (
        -10 * band.input_rate
        + 5 * band.output_rate
        - 4 * band.cache_read_rate
        + 3 * band.cache_write_5m_rate
        - 2 * band.cache_write_1h_rate
    )
    assert UsageCounts.of(written.entry) == replace(deltas.counts, cost_nano_usd=cost)
    await ledger.correct(asked, requests=-1)
    await ledger.correct(asked, cost_nano_usd=-cost)
    assert await ledger.effective(asked) == Measurement(
        "completed",
        "final",
        SONNET,
        UsageCounts(0, 90, 55, 36, 33, 18, 0, 0, price.cost_nano_usd(Usage(100, 50, 40, 30, 20))),
    )
    await ledger.exact()


async def test_a_correction_is_priced_in_the_band_that_it_leads_to(ledger: LedgerDriver) -> None:
    async with ledger.books.database.session() as session:
        banded = next(price for price in await read_prices(session) if len(price.bands) > 1)
    edge = banded.bands[1].over_prompt_tokens
    asked = replace(await ledger.opened(), price_id=banded.id)
    await ledger.books.fetch("UPDATE usage_requests SET price_id = $2 WHERE id = $1", asked.id, banded.id)
    final = ledger.measured(asked, FINAL, Usage(edge + 5, 100), banded.model)
    assert await ledger.revise(final)
    await ledger.correct(asked, input_tokens=-5)
    after = (await ledger.effective(asked)).counts
    assert Usage(*after.tokens) == Usage(edge, 100)
    assert after.cost_nano_usd == edge * banded.bands[0].input_rate + 100 * banded.bands[0].output_rate
    assert final.cost_nano_usd == (edge + 5) * banded.bands[1].input_rate + 100 * banded.bands[1].output_rate
    await ledger.exact()


async def test_revise_and_correct_in_either_order_are_the_same(ledger: LedgerDriver) -> None:
    first = await ledger.settled(usage=Usage(5, 50))
    second = await ledger.settled(usage=Usage(5, 50))
    await ledger.revise(ledger.measured(first, FINAL, Usage(8, 30)))
    await ledger.correct(first, output_tokens=-30, input_tokens=2)
    await ledger.correct(second, output_tokens=-30, input_tokens=2)
    await ledger.revise(ledger.measured(second, FINAL, Usage(8, 30)))
    assert await ledger.effective(first) == await ledger.effective(second)
    assert Usage(*(await ledger.effective(first)).counts.tokens) == Usage(10, 0)
    await ledger.exact()


async def test_a_correction_may_outlast_a_smaller_count(ledger: LedgerDriver) -> None:
    """A correction of an estimate stays when the exact count is smaller: the sum is below zero until it is raised."""
    asked = await ledger.settled(usage=Usage(5, 50))
    await ledger.correct(asked, output_tokens=-40)
    await ledger.revise(ledger.measured(asked, FINAL, Usage(5, 10)))
    assert (await ledger.effective(asked)).counts.output_tokens == -30
    with pytest.raises(Invalid, match="output_tokens is -30"):
        await ledger.correct(asked, output_tokens=-1)
    await ledger.correct(asked, output_tokens=20)
    assert (await ledger.exact())["output_tokens"] == -10


async def test_searches_are_corrected_and_credited_and_thinking_stays_as_reported(ledger: LedgerDriver) -> None:
    usage = Usage(5, 50, thinking_tokens=40, web_searches=3)
    asked = await ledger.settled(known=FINAL, usage=usage)
    await ledger.correct(asked, web_searches=-2, output_tokens=-50)
    known = (await ledger.effective(asked)).counts
    assert known.usage == (5, 0, 0, 0, 0, 40, 1)
    assert known.cost_nano_usd == ledger.book.by_id(asked.price_id).cost_nano_usd(Usage(5, web_searches=1))
    await ledger.credit(web_searches=4)
    assert (await ledger.exact())["web_searches"] == -3


async def test_what_cannot_be_corrected(ledger: LedgerDriver) -> None:
    asked, running = await ledger.settled(known=FINAL, usage=Usage(5, 50)), await ledger.opened()
    stranger = await ledger.books.account()
    before = await ledger.everything()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"output_tokens": -51}, "output_tokens is 50"),
        ({"requests": -2}, "requests is 1"),
        ({"cost_nano_usd": -(10**12)}, "cost_nano_usd is"),
        ({"output_tokens": -1, "cost_nano_usd": 0}, "not both"),
        ({}, "nothing would change"),
        ({"cost_nano_usd": 0}, "nothing would change"),
        ({"input_tokens": 10**12 + 1}, "at most"),
        ({"output_tokens": 10**12}, "would exceed"),
        ({"web_searches": -1}, "web_searches is 0"),
        ({"web_searches": 1, "cost_nano_usd": 5}, "not both"),
    ]
    for deltas, said in refused:
        with pytest.raises(Invalid, match=said):
            await ledger.correct(asked, **deltas)
    for reason in ("", "x" * 501):
        with pytest.raises(Invalid, match="a reason"):
            await ledger.correct(asked, reason=reason, output_tokens=-1)
    with pytest.raises(Invalid, match="only a settled"):
        await ledger.correct(running, output_tokens=1)
    for nothing in (replace(asked, tenant_id=stranger.tenant_id), request(ledger.account)):
        with pytest.raises(NotFound):
            await ledger.correct(nothing, output_tokens=-1)
    assert await ledger.everything() == before


async def test_a_credit_is_of_a_period_and_a_day(ledger: LedgerDriver) -> None:
    (now,) = await ledger.books.fetch("SELECT clock_timestamp() AS at")
    today = KOLKATA.date_of(int(now["at"].timestamp() * 1000))
    first = today.replace(day=1)
    before, after = first - timedelta(days=1), (first + timedelta(days=32)).replace(day=1)
    for named, day, expected in (
        (None, None, today),
        (None, before, before),
        (f"{before:%Y-%m}", None, before),
        (f"{before:%Y-%m}", before.replace(day=2), before.replace(day=2)),
        (f"{today:%Y-%m}", None, today),
    ):
        entry = (await ledger.credit(period=named, day=day, output_tokens=3, cost_nano_usd=7)).entry
        assert (entry["period_id"], entry["day"]) == (f"{expected:%Y-%m}", expected)
        assert (entry["key_id"], entry["model"], entry["request_id"]) == (UUID(int=0), "", None)
        assert UsageCounts.of(entry) == UsageCounts(output_tokens=-3, cost_nano_usd=-7)
    sums = await ledger.exact()
    assert (sums["output_tokens"], sums["cost_nano_usd"]) == (-15, -35)
    for named, day in (
        ("2026-13", None),
        ("2026-1", None),
        ("26-01", None),
        ("2026-01\n", None),
        ("٢٠٢٦-01", None),
        ("1026-01", None),
        ("2026-01", date(2026, 2, 1)),
        ("2026-02", date(2026, 1, 31)),
        (None, date(1999, 1, 1)),
        (f"{after:%Y-%m}", None),
        (None, after),
        (None, today + timedelta(days=1)),
    ):
        with pytest.raises(Invalid):
            await ledger.credit(period=named, day=day, output_tokens=1)
    senseless: list[dict[str, Any]] = [{}, {"output_tokens": -1}, {"requests": 10**12 + 1}]
    for amounts in senseless:
        with pytest.raises(Invalid):
            await ledger.credit(**amounts)


@pytest.mark.slow
async def test_a_reference_writes_once(ledger: LedgerDriver) -> None:
    asked = await ledger.settled(known=FINAL, usage=Usage(5, 50))
    other = await ledger.settled(known=FINAL, usage=Usage(5, 50))
    calls: list[Callable[[], Awaitable[Written]]] = [
        lambda: ledger.correct(asked, reference="a", output_tokens=-50),
        lambda: ledger.credit(reference="b", output_tokens=50),
        lambda: ledger.correct(asked, reference="c", cost_nano_usd=-1),
    ]
    for call in calls:
        written = await asyncio.gather(*(call() for _ in range(8)))
        assert sorted(one.is_new for one in written) == [False] * 7 + [True]
        assert len({one.entry["id"] for one in written}) == 1
    before = await ledger.everything()
    for another in (
        ledger.correct(asked, reference="a", output_tokens=-49),
        ledger.correct(asked, reference="a", reason="else", output_tokens=-50),
        ledger.correct(other, reference="a", output_tokens=-50),
        ledger.correct(asked, reference="b", output_tokens=-50),
        ledger.correct(asked, reference="c", cost_nano_usd=-2),
        ledger.credit(reference="a", output_tokens=50),
        ledger.credit(reference="b", output_tokens=50, cost_nano_usd=1),
        ledger.credit(reference="b", period="2026-01", output_tokens=50),
    ):
        with pytest.raises(Conflict):
            await another
    assert await ledger.everything() == before
    assert len(before["usage_entries"]) == 3
    actions = await ledger.books.fetch(
        "SELECT action FROM audit_log WHERE tenant_id = $1 AND action LIKE 'usage.%' ORDER BY id",
        ledger.account.tenant_id,
    )
    assert sorted(row["action"] for row in actions) == ["usage.correct", "usage.correct", "usage.credit"]
    await ledger.exact()


@pytest.mark.slow
async def test_a_reference_raced_by_different_entries_is_of_one(ledger: LedgerDriver) -> None:
    requests = [await ledger.settled(known=FINAL, usage=Usage(5, 50)) for _ in range(4)]
    answers = await asyncio.gather(
        *(ledger.correct(asked, reference="once", output_tokens=-1) for asked in requests),
        *(ledger.credit(reference="once", output_tokens=size) for size in range(1, 5)),
        return_exceptions=True,
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["Conflict"] * 7 + ["Written"]
    assert len(await ledger.entries()) == 1
    await ledger.exact()
