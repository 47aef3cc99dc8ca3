"""Reconciliation: no drift after any traffic; each damage is found exactly and repaired, and nothing else changes."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from core.clock import now_ms, to_datetime
from core.errors import Invalid
from core.ids import uuid7
from metering.counts import COUNT_COLUMNS, REPORTED_COLUMNS
from metering.journal.journal import settle_batch
from metering.pricing.tokens import Usage
from metering.reconciliation.drifts import METERS, OPEN, ROLLUP, Month
from metering.reconciliation.provider_usage import COMPARED, Reported, compare_with_provider
from metering.reconciliation.reconcile import Scope, reconcile, run_reconciliation
from metering.reconciliation.repair import repair_meters, repair_rollup
from tests.harness import Account, Books
from tests.metering.process import Process, start_process
from tests.metering.proof import OPERATOR, audited, check, everything, found, this_month, three_users, traffic
from tests.metering.rows import KOLKATA, settlement


@pytest.fixture
async def accounts(books: Books) -> list[Account]:
    return await three_users(books)


@pytest.fixture
async def tenant_id(process: Process, accounts: list[Account]) -> UUID:
    """The accounts' tenant, after some traffic."""
    await traffic(process, accounts, random.Random(17), 15)
    return accounts[0].tenant_id


# ------------------------------------------------------------------------------------------ clean books


@pytest.mark.slow
async def test_after_any_traffic_there_is_no_drift(process: Process, accounts: list[Account]) -> None:
    dice, tenant_id = random.Random(3), accounts[0].tenant_id
    for _ in range(3):
        running = await traffic(process, accounts, dice, 25)
        run = await check(process, tenant_id)
        assert (found(run), run.whole, run.tenants) == ({}, True, 1), run.as_json()
        await asyncio.gather(*(process.settle(grant, Usage(1, 2, 3, 4, 5)) for grant in running))
    assert found(await check(process, tenant_id)) == {}


@pytest.mark.slow
async def test_under_traffic_there_is_no_drift(
    process: Process, start: Callable[..., Awaitable[Process]], accounts: list[Account]
) -> None:
    other = await start()
    dice, done = random.Random(5), asyncio.Event()

    async def keep_on(of: Process) -> None:
        while not done.is_set():
            await traffic(of, accounts, dice, 10)

    busy = [asyncio.create_task(keep_on(of)) for of in (process, other)]
    try:
        for _ in range(6):
            run = await check(process, accounts[0].tenant_id)
            assert found(run) == {}, run.as_json()
    finally:
        done.set()
        await asyncio.gather(*busy)


@pytest.mark.slow
async def test_entries_are_no_drift_and_a_repair_of_a_drifted_meter_neither(
    process: Process, books: Books, accounts: list[Account], tenant_id: UUID
) -> None:
    for kind, amounts in (
        ("revision", (0, 0, 9, 0, 0, 0, 4, 1, 135)),
        ("correction", (0, -5, 0, -1, 0, 0, 0, -1, -7)),
        ("credit", (0, 0, -300, 0, 0, 0, 0, -2, -4500)),
    ):
        await enter(books, accounts[0], kind, amounts)
        assert found(await check(process, tenant_id)) == {}, kind
    await process.admit(accounts[0])  # Redis is rebuilt, with the entries
    assert found(await check(process, tenant_id)) == {}


async def enter(books: Books, account: Account, kind: str, amounts: tuple[int, ...]) -> None:
    """An entry with its rollup, meter and epoch in one transaction."""
    names = ", ".join(COUNT_COLUMNS)
    values = ", ".join(map(str, amounts))
    moved = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in COUNT_COLUMNS)
    key, model = (UUID(int=0), "") if kind == "credit" else (account.key_id, "claude-sonnet-4-6")
    at = (account.tenant_id, account.user_id, KOLKATA.date_of(now_ms()), this_month().name, key, model)
    async with books.connection() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO usage_entries (tenant_id, id, kind, user_id, day, period_id, key_id, model, actor, reason,"
            f" {names}) VALUES ($1, $7, $8, $2, $3, $4, $5, $6, 'test', 'test', {values})",
            *at,
            uuid7(),
            kind,
        )
        await connection.execute(
            f"INSERT INTO usage_daily AS t (tenant_id, user_id, day, period_id, key_id, model, {names})"
            f" VALUES ($1, $2, $3, $4, $5, $6, {values})"
            f" ON CONFLICT (tenant_id, user_id, day, period_id, key_id, model) DO UPDATE SET {moved}",
            *at,
        )
        await connection.execute(
            f"INSERT INTO usage_monthly AS t (tenant_id, user_id, month, period_id, key_id, model, {names})"
            f" VALUES ($1, $2, date_trunc('month', $3::date), $4, $5, $6, {values})"
            f" ON CONFLICT (tenant_id, user_id, month, period_id, key_id, model) DO UPDATE SET {moved}",
            *at,
        )
        await connection.execute(
            f"INSERT INTO usage_by_day AS t (tenant_id, day, period_id, model, shard, {names})"
            f" VALUES ($1, $2, $3, $4, 0, {values})"
            f" ON CONFLICT (tenant_id, day, period_id, model, shard) DO UPDATE SET {moved}",
            *(at[0], at[2], at[3], at[5]),
        )
        await connection.execute(
            f"INSERT INTO usage_meters AS t (tenant_id, period_id, shard, {names}) VALUES ($1, $2, 0, {values})"
            f" ON CONFLICT (tenant_id, period_id, shard) DO UPDATE SET {moved}",
            account.tenant_id,
            this_month().name,
        )
        await connection.execute("UPDATE tenant_epochs SET epoch = epoch + 1 WHERE tenant_id = $1", account.tenant_id)


# ------------------------------------------------------------------------------------- damage in Postgres


ONE_KEY = """(user_id, day, key_id, model) = (SELECT user_id, day, key_id, model FROM usage_daily
    WHERE tenant_id = $1 AND input_tokens > 0 ORDER BY user_id LIMIT 1)"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        (
            f"UPDATE usage_daily SET output_tokens = output_tokens + 7 WHERE tenant_id = $1 AND {ONE_KEY}",
            {"output_tokens": 7},
        ),
        (f"UPDATE usage_daily SET requests = requests - 1, cost_nano_usd = 0 WHERE tenant_id = $1 AND {ONE_KEY}", None),
        (f"DELETE FROM usage_daily WHERE tenant_id = $1 AND {ONE_KEY}", None),
        (f"UPDATE usage_daily SET errors = errors + 2 WHERE tenant_id = $1 AND {ONE_KEY}", {"errors": 2}),
    ],
)
async def test_a_wrong_or_missing_row_of_the_rollup_is_named_and_repaired(
    process: Process, books: Books, tenant_id: UUID, damage: str, difference: dict[str, int] | None
) -> None:
    before = await everything(books, tenant_id)
    await books.fetch(damage, tenant_id)
    run = await check(process, tenant_id)
    assert found(run) == {ROLLUP: 1}
    (drift,) = run.checks[ROLLUP].drifts
    (right,) = [row for row in before["usage_daily"] if str(row["user_id"]) == drift.subject["user"]]
    assert drift.expected == {name: right[name] for name in REPORTED_COLUMNS}
    assert difference is None or drift.difference == difference

    assert await repair_rollup(process.pool, OPERATOR, tenant_id, drift.month) == 1
    assert await everything(books, tenant_id) == before
    assert found(await check(process, tenant_id)) == {}
    assert await repair_rollup(process.pool, OPERATOR, tenant_id, drift.month) == 0
    assert await audited(books, tenant_id) == ["usage.repair_rollup"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "damage"),
    [
        ("usage_monthly", "UPDATE usage_monthly SET output_tokens = output_tokens + 7"),
        ("usage_monthly", "UPDATE usage_monthly SET errors = errors + 1"),
        ("usage_monthly", "DELETE FROM usage_monthly"),
        ("usage_by_day", "UPDATE usage_by_day SET cost_nano_usd = cost_nano_usd - 3"),
        ("usage_by_day", "UPDATE usage_by_day SET errors = errors - 1"),
        ("usage_by_day", "DELETE FROM usage_by_day"),
        ("usage_by_tag", "UPDATE usage_by_tag SET output_tokens = output_tokens + 7"),
        ("usage_by_tag", "UPDATE usage_by_tag SET errors = errors + 1"),
        ("usage_by_tag", "DELETE FROM usage_by_tag"),
    ],
)
async def test_a_coarser_rollup_that_drifted_is_named_and_repaired(
    process: Process, books: Books, tenant_id: UUID, table: str, damage: str
) -> None:
    before = await books.sums(table, tenant_id)
    rest = [name for name in ("usage_daily", "usage_monthly", "usage_by_day", "usage_by_tag") if name != table]
    others = [await books.sums(name, tenant_id) for name in rest]
    await books.fetch(f"{damage} WHERE tenant_id = $1", tenant_id)
    run = await check(process, tenant_id)
    assert {drift.subject.get("rollup") for drift in run.checks[ROLLUP].drifts} == {table}
    month = run.checks[ROLLUP].drifts[0].month
    assert month == this_month()

    assert await repair_rollup(process.pool, OPERATOR, tenant_id, month) == run.drifts
    assert await books.sums(table, tenant_id) == before
    assert [await books.sums(name, tenant_id) for name in rest] == others
    assert found(await check(process, tenant_id)) == {}
    assert await repair_rollup(process.pool, OPERATOR, tenant_id, month) == 0


@pytest.mark.slow
async def test_a_row_of_the_rollup_that_nothing_was_used_for_is_emptied(
    process: Process, books: Books, tenant_id: UUID
) -> None:
    before = await everything(books, tenant_id)
    await books.fetch(
        "INSERT INTO usage_daily SELECT tenant_id, user_id, day, period_id, key_id, 'claude-0', 3, 4 FROM usage_daily"
        " WHERE tenant_id = $1 ORDER BY user_id LIMIT 1",
        tenant_id,
    )
    run = await check(process, tenant_id)
    (drift,) = run.checks[ROLLUP].drifts
    assert (found(run), drift.subject["model"]) == ({ROLLUP: 1}, "claude-0")
    assert drift.difference == {"requests": 3, "input_tokens": 4}
    await repair_rollup(process.pool, OPERATOR, tenant_id, drift.month)
    after = await everything(books, tenant_id)
    empty = [row for row in after["usage_daily"] if not any(row[name] for name in COUNT_COLUMNS)]
    assert [row["model"] for row in empty] == ["claude-0"]
    after["usage_daily"] = [row for row in after["usage_daily"] if row not in empty]
    assert after == before


@pytest.mark.slow
async def test_a_shifted_meter_is_named_repaired_with_a_reason_and_can_drift_again(
    process: Process, books: Books, tenant_id: UUID
) -> None:
    before = await everything(books, tenant_id)
    shift = "UPDATE usage_meters SET input_tokens = input_tokens + 1000, requests = requests - 2 WHERE tenant_id = $1"
    for times in (1, 2):
        await books.fetch(shift, tenant_id)
        run = await check(process, tenant_id)
        assert found(run) == {METERS: 1}
        (drift,) = run.checks[METERS].drifts
        shards = len((await everything(books, tenant_id))["usage_meters"])
        assert drift.subject == {"period": this_month().name}
        assert drift.difference == {"input_tokens": 1000 * shards, "requests": -2 * shards}
        with pytest.raises(Invalid):
            await repair_meters(process.pool, OPERATOR, tenant_id, drift.month, " ")
        assert await repair_meters(process.pool, OPERATOR, tenant_id, drift.month, "disk repaired") == 1
        assert await repair_meters(process.pool, OPERATOR, tenant_id, drift.month, "disk repaired") == 0
        assert found(await check(process, tenant_id)) == {}
        after = await everything(books, tenant_id)
        assert {table: after[table] for table in ("usage_requests", "usage_daily")} == {
            table: before[table] for table in ("usage_requests", "usage_daily")
        }
        assert len(after["usage_entries"]) == times
        newest = after["usage_entries"][-1]
        assert (newest["kind"], newest["actor"], newest["reason"]) == ("repair", "cli:test", "disk repaired")
        assert (newest["input_tokens"], newest["requests"]) == (-1000 * shards, 2 * shards)
    totals = [
        {name: sum(row[name] for row in state["usage_meters"]) for name in COUNT_COLUMNS} for state in (before, after)
    ]
    assert totals[0] == totals[1]
    assert await audited(books, tenant_id) == ["usage.repair_meters"] * 2


@pytest.mark.slow
async def test_repairs_while_settlements_run_end_exact(
    process: Process, start: Callable[..., Awaitable[Process]], books: Books, accounts: list[Account], tenant_id: UUID
) -> None:
    other, dice, done = await start(), random.Random(11), asyncio.Event()

    async def keep_on(of: Process) -> None:
        while not done.is_set():
            await traffic(of, accounts, dice, 8)

    busy = [asyncio.create_task(keep_on(of)) for of in (process, other)]
    try:
        for _ in range(4):
            await books.fetch(
                "UPDATE usage_daily SET output_tokens = output_tokens + 7 WHERE tenant_id = $1", tenant_id
            )
            await books.fetch(
                "UPDATE usage_meters SET output_tokens = output_tokens - 7 WHERE tenant_id = $1", tenant_id
            )
            await asyncio.gather(
                *(repair_rollup(process.pool, OPERATOR, tenant_id, this_month()) for _ in range(2)),
                *(repair_meters(other.pool, OPERATOR, tenant_id, this_month(), "race") for _ in range(2)),
            )
    finally:
        done.set()
        await asyncio.gather(*busy)
    assert found(await check(process, tenant_id)) == {}
    assert sorted(await audited(books, tenant_id)) == ["usage.repair_meters"] * 4 + ["usage.repair_rollup"] * 4


@pytest.mark.slow
async def test_a_settlement_that_commits_while_the_rollup_is_repaired_is_not_lost(
    process: Process, books: Books, accounts: list[Account], tenant_id: UUID
) -> None:
    await process.settle(await process.admit(accounts[0]), Usage(1, 2, 3, 4, 5))
    grant = await process.admit(accounts[0])
    await books.fetch("UPDATE usage_daily SET output_tokens = output_tokens + 7 WHERE tenant_id = $1", tenant_id)
    async with books.connection() as connection:
        settling = connection.transaction()
        await settling.start()
        assert await settle_batch(connection, [settlement(grant.request)], 3) == {grant.request.id}
        repair = asyncio.create_task(repair_rollup(process.pool, OPERATOR, tenant_id, this_month()))
        async with asyncio.timeout(10):
            while not await books.fetch(WAITING):  # for the row: its difference is found, and not added yet
                assert not repair.done()
        await settling.commit()
    assert await repair > 0
    await process.quota.settle(
        tenant_id, accounts[0].user_id, grant.request.id, settlement(grant.request).counts.values
    )
    assert found(await check(process, tenant_id)) == {}


WAITING = """SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query LIKE '%naka_add_usage%'"""


@pytest.mark.slow
async def test_a_request_that_nobody_settled_is_named_a_minute_after_its_deadline(
    process: Process, books: Books, accounts: list[Account], tenant_id: UUID
) -> None:
    grant = await process.admit(accounts[0])
    late = "UPDATE usage_requests SET deadline_at = now() - make_interval(secs => $2) WHERE id = $1"
    await books.fetch(late, grant.request.id, 50.0)
    assert found(await check(process, tenant_id)) == {}
    await books.fetch(late, grant.request.id, 61.0)
    run = await check(process, tenant_id)
    assert found(run) == {OPEN: 1}
    assert run.checks[OPEN].drifts[0].subject["request"] == str(grant.request.id)


@pytest.mark.slow
async def test_a_model_that_has_no_price_is_said_and_no_drift(process: Process, books: Books, tenant_id: UUID) -> None:
    await books.fetch(
        "UPDATE usage_requests SET model_known = false WHERE tenant_id = $1 AND id = (SELECT id FROM usage_requests"
        " WHERE tenant_id = $1 AND state = 'settled' ORDER BY id LIMIT 1)",
        tenant_id,
    )
    run = await check(process, tenant_id)
    assert found(run) == {}
    assert [(row.tenant_id, row.requests) for row in run.unpriced] == [(tenant_id, 1)]


# -------------------------------------------------------------------------------------- what is looked at


@pytest.mark.slow
async def test_the_nightly_run_looks_at_every_tenant_and_is_stored(database_url: str, redis_url: str) -> None:
    books = Books(database_url)
    process = await start_process(database_url, redis_url)
    try:
        accounts = [await books.account() for _ in range(3)]
        await traffic(process, accounts, random.Random(23), 20)
        await books.fetch("UPDATE usage_meters SET requests = requests + 1 WHERE tenant_id = $1", accounts[1].tenant_id)
        run = await run_reconciliation(process.pool, process.quota)
        assert (run.tenants, found(run)) == (3, {METERS: 1})
        (row,) = await books.fetch("SELECT * FROM reconciliations")
        assert (row["id"], row["drifts"], json.loads(row["report"])) == (run.id, 1, run.as_json())
    finally:
        await process.stop()
        await books.close()


async def test_a_month_is_chosen_and_one_whose_rows_are_gone_is_not_compared(
    process: Process, books: Books, tenant_id: UUID
) -> None:
    await books.fetch("UPDATE usage_meters SET requests = requests + 1 WHERE tenant_id = $1", tenant_id)
    await books.fetch(
        "INSERT INTO usage_meters (tenant_id, period_id, shard, requests) VALUES ($1, '2001-01', 0, 5)", tenant_id
    )
    await books.fetch(
        "INSERT INTO usage_entries (tenant_id, id, kind, period_id, actor, reason)"
        " VALUES ($1, $2, 'credit', '2001-01', 'test', 'test')",
        tenant_id,
        uuid7(),
    )
    for since, drifts in ((None, 1), (Month("2001-01"), 1), (this_month(), 1), (this_month().later(1), 0)):
        run = await reconcile(process.pool, None, Scope((tenant_id,), since))
        assert run.drifts == drifts, since
        assert run.since > Month("2001-02")


def test_months() -> None:
    assert [Month("2026-12").later(by).name for by in (-12, -1, 0, 1, 13)] == [
        "2025-12",
        "2026-11",
        "2026-12",
        "2027-01",
        "2028-01",
    ]
    first, after = Month("2026-12").ids()
    assert to_datetime(first.int >> 80).isoformat() == "2026-11-29T00:00:00+00:00"
    assert to_datetime(after.int >> 80).isoformat() == "2027-01-03T00:00:00+00:00"


@pytest.mark.slow
async def test_what_was_measured_is_held_against_what_the_provider_reports(
    process: Process, books: Books, accounts: list[Account]
) -> None:
    model = f"claude-{accounts[0].user_id.hex}"  # the provider knows no tenants: tell our rows from the others' so
    running = [await process.admit(accounts[0]) for _ in range(4)]
    for grant in running:
        await process.settle(grant, Usage(10, 20, 30, 40, 50, 5, 3))
    ids = [grant.request.id for grant in running]
    await books.fetch("UPDATE usage_requests SET model = $2 WHERE id = ANY ($1)", ids, model)
    await books.fetch("UPDATE usage_requests SET source = 'estimated' WHERE id = ANY ($1)", ids[:2])
    await books.fetch("UPDATE usage_requests SET outcome = 'lost' WHERE id = $1", ids[0])
    for kind, request in (("revision", ids[1]), ("correction", ids[2]), ("iteration", ids[3])):
        await books.fetch(
            "INSERT INTO usage_entries (tenant_id, id, kind, request_id, model, period_id, source, actor, reason,"
            " output_tokens, web_searches) VALUES ($1, $2, $3, $4, $5, '2026-11', 'final', 'test', 'test', 7, 1)",
            accounts[0].tenant_id,
            uuid7(),
            kind,
            request,
            model,
        )
    day = to_datetime(ids[0].int >> 80).date()
    theirs = [Reported(day, model, (40, 88, 120, 160, 200, 16)), Reported(day, f"{model}-2", (1, 0, 0, 0, 0, 0))]
    mine, other = [
        row for row in await compare_with_provider(process.pool, theirs, day, 2) if row.model.startswith(model)
    ]
    assert mine.ours == dict(zip(COMPARED, (40, 94, 120, 160, 200, 14), strict=True))
    assert (mine.difference, mine.requests, mine.estimated, mine.lost) == (
        {"output_tokens": -6, "web_searches": 2},
        4,
        1,
        1,
    )
    assert (other.difference, other.requests) == ({"input_tokens": 1}, 0)
