"""A process dies during streams, or is paused: every admitted request is settled once.

A dead process's last heartbeat is what is known: exact input, output by its characters. A resumed process adds the
better count as a revision; until its deadline the hold counts.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from metering.counts import COUNT_COLUMNS
from metering.quota.limits import Limit, LimitSet, Meter
from metering.quota.windows import WindowKind
from tests.harness import LEDGER_FIELDS, TOKEN_FIELDS, Account, Api, Books, Simulator, chat, client, scripted
from tests.journeys.forms import CHAT, Form, every_form

pytestmark = pytest.mark.chaos
QUICK = {"HEARTBEAT_S": "0.2", "DEAD_AFTER_S": "1.6"}
CACHE = {"cache_read_input_tokens": 7, "cache_creation_5m": 11, "cache_creation_1h": 13}


async def ask(api: Api, account: Account, message: str, form: Form = CHAT) -> Any:
    """Returns an answer, or the connection's error."""
    async with client(api.url) as http:
        try:
            return await form.ask(http, account, message)
        except httpx2.HTTPError as error:
            return error


async def until(condition: Callable[[], Any], *, within_s: float = 10) -> None:
    """Polls a condition, which may be a coroutine function."""
    deadline = time.monotonic() + within_s
    while True:
        met = condition()
        if asyncio.iscoroutine(met):
            met = await met
        if met:
            return
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.05)


async def beats(books: Books, more: int) -> None:
    """Returns after `more` heartbeats of both living processes."""
    before = {row["id"]: row["beat"] for row in await books.fetch("SELECT id, beat FROM processes")}

    async def look() -> bool:
        rows = await books.fetch("SELECT id, beat FROM processes")
        ahead = [row["id"] for row in rows if row["beat"] >= before.get(row["id"], row["beat"]) + more]
        return len(ahead) >= 2

    await until(look)


async def assert_books_agree(books: Books, account: Account) -> None:
    """Asserts that rows with entries, rollups and meters have the same sums."""
    rows = await books.sums("usage_requests", account.tenant_id)
    entries = await books.sums("usage_entries", account.tenant_id)
    together = {name: rows[name] + entries[name] for name in COUNT_COLUMNS}
    assert dict(await books.sums("usage_daily", account.tenant_id)) == together
    assert dict(await books.sums("usage_meters", account.tenant_id)) == together


@every_form
async def test_killed_in_the_middle_of_answers(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    dying, living = start_api(**QUICK), start_api(**QUICK)
    account, other = await books.account(), await books.account()
    ref = account.key_id.hex
    long = {"words": 400, "piece_delay_ms": 20, **CACHE}
    asked = [
        asyncio.create_task(ask(dying, account, scripted(ref=ref, **long), form)),
        asyncio.create_task(ask(dying, account, scripted(ref=ref, **long), form)),
        asyncio.create_task(ask(dying, account, scripted(ref=ref, head_delay_ms=20_000), form)),
    ]
    lives = asyncio.create_task(ask(living, other, scripted(ref=other.key_id.hex, words=150, piece_delay_ms=25), form))
    await until(lambda: len(simulator.ledger(ref)) == 3)
    await asyncio.sleep(0.5)
    await beats(books, 2)
    dying.kill()
    for answer in await asyncio.gather(*asked):
        assert isinstance(answer, httpx2.HTTPError), "a cut answer looks complete"

    rows = await books.settled(account, 3)
    served = {entry["request_id"]: entry for entry in simulator.ledger(ref)}
    unknown = [row for row in rows if row["upstream_request_id"] is None]
    assert [(row["requests"], row["input_tokens"], row["output_tokens"], row["cost_nano_usd"]) for row in unknown] == [
        (1, 0, 0, 0)
    ]
    for row in rows:
        assert (row["outcome"], row["source"]) == ("lost", "estimated")
        assert row["hold_until"] == row["deadline_at"]
        if row not in unknown:
            entry = served[row["upstream_request_id"]]
            inputs = [name for name in TOKEN_FIELDS if name != "output_tokens"]
            theirs = [name for name in LEDGER_FIELDS if name != "output_tokens"]
            assert [row[name] for name in inputs] == [entry[name] for name in theirs]
            assert 0 < row["output_tokens"] <= 1.5 * entry["output_tokens"]
            assert row["output_chars"] > 50
    await assert_books_agree(books, account)

    answer = await lives
    assert answer.done, "a living process was taken for dead"
    (row,) = await books.settled(other, 1)
    assert (row["outcome"], row["source"]) == ("completed", "final")


@pytest.mark.slow
@every_form
async def test_a_sleeper_brings_the_better_count(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    """A paused process: settled by another, then exact after it resumes, counted once, and its hold kept."""
    sleeper, living = start_api(**QUICK), start_api(**QUICK)
    account = await books.account(limits=LimitSet((Limit(Meter.TOKENS, WindowKind.DAY, 4_000),)))
    ref = account.key_id.hex
    asked = asyncio.create_task(ask(sleeper, account, scripted(ref=ref, words=200, piece_delay_ms=30, **CACHE), form))
    await until(lambda: len(simulator.ledger(ref)) == 1)
    await asyncio.sleep(0.4)
    await beats(books, 1)
    sleeper.process.send_signal(signal.SIGSTOP)
    try:
        (row,) = await books.settled(account, 1)
        assert (row["outcome"], row["source"]) == ("lost", "estimated")
        async with client(living.url) as http:
            refused = await chat(http, account, "x" * 2_000)
            assert refused.error is not None
            assert (refused.status, refused.error["code"]) == (429, "held"), "the sleeper's hold was let go"
    finally:
        sleeper.process.send_signal(signal.SIGCONT)
    answer = await asked
    assert answer.done

    async def revised() -> bool:
        return bool(await books.fetch("SELECT FROM usage_entries WHERE request_id = $1", row["id"]))

    await until(revised)
    (entry,) = await books.fetch("SELECT * FROM usage_entries WHERE request_id = $1", row["id"])
    (served,) = simulator.ledger(ref)
    assert (entry["kind"], entry["source"], entry["outcome"]) == ("revision", "final", "completed")
    ours = [row[name] + entry[name] for name in TOKEN_FIELDS]
    assert ours == [served[name] for name in LEDGER_FIELDS]
    await assert_books_agree(books, account)
    async with client(living.url) as http:
        (window,) = (await http.get("/v1/limits", headers=account.headers)).json()["windows"]
        assert (window["used"], window["held"]) == (sum(ours), 0)


@pytest.mark.slow
@every_form
async def test_answers_of_a_sleeper_end_at_their_deadline(
    start_api: Callable[..., Api], books: Books, simulator: Simulator, form: Form
) -> None:
    sleeper = start_api(**QUICK, REQUEST_DEADLINE_S="2")
    start_api(**QUICK)
    account = await books.account()
    ref = account.key_id.hex
    asked = asyncio.create_task(ask(sleeper, account, scripted(ref=ref, words=500, piece_delay_ms=20), form))
    await until(lambda: len(simulator.ledger(ref)) == 1)
    await asyncio.sleep(0.4)
    sleeper.process.send_signal(signal.SIGSTOP)
    try:
        await books.settled(account, 1)
        await asyncio.sleep(0.5)
    finally:
        sleeper.process.send_signal(signal.SIGCONT)
    answer = await asyncio.wait_for(asked, 30)
    form.assert_told(answer, 504, "upstream_timeout", started=True)
    await until(lambda: simulator.ledger(ref)[0]["state"] != "open")
    await until(lambda: books.fetch("SELECT FROM usage_entries WHERE tenant_id = $1", account.tenant_id))
    await assert_books_agree(books, account)
