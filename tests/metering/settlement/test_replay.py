"""Postgres down: settlements are spooled without a time-out each, and get into Postgres exactly once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from metering.journal.spool import abandoned
from sandbox.postgres import Postgres
from tests import servers
from tests.harness import Books
from tests.metering.faults import (
    USAGE,
    Line,
    agree,
    beat_of,
    cut_off,
    die,
    entries_of,
    files,
    grants,
    row_of,
    settle,
    spooled,
    stream,
)
from tests.metering.process import Process, books_say, recorder, redis_counters, start_process

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
def server(private_postgres: Callable[..., Postgres]) -> Postgres:
    """A migrated Postgres of a test's own."""
    server = private_postgres(max_connections="30")
    servers.migrated(server.url)
    return server


@pytest.fixture
async def line(metering_database: str) -> AsyncIterator[Line]:
    """The connection of `ours` to Postgres."""
    async with Line(metering_database).open() as line:
        yield line


@pytest.fixture
async def ours(line: Line, redis_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    """A process whose Postgres can be cut off."""
    async with cut_off(line, redis_url, tmp_path) as process:
        yield process


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Replaces the content, as a crash or a bad disk would; returns what was there."""
    content = path.read_bytes() if path.exists() else b""
    path.write_bytes(change(content))
    return content


@pytest.mark.slow
async def test_postgres_stops_and_comes_back(server: Postgres, redis_url: str, tmp_path: Path) -> None:
    books = Books(server.url)
    account = await books.account()
    process = await start_process(servers.application(server.url), redis_url, spool_dir=tmp_path)
    first, *later = await grants(process, account, 12)
    await asyncio.to_thread(server.stop)

    told = [await process.settle(first, USAGE)]
    assert spooled(tmp_path) == told
    began = time.monotonic()
    for grant in later:
        told.append(await process.settle(grant, USAGE))
        assert spooled(tmp_path) == told  # before anybody was told
    assert time.monotonic() - began < 8  # a time-out is ten seconds
    assert {grant.request.id for grant in (first, *later)} == {request_id for request_id, _ in process.running}

    await asyncio.to_thread(server.start)
    await process.replay.replay_own()
    assert files(tmp_path) == []
    assert len(process.running) == 0
    assert (await agree(books, account))["requests"] == 12
    assert {row["source"] for row in await books.requests(account)} == {"final"}
    assert await redis_counters(process.quota, first) == await books_say(books, first)
    (direct,) = await grants(process, account, 1)
    await process.settle(direct, USAGE)
    assert (await row_of(books, direct))["state"] == "settled"
    await process.stop()
    await books.close()


@pytest.mark.slow
async def test_another_process_replays_what_a_dead_one_left(
    ours: Process, line: Line, start: Start, books: Books, tmp_path: Path
) -> None:
    account = await books.account()
    granted = await grants(ours, account, 7)
    line.cut()
    await settle(ours, granted)
    one, other = await start(spool_dir=tmp_path), await start(spool_dir=tmp_path)
    assert await one.replay.replay_abandoned() == 0, "it took the file of a living process"
    assert len(spooled(tmp_path)) == 7
    die(ours)
    (path,) = abandoned(tmp_path)
    content = rewrite(path, lambda content: content)
    assert sorted(await asyncio.gather(one.replay.replay_abandoned(), other.replay.replay_abandoned())) == [0, 7]
    assert files(tmp_path) == []
    after = await agree(books, account)
    assert (after["requests"], after["output_tokens"]) == (7, 14)
    assert await redis_counters(one.quota, granted[0]) == await books_say(books, granted[0])

    rewrite(path, lambda _: content)  # a crash of the machine may bring it back
    assert await other.replay.replay_abandoned() == 7
    assert await agree(books, account) == after
    assert await entries_of(books, account) == []
    line.mend()
    await ours.replay.replay_own()  # it was not dead at all
    assert (await agree(books, account), len(ours.running)) == (after, 0)


@pytest.mark.slow
async def test_two_read_the_same_settlements(ours: Process, line: Line, start: Start, books: Books) -> None:
    """Concurrent, from several processes, in any order: it is counted once."""
    account = await books.account()
    granted = await grants(ours, account, 40)
    line.cut()
    told = await settle(ours, granted)
    line.mend()
    others = [await start() for _ in range(3)]
    copies = [told, told[::-1], told[20:] + told[:20]]
    await asyncio.gather(
        ours.replay.replay_own(),
        *(other.replay._replay(copy) for other, copy in zip(others, copies, strict=True)),
        return_exceptions=True,  # two that collide try again
    )
    await ours.replay.replay_own()
    assert (await agree(books, account))["requests"] == 40
    assert await entries_of(books, account) == []


async def test_a_spool_found_after_recovery_revises_it(
    ours: Process, line: Line, start: Start, books: Books, tmp_path: Path
) -> None:
    account, other = await books.account(), await start(spool_dir=tmp_path)
    grant, told = await stream(ours, account, chars=40)
    await ours.heartbeat.beat()
    line.cut()
    told.finished, told.latest = True, recorder(USAGE).latest
    await ours.settlements.begin(grant, told)
    assert await other.recovery.recover(ours.journal.process_id, beat=await beat_of(books, ours)) == 1
    die(ours)
    assert await other.replay.replay_abandoned() == 1
    row, (revision,) = await row_of(books, grant), await entries_of(books, account)
    assert (row["outcome"], row["output_tokens"], row["hold_until"]) == ("lost", 10, None)
    assert (revision["kind"], revision["source"], revision["output_tokens"]) == ("revision", "final", -8)
    assert (await agree(books, account))["output_tokens"] == 2


@pytest.mark.slow
async def test_a_commit_whose_answer_was_lost(ours: Process, line: Line, books: Books, tmp_path: Path) -> None:
    account = await books.account()
    warm, grant = await grants(ours, account, 2)
    await ours.settle(warm, USAGE)
    line.deafen()
    told = asyncio.ensure_future(ours.settle(grant, USAGE))
    for _ in range(300):
        if (await row_of(books, grant))["state"] == "settled":
            break
        await asyncio.sleep(0.01)
    line.cut()
    await told
    assert [found.id for found in spooled(tmp_path)] == [grant.request.id]
    line.mend()
    await ours.replay.replay_own()
    assert files(tmp_path) == []
    assert (await agree(books, account))["requests"] == 2
    assert await entries_of(books, account) == []
    assert await redis_counters(ours.quota, grant) == await books_say(books, grant)


@pytest.mark.slow
async def test_a_stop_while_postgres_is_away(ours: Process, line: Line, books: Books, tmp_path: Path) -> None:
    """Queued and running settlements are on disk when the committer has stopped, and their futures say so."""
    account = await books.account()
    granted = await grants(ours, account, 5)
    line.deafen()  # silence, not an error: the lane is in the middle of a batch
    told = [ours.settlements.begin(granted[0], recorder(USAGE))]
    await asyncio.sleep(0.1)
    told += [ours.settlements.begin(grant, recorder(USAGE)) for grant in granted[1:]]
    await asyncio.sleep(0.05)
    await ours.settlements.stop(within_s=0.1)
    await ours.journal.settlements.stop(grace_s=0.1)
    done, waits = await asyncio.wait(told, timeout=20)
    assert (len(done), waits) == (5, set())
    line.cut()
    await ours.replay.stop()
    await ours.heartbeat.stop()
    assert sorted(found.id for found in spooled(tmp_path)) == sorted(grant.request.id for grant in granted)
    (row,) = await books.fetch("SELECT ended_at FROM processes WHERE id = $1", ours.journal.process_id)
    assert row["ended_at"] is None  # no goodbye: their rows are open
    line.mend()
    assert await ours.replay.replay_abandoned() == 5
    assert (await agree(books, account))["requests"] == 5
    assert files(tmp_path) == []
