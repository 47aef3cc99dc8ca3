"""Other models' part in a request: entries beside its row, from the settlement to the reconciliation, by model."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.clock import now_ms, to_datetime
from metering.adjustments.corrections import Amounts, correct
from metering.admission.admission import AdmissionRequest
from metering.counts import UsageCounts
from metering.journal.journal import settle_batch
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Settlement
from metering.pricing.answer_cost import IterationUsage
from metering.pricing.price import Modifiers, UnknownModifier
from metering.pricing.tokens import Iteration, ReportedUsage, ServerToolUse, Usage
from metering.quota.query import Grant
from metering.reconciliation.provider_usage import compare_with_provider
from metering.reports.live_usage import read_live_usage
from metering.reports.requests import find_request
from tests.harness import ACTOR, Account, Books
from tests.metering.faults import Line, agree, cut_off, entries_of, recover, row_of, spooled, stream, write
from tests.metering.process import MODEL, Process, principal, redis_counters
from tests.metering.proof import check, found

Start = Callable[..., Awaitable[Process]]
ADVISOR, OTHER = "claude-opus-5-5", "claude-haiku-4-5"
ITERATIONS = [
    Iteration(1_000, 30, type="compaction"),
    Iteration(10, 90, type="message"),
    Iteration(200, 20, type="advisor_message", model=ADVISOR),
    Iteration(7, 3, type="advisor_message", model=OTHER),
    Iteration(300, 1, type="advisor_message", model=ADVISOR),
]
OWN = UsageCounts(1, 1_010, 120, web_searches=2, cost_nano_usd=5_313_000 + 20_000_000)
OTHERS = {
    ADVISOR: UsageCounts(0, 500, 21, cost_nano_usd=2_662_000),
    OTHER: UsageCounts(0, 7, 3, cost_nano_usd=22_000),  # no factor for the US: its list price
}
TOTAL = OWN + OTHERS[ADVISOR] + OTHERS[OTHER]


def answered(recorder: UsageRecorder, **told: Any) -> UsageRecorder:
    """A complete answer with iterations, from the US."""
    write(recorder, chars=400, told=90, ended=True)
    recorder.started = ReportedUsage(10, 3, inference_geo="us")
    fields: dict[str, Any] = {"output_tokens": 90, "iterations": ITERATIONS, "server_tool_use": ServerToolUse(2)} | told
    recorder.latest = ReportedUsage(**fields)
    return recorder


async def answer(process: Process, account: Account, **told: Any) -> tuple[Grant, Settlement]:
    """A settled request with iterations."""
    grant, recorder = await stream(process, account)
    return grant, await process.settlements.begin(grant, answered(recorder, **told))


async def by_model(books: Books, table: str, account: Account) -> dict[str, UsageCounts]:
    """The sums of a rollup by model."""
    sums: dict[str, UsageCounts] = {}
    for row in await books.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1", account.tenant_id):
        sums[row["model"]] = sums.get(row["model"], UsageCounts()) + UsageCounts.of(row)
    return sums


async def used(process: Process, grant: Grant) -> list[tuple[int, ...]]:
    """What Redis counts as used in the day and the period, of the user and the tenant."""
    return [window.used for _, windows in await redis_counters(process.quota, grant) for window in windows[1:]]


async def test_each_model_has_its_part_everywhere(process: Process, books: Books) -> None:
    account = await books.account()
    grant, settlement = await answer(process, account)
    row = await row_of(books, grant)
    assert (UsageCounts.of(row), row["model"], row["modifiers"], row["model_known"]) == (
        OWN,
        MODEL,
        "inference_geo:us",
        True,
    )
    entries = await entries_of(books, account)
    assert {entry["model"]: UsageCounts.of(entry) for entry in entries} == OTHERS
    for entry in entries:
        assert (entry["kind"], entry["request_id"], entry["actor"]) == ("iteration", grant.request.id, "naka")
        for name in ("user_id", "key_id", "day", "period_id"):
            assert entry[name] == row[name]
    assert settlement.total == TOTAL
    await agree(books, account)
    for table in ("usage_daily", "usage_monthly", "usage_by_day"):
        assert await by_model(books, table, account) == {MODEL: OWN, **OTHERS}
    assert await used(process, grant) == [TOTAL.values] * 4

    await process.rebuilder.rebuild_tenant(account.tenant_id, 10)
    await process.rebuilder.build_user(account.tenant_id, account.user_id, 11)
    assert await used(process, grant) == [TOTAL.values] * 4
    assert found(await check(process, account.tenant_id)) == {}
    async with books.database.session() as session:
        shown = await find_request(session, grant.request.id, tenant_id=account.tenant_id)
    assert (shown.effective.total, shown.effective.counts, shown.effective.others, shown.entries) == (
        TOTAL,
        OWN,
        OTHERS,
        2,
    )


async def test_settled_twice_at_once_is_settled_once(process: Process, books: Books) -> None:
    account = await books.account()
    grant, recorder = await stream(process, account)
    settlement = await process.settlements._measure(grant, answered(recorder))

    async def settle() -> set[Any]:
        async with books.connection() as connection:
            return await settle_batch(connection, [settlement, settlement], 3)

    assert sorted(map(len, await asyncio.gather(*(settle() for _ in range(8))))) == [0] * 7 + [1]
    assert len(await entries_of(books, account)) == 2
    assert (await agree(books, account))["cost_nano_usd"] == TOTAL.cost_nano_usd


async def test_many_settle_in_one_statement_with_and_without_others(process: Process, books: Books) -> None:
    account = await books.account()
    streams = [await stream(process, account) for _ in range(12)]
    ends = [
        answered(recorder, iterations=ITERATIONS if number % 3 else None, input_tokens=10)
        for number, (_, recorder) in enumerate(streams)
    ]
    await asyncio.gather(
        *(process.settlements.begin(grant, end) for (grant, _), end in zip(streams, ends, strict=True))
    )
    sums = await agree(books, account)
    assert (sums["requests"], sums["input_tokens"]) == (12, 8 * TOTAL.input_tokens + 4 * 10)
    assert len(await entries_of(books, account)) == 16


async def test_what_the_price_list_does_not_know_is_flagged_and_never_free(process: Process, books: Books) -> None:
    account = await books.account()
    unlisted = [*ITERATIONS, Iteration(10, 1, type="advisor_message", model="claude-nobody-1")]
    dreamed = [*ITERATIONS, Iteration(10, 1, type="dream_message", model=OTHER)]
    grants = [
        (await answer(process, account, **told))[0]
        for told in ({"iterations": unlisted}, {"iterations": dreamed}, {"speed": "warp"}, {"inference_geo": "mars"})
    ]
    rows = [await row_of(books, grant) for grant in grants]
    assert [row["model_known"] for row in rows] == [False] * 4
    assert [row["modifiers"] for row in rows[2:]] == ["speed:warp,inference_geo:us", "inference_geo:mars"]
    assert [row["cost_nano_usd"] for row in rows[2:]] == [OWN.cost_nano_usd, 4_830_000 + 20_000_000]
    (nobody,) = [entry for entry in await entries_of(books, account) if entry["model"] == "claude-nobody-1"]
    assert nobody["cost_nano_usd"] == (10 * 3_000 + 15_000) * 11 // 10, "as the model of the grant"
    await agree(books, account)


async def test_a_request_is_held_and_billed_at_the_modifiers_that_it_asks_for(process: Process, books: Books) -> None:
    account = await books.account()
    ask = AdmissionRequest(MODEL, 100, prompt_bound=100, prompt_likely=33, modifiers=Modifiers(inference_geo="us"))
    grant = await process.admission.admit(principal(account), ask)
    assert grant.request.held_nano_usd == (100 * 6_000 + 100 * 15_000) * 11 // 10
    recorder = process.settlements.recorder(grant)
    recorder.sent()  # and never answered
    await process.settlements.begin(grant, recorder)
    row = await row_of(books, grant)
    assert (row["modifiers"], row["cost_nano_usd"]) == ("inference_geo:us", 100 * 3_000 * 11 // 10)
    fast = replace(ask, modifiers=Modifiers(speed="fast"))
    with pytest.raises(UnknownModifier):
        await process.admission.admit(principal(account), fast)
    assert len(await books.fetch("SELECT FROM usage_requests WHERE tenant_id = $1", account.tenant_id)) == 1


@pytest.fixture
async def line(metering_database: str) -> AsyncIterator[Line]:
    """The connection of a process to Postgres."""
    async with Line(metering_database).open() as line:
        yield line


async def test_the_spool_keeps_every_part(line: Line, redis_url: str, tmp_path: Path, books: Books) -> None:
    async with cut_off(line, redis_url, tmp_path) as process:
        account = await books.account()
        grant, recorder = await stream(process, account)
        line.cut()
        settlement = await process.settlements.begin(grant, answered(recorder))
        assert spooled(tmp_path) == [settlement]
        assert settlement.others == (
            IterationUsage(ADVISOR, Usage(500, 21), 2_662_000),
            IterationUsage(OTHER, Usage(7, 3), 22_000),
        )
        line.mend()
        await process.replay.replay_own()
        await process.replay.replay_own()
        assert {entry["model"]: UsageCounts.of(entry) for entry in await entries_of(books, account)} == OTHERS
        await agree(books, account)
        assert await used(process, grant) == [TOTAL.values] * 4


@pytest.mark.slow
async def test_a_killed_process_is_settled_alike(start: Start, books: Books) -> None:
    dead, alive = await start(), await start()
    account = await books.account()
    ended, recorder = await stream(dead, account)
    answered(recorder)
    middle, recorder = await stream(dead, account, chars=40)
    recorder.started = ReportedUsage(
        10, 3, inference_geo="us", iterations=[*ITERATIONS[:1], Iteration(10, 3, type="message")]
    )
    await dead.heartbeat.beat()
    assert await recover(alive, dead, books) == 2
    assert UsageCounts.of(await row_of(books, ended)) == OWN
    row = await row_of(books, middle)
    assert (row["input_tokens"], row["output_tokens"], row["source"]) == (1_010, 30 + 10, "estimated")
    assert row["cost_nano_usd"] == (1_010 * 3_000 + 40 * 15_000) * 11 // 10
    assert {entry["model"]: UsageCounts.of(entry) for entry in await entries_of(books, account)} == OTHERS
    await agree(books, account)

    # They may still run, if the process only sleeps: their holds count instead of all their parts.
    before = await redis_counters(alive.quota, ended)
    await alive.rebuilder.rebuild_tenant(account.tenant_id, 10)
    await alive.rebuilder.build_user(account.tenant_id, account.user_id, 11)
    assert await redis_counters(alive.quota, ended) == before
    assert [state.held[0] for state in before[1][1][1:]] == [2, 2]
    assert await used(alive, ended) == [(0,) * 9] * 4
    assert found(await check(alive, account.tenant_id)) == {}


@pytest.mark.slow
async def test_an_expired_hold_is_replaced_by_every_part(start: Start, books: Books) -> None:
    dead, alive = await start(ttl_ms=300), await start()
    account = await books.account()
    _, recorder = await stream(dead, account)
    answered(recorder)
    await dead.heartbeat.beat()
    await recover(alive, dead, books)
    await asyncio.sleep(0.5)
    again = await alive.admit(account)
    await alive.expired_holds.look(account.tenant_id, account.user_id)
    assert await used(alive, again) == [TOTAL.values] * 4
    assert found(await check(alive, account.tenant_id)) == {}


async def test_a_better_measurement_revises_each_model(start: Start, books: Books) -> None:
    sleeper, alive = await start(), await start()
    account = await books.account()
    grant, recorder = await stream(sleeper, account, chars=40)
    begun = [
        Iteration(5, 5, type="advisor_message", model=OTHER),
        Iteration(9, 2, type="advisor_message", model="gone"),
    ]
    recorder.started = ReportedUsage(10, 3, iterations=begun)
    await sleeper.heartbeat.beat()
    await recover(alive, sleeper, books)
    await sleeper.settlements.begin(grant, answered(recorder))
    async with books.database.session() as session:
        known = (await find_request(session, grant.request.id, tenant_id=None)).effective
    assert (known.counts, known.others, known.source, known.model) == (OWN, OTHERS, "final", MODEL)
    assert (await row_of(books, grant))["modifiers"] == "inference_geo:us"
    assert await by_model(books, "usage_by_day", account) == {MODEL: OWN, **OTHERS, "gone": UsageCounts()}
    await agree(books, account)
    await sleeper.settlements.begin(grant, recorder)  # twice is once
    assert [entry["kind"] for entry in await entries_of(books, account)] == ["iteration"] * 2 + ["revision"] * 4
    assert found(await check(alive, account.tenant_id)) == {}


async def test_a_correction_changes_the_requests_own_model_at_its_modifiers(process: Process, books: Books) -> None:
    account = await books.account()
    grant, _ = await answer(process, account)
    async with books.database.session() as session:
        ids = (account.tenant_id, grant.request.id)
        await correct(session, ACTOR, *ids, Amounts(output_tokens=-100), reason="cut")
        await session.commit()
    (correction,) = [entry for entry in await entries_of(books, account) if entry["kind"] == "correction"]
    assert (correction["model"], correction["cost_nano_usd"]) == (MODEL, -100 * 15_000 * 11 // 10)
    async with books.database.session() as session:
        known = (await find_request(session, grant.request.id, tenant_id=None)).effective
    assert known.others == OTHERS
    assert known.total == TOTAL + UsageCounts.of(correction)
    await agree(books, account)


async def test_the_providers_report_is_compared_by_model(process: Process, books: Books) -> None:
    account = await books.account()
    await answer(process, account)
    today = to_datetime(now_ms()).date()
    exposures = {each.model: each for each in await compare_with_provider(process.pool, [], today, days=1)}
    assert exposures[ADVISOR].ours["input_tokens"] >= 500
    assert exposures[OTHER].ours["output_tokens"] >= 3


async def test_live_usage_counts_other_models_but_no_more_requests(process: Process, books: Books) -> None:
    account = await books.account()
    await answer(process, account)
    async with books.connection() as connection:
        live = (await read_live_usage(connection, [account.tenant_id], longest_ms=60_000))[account.tenant_id]
    assert (live.settled, live.cost_nano_usd) == (1, TOTAL.cost_nano_usd)
    assert live.tokens == sum(TOTAL.tokens)
