"""Many users while processes, Postgres and Redis are killed, stopped, flushed and paused: the accounts stay exact.

Half a minute in the suite; `CHAOS_S=900 CHAOS_SEED=7 pytest tests/journeys/test_chaos.py -s` for longer.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from metering.counts import COUNT_COLUMNS
from metering.journal.spool import waiting
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests import servers
from tests.answers import parse_sse
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Books, Simulator, client
from tests.journeys.chaos import ENOUGH_DONE, SETTINGS, Setup, harm, live, setup

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
LASTS_S = float(os.environ.get("CHAOS_S", "8"))
SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
CLIENTS_EACH = 2
TIGHT = 4_000


async def test_the_books_after_chaos(
    private_postgres: Callable[..., Postgres],
    private_valkey: Callable[..., Valkey],
    simulator: Simulator,
    tmp_path: Path,
) -> None:
    postgres = private_postgres(synchronous_commit="on")  # a commit has to outlive the plug that is pulled
    valkey = private_valkey(appendonly="no")
    await asyncio.to_thread(servers.migrated, postgres.url)
    books = Books(postgres.url)
    accounts = await _accounts(books)
    async with setup(postgres, valkey, simulator, tmp_path, SEED) as place:
        until = time.monotonic() + LASTS_S
        clients = [
            live(place, account, SEED * 1_000 + number, until, cached=number % len(accounts) >= 4)
            for number, account in enumerate(accounts * CLIENTS_EACH)
        ]
        await asyncio.gather(harm(place, until), *clients)
        await place.ready()
        await _calm(place, books)
        try:
            await _assert_books(place, books, accounts)
            await _assert_redis(place, books, accounts)
        finally:
            print(_summary(place))  # noqa: T201 - with -s, or when it fails: what this run was
    await books.close()


async def _accounts(books: Books) -> list[Account]:
    """Creates three tenants: two with tight limits of their own or their users', one without."""
    tight = LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, TIGHT),), concurrency=3)
    shared = LimitSet((Limit(Meter.OUTPUT, WindowKind.PERIOD, 2 * TIGHT), Limit(Meter.REQUESTS, WindowKind.DAY, 400)))
    first = await books.account(limits=tight)
    second = await books.account(tenant_limits=shared)
    third = await books.account()
    return [
        first,
        await books.account(tenant_id=first.tenant_id, limits=tight),
        second,
        await books.account(tenant_id=second.tenant_id),
        third,
        await books.account(tenant_id=third.tenant_id),
    ]


async def _calm(place: Setup, books: Books) -> None:
    """Returns once nothing is open, spooled or held, after recovery, replay and expiry."""
    deadline = time.monotonic() + 40
    while True:
        (row,) = await books.fetch("SELECT count(*) FROM usage_requests WHERE state = 'open'")
        if row["count"] == 0 and waiting(place.folder / "spool")[0] == 0:
            break
        assert time.monotonic() < deadline, f"{row['count']} open, {waiting(place.folder / 'spool')} spooled"
        await asyncio.sleep(0.2)
    held = "SELECT coalesce(extract(epoch FROM max(deadline_at) - clock_timestamp()), 0) AS s FROM usage_requests"
    (row,) = await books.fetch(held)
    await asyncio.sleep(max(0.0, float(row["s"])) + 6)  # and the grace that a lapsed hold is given


async def _assert_books(place: Setup, books: Books, accounts: list[Account]) -> None:
    rows = await _effective(books)
    assert {row["state"] for row in rows.values()} <= {"settled", "void"}
    assert waiting(place.folder / "spool") == (0, 0)
    owner = {seen.ref: seen.account.user_id for seen in place.seen}
    served = [entry for entry in place.simulator.ledger() if entry["ref"] in owner and entry["status"] == 200]
    _assert_once(rows, served, owner)
    _assert_done(place, rows, {entry["ref"]: entry for entry in served if entry["state"] == "completed"})
    _assert_limits(rows, accounts)
    for account in accounts:
        mine = [row for row in rows.values() if row["tenant_id"] == account.tenant_id]
        sums = +Counter({name: sum(row[name] for row in mine) for name in COUNT_COLUMNS})
        for table in ("usage_daily", "usage_monthly", "usage_by_day", "usage_meters"):
            assert +(await books.sums(table, account.tenant_id)) == sums, table


async def _effective(books: Books) -> dict[UUID, dict[str, Any]]:
    """Returns all rows with their later revisions applied."""
    rows = {row["id"]: dict(row) for row in await books.fetch("SELECT * FROM usage_requests")}
    for entry in await books.fetch("SELECT * FROM usage_entries ORDER BY id"):
        assert entry["kind"] == "revision"
        row = rows[entry["request_id"]]
        for name in COUNT_COLUMNS:
            row[name] += entry[name]
        row["source"], row["outcome"] = entry["source"], entry["outcome"]
    return rows


def _assert_once(rows: dict[UUID, dict[str, Any]], served: list[dict[str, Any]], owner: dict[str, UUID]) -> None:
    """Asserts one row per request of the provider; one that ended before its head has no upstream id."""
    named = [row["upstream_request_id"] for row in rows.values() if row["upstream_request_id"]]
    assert len(named) == len(set(named)), "a request of the provider is in the books twice"
    by_upstream = {row["upstream_request_id"]: row for row in rows.values()}
    unnamed: Counter[UUID] = Counter()
    for entry in served:
        row = by_upstream.get(entry["request_id"])
        if row is None:
            unnamed[owner[entry["ref"]]] += 1
            continue
        assert row["user_id"] == owner[entry["ref"]]
        if (row["source"], row["outcome"]) == ("final", "completed"):
            assert _five(row, TOKEN_FIELDS) == _five(entry, LEDGER_FIELDS)
    blank = [row for row in rows.values() if row["outcome"] != "not_sent" and row["upstream_request_id"] is None]
    unknown = unnamed - Counter(row["user_id"] for row in blank if row["state"] == "settled")
    assert not unknown, "the provider served what nobody had written down"


def _assert_done(place: Setup, rows: dict[UUID, dict[str, Any]], completed: dict[str, dict[str, Any]]) -> None:
    """Asserts that every request with `done` is stored, to the token, in all five classes."""
    done = [seen for seen in place.seen if seen.done]
    assert len(done) >= ENOUGH_DONE, "hardly anything went well: this run shows nothing"
    for seen in done:
        row = rows[UUID(seen.request_id)]
        assert row["source"] == "final", seen
        if row["outcome"] != "refused":
            assert row["outcome"] == "completed", seen
            assert _five(row, TOKEN_FIELDS) == _five(completed[seen.ref], LEDGER_FIELDS), seen


def _assert_limits(rows: dict[UUID, dict[str, Any]], accounts: list[Account]) -> None:
    """Asserts that no user or tenant exceeded a limit."""

    def used(names: tuple[str, ...], column: str, value: UUID) -> int:
        return sum(row[name] for row in rows.values() if row[column] == value for name in names)

    for account in accounts[:2]:
        for day in {row["day"] for row in rows.values()}:
            today = {key: row for key, row in rows.items() if row["day"] == day}
            mine = sum(
                row[name] for row in today.values() if row["user_id"] == account.user_id for name in TOKEN_FIELDS
            )
            assert mine <= TIGHT
    tenant_id = accounts[2].tenant_id
    assert used(("output_tokens",), "tenant_id", tenant_id) <= 2 * TIGHT
    assert used(("requests",), "tenant_id", tenant_id) <= 400


async def _assert_redis(place: Setup, books: Books, accounts: list[Account]) -> None:
    """Asserts that the limits (in Redis) agree with Postgres, and nothing is held."""
    async with client(place.apis[0].url) as http:
        for account in accounts[:4]:
            asked = {"message": "hello", "system": None}
            answer = await http.post("/chat", json=asked, headers=account.headers)  # looks for holds that lapsed
            if answer.status_code == 200:
                assert ("done", "") in parse_sse(answer.content)
        await asyncio.sleep(1)
        for account in accounts[:4]:
            windows = (await http.get("/v1/limits", headers=account.headers)).json()["windows"]
            for window in windows:
                assert window["held"] == 0, window
                assert window["used"] == await _used(books, account, window), window


async def _used(books: Books, account: Account, window: dict[str, Any]) -> int:
    meter = {
        "tokens": "input_tokens + output_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens"
    }.get(window["meter"], window["meter"])
    column, value = ("user_id", account.user_id) if window["scope"] == "user" else ("tenant_id", account.tenant_id)
    since = "day = (SELECT max(day) FROM usage_daily)" if window["window"] == "day" else "true"
    (row,) = await books.fetch(
        f"SELECT coalesce(sum({meter}), 0)::bigint AS used FROM usage_daily WHERE {column} = $1 AND {since}", value
    )
    return int(row["used"])


def _five(row: Any, names: tuple[str, ...]) -> list[int]:
    return [row[name] for name in names]


def _summary(place: Setup) -> str:
    statuses = Counter((seen.status, seen.code) for seen in place.seen)
    return (
        f"seed {SEED}, {LASTS_S:.0f} s, {SETTINGS}\nharm: {place.harm}\n{len(place.seen)} requests, "
        f"{sum(seen.done for seen in place.seen)} done, {sum(seen.left for seen in place.seen)} left: {dict(statuses)}"
    )
