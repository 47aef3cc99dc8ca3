"""Entries on top of measurements: rows + entries = rollup = meters, in any order and with repetitions."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import fields, replace
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from core.errors import Invalid
from core.resilience.outage import COLLISIONS
from metering.adjustments.corrections import Amounts
from metering.adjustments.ledger import SHARD
from metering.adjustments.measurement import Measurement
from metering.counts import COUNT_COLUMNS, UsageCounts
from metering.journal.journal import settle_batch
from metering.journal.records import Outcome, Settlement, Source
from metering.models import UsageMeter
from metering.pricing.tokens import Usage
from tests.harness import Books
from tests.metering.ledger_driver import (
    BETTER,
    COUNTED,
    ESTIMATED,
    FINAL,
    HAIKU,
    SONNET,
    LedgerDriver,
    draw_usage,
    open_ledger,
)
from tests.metering.rows import request

ADJUSTED = tuple(field.name for field in fields(Amounts))


@pytest.fixture
async def ledger(metering_database: str, books: Books) -> AsyncIterator[LedgerDriver]:
    """The ledger of a tenant."""
    async with open_ledger(metering_database, books) as ledger:
        yield ledger


def test_counts_are_named_as_the_columns() -> None:
    assert tuple(UsageMeter.__table__.columns.keys())[-len(COUNT_COLUMNS) :] == COUNT_COLUMNS


@pytest.mark.slow
async def test_only_a_better_measurement_revises(ledger: LedgerDriver) -> None:
    for order in permutations(range(4), 3):
        asked = await ledger.settled(known=BETTER[order[0]], usage=Usage(10, 10 + order[0]))
        best = order[0]
        for number in order[1:] * 2:
            measured = ledger.measured(asked, BETTER[number], Usage(10, 10 + number))
            assert await ledger.revise(measured) is (number > best), order
            best = max(best, number)
        known = await ledger.effective(asked)
        assert (known.outcome, known.source) == BETTER[best]
        assert Usage(*known.counts.tokens) == Usage(10, 10 + best)
        assert known.counts.cost_nano_usd == ledger.book.by_id(asked.price_id).cost_nano_usd(Usage(10, 10 + best))
        (row,) = await ledger.books.fetch("SELECT * FROM usage_requests WHERE id = $1", asked.id)
        assert (row["outcome"], row["output_tokens"]) == (BETTER[order[0]][0], 10 + order[0])
    await ledger.exact()


async def test_eight_at_once_write_one_entry(ledger: LedgerDriver) -> None:
    asked = await ledger.settled(usage=Usage(5, 50))
    final = ledger.measured(asked, FINAL, Usage(5, 70, 1, 2, 3))
    answers = await asyncio.gather(*(ledger.revise(final) for _ in range(8)))
    assert sorted(answers) == [False] * 7 + [True]
    (entry,) = await ledger.entries()
    assert (entry["kind"], entry["source"], entry["outcome"], entry["actor"]) == (
        "revision",
        "final",
        "completed",
        "naka",
    )
    assert Usage(*UsageCounts.of(entry).tokens) == Usage(0, 20, 1, 2, 3)
    assert await ledger.epoch() == 2
    sums = await ledger.exact()
    assert (sums["requests"], sums["output_tokens"]) == (1, 70)


@pytest.mark.slow
async def test_another_model_takes_the_counts_with_it(ledger: LedgerDriver) -> None:
    asked = await ledger.settled(usage=Usage(5, 50))
    await ledger.correct(asked, output_tokens=-7)
    counted = ledger.measured(asked, COUNTED, Usage(5, 60), HAIKU)
    assert await ledger.revise(counted)
    assert await ledger.revise(ledger.measured(asked, FINAL, Usage(6, 61), HAIKU))
    assert not await ledger.revise(counted)
    known = await ledger.effective(asked)
    assert (known.model, known.source) == (HAIKU, "final")
    assert Usage(*known.counts.tokens) == Usage(6, 54)
    rollup = await ledger.books.fetch(
        "SELECT model, requests, input_tokens, output_tokens, cost_nano_usd FROM usage_daily WHERE tenant_id = $1"
        " ORDER BY model",
        ledger.account.tenant_id,
    )
    rates = [ledger.book.at(model, asked.opened_ms).bands[0] for model in (HAIKU, SONNET)]
    assert [tuple(row) for row in rollup] == [
        (HAIKU, 1, 6, 61, 6 * rates[0].input_rate + 61 * rates[0].output_rate),
        (SONNET, 0, 0, -7, -7 * rates[1].output_rate),
    ]
    assert [entry["kind"] for entry in await ledger.entries()].count("revision") == 3
    later = (await ledger.correct(asked, output_tokens=-1)).entry
    assert (later["model"], later["cost_nano_usd"]) == (HAIKU, -rates[0].output_rate)
    await ledger.exact()


@pytest.mark.slow
async def test_an_open_row_is_settled_and_a_void_or_missing_one_takes_nothing(ledger: LedgerDriver) -> None:
    asked = await ledger.opened()
    final = ledger.measured(asked, FINAL, Usage(1, 2))
    assert await ledger.revise(final)
    assert not await ledger.revise(final)
    assert (await ledger.effective(asked)).counts == Measurement.of(final).counts
    void, missing = await ledger.opened(), request(ledger.account)
    await ledger.books.fetch("UPDATE usage_requests SET state = 'void' WHERE id = $1", void.id)
    before = await ledger.everything()
    for nothing in (replace(void, price_id=asked.price_id), replace(missing, price_id=asked.price_id)):
        assert not await ledger.revise(ledger.measured(nothing, FINAL, Usage(9, 9)))
    assert await ledger.everything() == before
    assert (await ledger.exact())["output_tokens"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("known", [ESTIMATED, FINAL])
async def test_a_hold_that_was_kept_ends(ledger: LedgerDriver, known: tuple[Outcome, Source]) -> None:
    """Also by a measurement that is no better: its stream has ended, and its counts are stored."""
    asked = await ledger.settled(known=ESTIMATED, usage=Usage(5, 50))
    await ledger.books.fetch(
        "UPDATE usage_requests SET hold_until = clock_timestamp() + interval '1 hour' WHERE id = $1", asked.id
    )
    again = ledger.measured(asked, known, Usage(5, 80))
    assert await ledger.revise(again) is (known is FINAL)
    (row,) = await ledger.books.fetch("SELECT hold_until, output_tokens FROM usage_requests WHERE id = $1", asked.id)
    assert tuple(row) == (None, 50)
    assert await ledger.epoch() == 2
    before = await ledger.everything()
    assert not await ledger.revise(again)
    assert await ledger.everything() == before
    assert (await ledger.exact())["output_tokens"] == (80 if known is FINAL else 50)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_any_sequence_is_exact(ledger: LedgerDriver, seed: int) -> None:
    """Step by step beside a model of three lines: best measurement, corrections, credits."""
    dice = random.Random(seed)
    requests = [await ledger.opened() for _ in range(3)]
    best: dict[UUID, Settlement] = {}
    corrected: dict[UUID, UsageCounts] = {}
    credited = UsageCounts()
    for _ in range(40):
        asked = dice.choice(requests)
        match dice.choice(("settle", "revise", "revise", "revise", "correct", "correct", "credit")):
            case "credit":
                entry = (await ledger.credit(output_tokens=dice.randrange(1, 99), requests=dice.randrange(3))).entry
                credited += UsageCounts.of(entry)
            case "correct":
                deltas: dict[str, Any] = {dice.choice(ADJUSTED): dice.randrange(-400, 400)}
                with suppress(Invalid):
                    entry = (await ledger.correct(asked, **deltas)).entry
                    corrected[asked.id] = corrected.get(asked.id, UsageCounts()) + UsageCounts.of(entry)
            case how:
                model = dice.choice((SONNET, HAIKU))
                measured = ledger.measured(asked, dice.choice(BETTER), draw_usage(dice), model)
                for _ in range(dice.choice((1, 2))):
                    if how == "settle":
                        await ledger.journal.settlements.submit(measured)
                    else:
                        await ledger.revise(measured)
                known = best.get(asked.id)
                ranks = [0 if one is None else 1 + Measurement.of(one).rank for one in (known, measured)]
                if known is None or (how == "revise" and ranks[1] > ranks[0]):
                    best[asked.id] = measured
    total = credited
    for asked in requests:
        if asked.id in best:
            final = Measurement.of(best[asked.id])
            expected = final.counts + corrected.get(asked.id, UsageCounts())
            assert await ledger.effective(asked) == replace(final, counts=expected)
            total += expected
    assert await ledger.exact() == Counter(dict(zip(COUNT_COLUMNS, total.values, strict=True)))


@pytest.mark.slow
async def test_all_at_once_is_exact_and_nobody_waits_for_ever(ledger: LedgerDriver) -> None:
    dice = random.Random(7)
    requests = [await ledger.opened() for _ in range(6)]
    final = {
        asked.id: ledger.measured(asked, FINAL, draw_usage(dice), dice.choice((SONNET, HAIKU))) for asked in requests
    }
    work: list[Callable[[], Awaitable[object]]] = []
    for asked in requests:
        for known in BETTER[:-1] * 2:
            measured = ledger.measured(asked, known, draw_usage(dice), dice.choice((SONNET, HAIKU)))
            work.append(lambda measured=measured: ledger.revise(measured))  # type: ignore[misc]
        work += [lambda asked=asked: ledger.revise(final[asked.id])] * 2  # type: ignore[misc]
        work.append(lambda asked=asked: ledger.correct(asked, output_tokens=dice.randrange(1, 9)))  # type: ignore[misc]
        work.append(lambda: ledger.credit(output_tokens=3))
    batches = [list(final.values()), list(reversed(final.values()))]
    work += [lambda batch=batch: in_one_batch(ledger, batch) for batch in batches]  # type: ignore[misc]
    dice.shuffle(work)
    gate = asyncio.Semaphore(12)

    async def one(do: Callable[[], Awaitable[object]]) -> None:
        async with gate:
            with suppress(Invalid):  # a correction of what is open yet
                await do()

    async with asyncio.timeout(20):
        await asyncio.gather(*map(one, work))
    await ledger.exact()
    for asked in requests:
        found = await ledger.effective(asked)
        assert (found.source, found.model) == ("final", final[asked.id].model)
    before = await ledger.everything()
    assert not any([await ledger.revise(settlement) for settlement in final.values()])
    assert await ledger.everything() == before


async def in_one_batch(ledger: LedgerDriver, settlements: list[Settlement]) -> None:
    """Settles as the committer does: a batch that collided is tried again."""
    while True:
        async with ledger.books.connection() as connection:
            with suppress(*COLLISIONS):
                await settle_batch(connection, settlements, SHARD)
                return
