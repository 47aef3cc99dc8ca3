"""Recovery settles what a dead process left open, once, from its last heartbeat; and orphans of a living one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from core.ids import uuid7
from metering.journal.journal import Opened
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from metering.pricing.tokens import Usage
from metering.quota.query import Grant
from metering.settlement.failure_detector import FailureDetector
from tests.harness import TOKEN_FIELDS, Books
from tests.metering.faults import INPUT, Line, agree, beat_of, recover, row_of, stream, write
from tests.metering.process import Process, books_say, redis_counters, start_process

Start = Callable[..., Awaitable[Process]]


def impatient(process: Process, *, longest_gap_s: float = 60) -> None:
    """Suspects a process after a short time."""
    process.recovery.detector = FailureDetector(dead_after_s=0.05, longest_gap_s=longest_gap_s)


async def looked(process: Process) -> None:
    """Looks twice, far enough apart."""
    await process.recovery.look()
    await asyncio.sleep(0.06)
    await process.recovery.look()


@pytest.mark.slow
async def test_a_dead_process_is_settled_by_its_last_beat(start: Start, books: Books) -> None:
    dead, alive = await start(), await start()
    account = await books.account()
    unheard, _ = await stream(dead, account)
    middle, recorder = await stream(dead, account, chars=203)
    told, _ = await stream(dead, account, chars=203, told=77)
    long, _ = await stream(dead, account, chars=4_000)
    ended, _ = await stream(dead, account, chars=203, told=77, ended=True)
    await dead.heartbeat.beat()
    recorder.output_chars = 9_999  # was never told to anybody
    unseen, _ = await stream(dead, account, chars=203)
    assert await recover(alive, dead, books) == 6

    grants = {"unheard": unheard, "middle": middle, "told": told, "long": long, "ended": ended, "unseen": unseen}
    rows = {name: await row_of(books, grant) for name, grant in grants.items()}
    for name, output in {"unheard": None, "unseen": None, "middle": 51, "told": 77, "long": 100, "ended": 77}.items():
        row = rows[name]
        usage = replace(INPUT, output_tokens=output) if output is not None else Usage()
        assert [row[field] for field in TOKEN_FIELDS] == [getattr(usage, field) for field in TOKEN_FIELDS], name
        assert row["requests"] == 1
        assert row["cost_nano_usd"] == middle.price.cost_nano_usd(usage)
        assert (row["outcome"], row["source"]) == (
            ("completed", "final") if name == "ended" else ("lost", "estimated")
        ), name
        assert row["hold_until"] == row["deadline_at"]
    assert (rows["ended"]["stop_reason"], rows["ended"]["upstream_request_id"]) == ("end_turn", "req_1")
    assert rows["middle"]["output_chars"] == 203
    sums = await agree(books, account)
    assert (sums["requests"], sums["output_tokens"]) == (6, 51 + 77 + 100 + 77)

    # All may still run, if it only sleeps: the holds count, in Redis as it is and after it is built anew.
    before = await redis_counters(alive.quota, middle)
    assert [state.held[0] for state in before[1][1][1:]] == [6, 6]
    await alive.rebuilder.rebuild_tenant(account.tenant_id, 10)
    await alive.rebuilder.build_user(account.tenant_id, account.user_id, 11)
    assert await redis_counters(alive.quota, middle) == before


async def test_the_characters_per_token_of_the_model_are_what_was_measured(start: Start, books: Books) -> None:
    dead, alive = await start(), await start()
    account = await books.account()
    grant, recorder = await stream(dead, account, chars=150)
    recorder.model = "claude-haiku-4-5"
    alive.recovery.chars_per_token.observe("claude-haiku-4-5", 6_000, 3_000)
    await dead.heartbeat.beat()
    await recover(alive, dead, books)
    row = await row_of(books, grant)
    assert (row["output_tokens"], row["model"]) == (75, "claude-haiku-4-5")
    price = (await alive.recovery.prices.book()).at("claude-haiku-4-5", grant.request.opened_ms)
    assert row["cost_nano_usd"] == price.cost_nano_usd(replace(INPUT, output_tokens=75)) != 0


@pytest.mark.slow
async def test_recovered_by_many_at_once_is_recovered_once(start: Start, books: Books) -> None:
    dead, *alive = [await start() for _ in range(4)]
    account = await books.account()
    for _ in range(20):
        await stream(dead, account, chars=40)
    await dead.heartbeat.beat()
    counts = await asyncio.gather(*(recover(by, dead, books) for by in [*alive, *alive, *alive[:2]]))
    assert sum(counts) == 20
    sums = await agree(books, account)
    assert (sums["requests"], sums["output_tokens"], sums["input_tokens"]) == (20, 200, 200)
    assert await recover(alive[0], dead, books) == 0


async def test_a_beat_that_moved_meanwhile_saves_its_process(start: Start, books: Books) -> None:
    awake, alive = await start(), await start()
    account = await books.account()
    grant, _ = await stream(awake, account, chars=40)
    seen = await beat_of(books, awake)
    await awake.heartbeat.beat()
    assert await alive.recovery.recover(awake.journal.process_id, beat=seen) == 0
    assert (await row_of(books, grant))["state"] == "open"
    assert await alive.recovery.recover(awake.journal.process_id, beat=seen + 1) == 1


async def test_a_beat_under_way_is_waited_for(start: Start, books: Books) -> None:
    """A process suspected at the moment of its beat: the row's lock decides."""
    awake, alive = await start(), await start()
    grant, _ = await stream(awake, await books.account(), chars=40)
    seen = await beat_of(books, awake)
    async with books.connection() as beating:
        await beating.execute("BEGIN")
        await beating.execute("UPDATE processes SET beat = beat + 1 WHERE id = $1", awake.journal.process_id)
        judged = asyncio.create_task(alive.recovery.recover(awake.journal.process_id, beat=seen))
        await asyncio.sleep(0.1)
        await beating.execute("COMMIT")
    assert await judged == 0
    assert (await row_of(books, grant))["state"] == "open"


@pytest.mark.slow
async def test_a_process_without_a_row_is_dead_too(start: Start, books: Books) -> None:
    dead, alive = await start(), await start()
    grant, _ = await stream(dead, await books.account(), chars=40)
    await books.fetch("DELETE FROM processes WHERE id = $1", dead.journal.process_id)
    impatient(alive)
    await alive.recovery.look()
    assert (await row_of(books, grant))["state"] == "open"
    await asyncio.sleep(0.06)
    await alive.recovery.look()
    row = await row_of(books, grant)
    assert (row["state"], row["outcome"], row["requests"]) == ("settled", "lost", 1)
    assert row["hold_until"] == row["deadline_at"]


async def test_orphans(process: Process, books: Books) -> None:
    account = await books.account()
    running, _ = await stream(process, account, chars=40)
    orphan, _ = await stream(process, account, chars=40)
    await process.heartbeat.beat()
    process.running.leave(orphan.request.id)  # its settlement failed
    await process.recovery.look()
    row = await row_of(books, orphan)
    assert (row["state"], row["outcome"], row["output_tokens"], row["hold_until"]) == ("settled", "lost", 10, None)
    assert (await row_of(books, running))["state"] == "open"
    after = await redis_counters(process.quota, running)
    assert after == await books_say(books, running)
    assert after[1][1][1].held[0] == 1
    await process.settle(running, Usage(1, 2, 3, 4, 5))
    assert await redis_counters(process.quota, running) == await books_say(books, running)
    assert (await agree(books, account))["requests"] == 2


@pytest.mark.parametrize("when", ["before the rows", "after the rows"])
async def test_one_that_is_opened_meanwhile_is_no_orphan(
    process: Process, books: Books, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A request is in flight before it is opened, and the list is read after the rows."""
    account = await books.account()
    first = await process.admit(account)
    process.running.leave(first.request.id)
    opened: list[Grant] = []
    acquire = process.pool.acquire

    @asynccontextmanager
    async def meanwhile() -> AsyncIterator[Any]:
        monkeypatch.undo()
        if when == "before the rows":
            opened.append(await process.admit(account))
        async with acquire() as connection:
            yield connection
        opened.append(await process.admit(account))

    monkeypatch.setattr(process.pool, "acquire", meanwhile)
    assert await process.recovery.recover_orphans() == 1
    assert (await row_of(books, first))["state"] == "settled"
    assert {(await row_of(books, grant))["state"] for grant in opened} == {"open"}


@pytest.mark.slow
async def test_an_orphan_hunt_beside_a_busy_process(process: Process, books: Books) -> None:
    """A living process takes none of its own requests for an orphan while it opens and settles."""
    account = await books.account()
    busy = True

    async def live() -> None:
        for _ in range(12):
            grant = await process.admit(account)
            process.settlements.recorder(grant)
            await process.settle(grant, Usage(1, 2, 3, 4, 5))

    async def hunt() -> int:
        found = 0
        while busy:
            found += await process.recovery.recover_orphans()
        return found

    hunting = asyncio.create_task(hunt())
    await asyncio.gather(*(live() for _ in range(8)))
    busy = False
    assert await hunting == 0
    assert (await agree(books, account))["output_tokens"] == 2 * 96
    assert {row["outcome"] for row in await books.requests(account)} == {"completed"}


async def test_one_that_said_goodbye_is_recovered_at_once(start: Start, books: Books) -> None:
    gone, alive = await start(), await start()
    account = await books.account()
    grant, _ = await stream(gone, account, chars=40)
    await gone.heartbeat.beat()
    gone.running.leave(grant.request.id)
    await gone.heartbeat.stop()
    assert (await redis_counters(alive.quota, grant))[0][0] == 1
    await alive.recovery.look()
    row = await row_of(books, grant)
    assert (row["state"], row["outcome"], row["output_tokens"], row["hold_until"]) == ("settled", "lost", 10, None)
    assert await redis_counters(alive.quota, grant) == await books_say(books, grant)


@pytest.mark.slow
async def test_nobody_is_dead_right_after_postgres_was_away(
    metering_database: str, redis_url: str, start: Start, books: Books, tmp_path: Path
) -> None:
    quiet = await start()
    grant, _ = await stream(quiet, await books.account(), chars=40)
    async with Line(metering_database).open() as line:
        observer = await start_process(line.url, redis_url, spool_dir=tmp_path)
        impatient(observer, longest_gap_s=0.05)
        await observer.recovery.look()
        line.cut()
        with pytest.raises(Unavailable):
            await observer.recovery.look()
        await asyncio.sleep(0.06)
        line.mend()
        await observer.recovery.look()
        assert (await row_of(books, grant))["state"] == "open"
        impatient(observer)
        await looked(observer)
        assert (await row_of(books, grant))["state"] == "settled"
        await observer.stop()


@pytest.mark.slow
async def test_who_cannot_be_recovered_keeps_nobody_else(start: Start, books: Books) -> None:
    """An unreadable heartbeat, an unknown price, text that Postgres refuses: logged, without effect on others."""
    garbled, unpriced, odd, alive = [await start() for _ in range(4)]
    account = await books.account()
    grants = [(await stream(process, account, chars=40))[0] for process in (garbled, unpriced, odd, odd)]
    ((_, recorder), _) = odd.running
    assert recorder is not None
    recorder.stop_reason = "a\0b"
    await odd.heartbeat.beat()
    await books.fetch("UPDATE processes SET progress = '[[1]]' WHERE id = $1", garbled.journal.process_id)
    await books.fetch("UPDATE usage_requests SET price_id = $2 WHERE id = $1", grants[1].request.id, uuid7())
    impatient(alive)
    await looked(alive)
    assert [(await row_of(books, grant))["state"] for grant in grants] == ["open", "open", "open", "settled"]
    assert (await agree(books, account))["requests"] == 1
    await books.fetch("UPDATE usage_requests SET price_id = $2 WHERE id = $1", grants[1].request.id, grants[0].price.id)
    recorder.stop_reason = None
    for process in (garbled, odd):
        await process.heartbeat.beat()
    await looked(alive)
    assert {row["state"] for row in await books.requests(account)} == {"settled"}


@pytest.mark.slow
async def test_more_than_one_bite(process: Process, start: Start, books: Books) -> None:
    """Hundreds of open requests of one dead process: a batch per look, all in the end."""
    dead = await start()
    account = await books.account()
    (first, _), now = await stream(dead, account, chars=40), uuid7
    requests = [replace(first.request, id=now(first.request.opened_ms)) for _ in range(519)]
    assert set(await asyncio.gather(*map(dead.journal.opens.submit, requests))) == {Opened.OPEN}
    for request in requests:
        dead.running.record(request.id, write(UsageRecorder(100, 0), chars=40))
    await dead.heartbeat.beat()
    assert [await recover(process, dead, books) for _ in range(3)] == [500, 20, 0]
    sums = await agree(books, account)
    assert (sums["requests"], sums["output_tokens"]) == (520, 5_200)
    assert {row["outcome"] for row in await books.requests(account)} == {Outcome.LOST}
