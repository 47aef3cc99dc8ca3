"""The heartbeat: one write per beat, with all that another process needs to settle this one's requests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import Unavailable
from core.ids import uuid7
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome
from metering.pricing.tokens import Usage
from metering.settlement.heartbeat import Heartbeat, Progress
from metering.sql import load
from tests.harness import Books
from tests.metering.faults import INPUT, Line, beat_of, stream, write
from tests.metering.process import MODEL, Process, start_process
from tests.programs import until

Start = Callable[..., Awaitable[Process]]


async def said(books: Books, process: Process) -> list[Progress]:
    """The progress of each stream in the last beat, in order."""
    (row,) = await books.fetch("SELECT progress FROM processes WHERE id = $1", process.journal.process_id)
    return msgspec.json.decode(row["progress"], type=list[Progress])


def overhear(monkeypatch: pytest.MonkeyPatch, process: Process) -> list[str]:
    """Records the statements of the process's pool."""
    statements: list[str] = []
    acquire = process.pool.acquire

    @asynccontextmanager
    async def listened() -> AsyncIterator[Any]:
        async with acquire() as connection:
            with connection.query_logger(lambda logged: statements.append(logged.query)):
                yield connection

    monkeypatch.setattr(process.pool, "acquire", listened)
    return statements


async def backends(books: Books) -> set[int]:
    """The other connections to the database."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return {row["pid"] for row in await books.fetch(f"{query} AND backend_type = 'client backend'")}


async def beats_again(books: Books, process: Process) -> bool:
    """Whether it beats within some seconds."""
    before = await beat_of(books, process)
    for _ in range(200):
        if await beat_of(books, process) > before:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_one_write_a_beat_whatever_the_number_of_streams(
    process: Process, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = overhear(monkeypatch, process)
    for streams in (0, 1, 199):
        for _ in range(streams):
            process.running.record(uuid7(), write(UsageRecorder(100, 0), chars=400))
        before = await beat_of(books, process)
        await process.heartbeat.beat()
        assert statements == [
            load("heartbeat"),
            load("chars_per_token"),
        ]  # no new measurement
        assert await beat_of(books, process) == before + 1
        statements.clear()
    assert len(await said(books, process)) == 200


async def test_what_a_beat_carries(process: Process, books: Books) -> None:
    ids = [uuid7() for _ in range(7)]
    refused = write(UsageRecorder(100, 0), chars=0, told=1, ended=True)
    refused.outcome, refused.stop_reason = Outcome.REFUSED, "refusal"
    recorders = [
        None,  # asks to be opened
        UsageRecorder(100, 0, upstream_request_id="req_0"),  # the provider has not begun to answer
        write(UsageRecorder(100, 0), chars=0),
        write(UsageRecorder(100, 0), chars=321),
        write(UsageRecorder(100, 0), chars=321, told=55),  # a count that is not its last
        write(UsageRecorder(100, 0), chars=400, told=90, ended=True),  # ended; its settlement is still to commit
        refused,
    ]
    for request_id, recorder in zip(ids, recorders, strict=True):
        process.running.enter(request_id)
        if recorder is not None:
            process.running.record(request_id, recorder)
    await process.heartbeat.beat()

    beat = partial(Progress, granted_output_tokens=100)
    words = (MODEL, None, "req_1", "msg_1")
    final = Usage(10, 90, 30, 40, 50)
    assert (
        await said(books, process)
        == [
            Progress(ids[0]),
            Progress(ids[1], upstream_request_id="req_0"),
            beat(ids[2], Outcome.LOST, INPUT, False, 0, *words),  # noqa: FBT003 - as it is on the wire
            beat(ids[3], Outcome.LOST, INPUT, False, 321, *words),  # noqa: FBT003
            beat(ids[4], Outcome.LOST, Usage(10, 55, 30, 40, 50), False, 321, *words),  # noqa: FBT003
            beat(ids[5], Outcome.COMPLETED, final, True, 400, MODEL, "end_turn", *words[2:]),  # noqa: FBT003
            beat(ids[6], Outcome.REFUSED, Usage(), True, 0, MODEL, "refusal", *words[2:]),  # noqa: FBT003
        ]
    )
    for request_id in ids[1:]:
        process.running.leave(request_id)
    await process.heartbeat.beat()
    assert await said(books, process) == [Progress(ids[0])]


async def test_a_missed_beat_does_not_end_the_loop(
    metering_database: str, redis_url: str, books: Books, tmp_path: Path
) -> None:
    async with Line(metering_database).open() as line:
        others = await backends(books)
        process = await start_process(line.url, redis_url, spool_dir=tmp_path)
        heart = Heartbeat(
            process.pool, process.running, _chars_per_token(process), process.journal.process_id, every_s=0.02
        )
        await heart.start()
        assert await beats_again(books, process)

        async def all_cut() -> bool:
            return await backends(books) <= others

        line.cut()
        with pytest.raises(Unavailable):
            await process.heartbeat.beat()
        await until(all_cut)  # or a beat that was on its way may still commit
        stood = await beat_of(books, process)
        await asyncio.sleep(0.1)
        assert await beat_of(books, process) == stood
        line.mend()
        assert await beats_again(books, process)

        process.running.record(uuid7(), write(UsageRecorder(1, 0), chars=0))
        ((_, unspeakable),) = process.running
        assert unspeakable is not None
        unspeakable.model = "\udc80"  # cannot be written at all
        await asyncio.sleep(0.1)
        unspeakable.model = MODEL
        assert await beats_again(books, process)
        await heart.stop()
        await process.stop()


async def test_a_beat_that_hangs_is_given_up(process: Process, books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.settlement.heartbeat._WRITE_S", 0.1)
    async with books.connection() as other:
        await other.execute("BEGIN")
        await other.execute("SELECT FROM processes WHERE id = $1 FOR UPDATE", process.journal.process_id)
        async with asyncio.timeout(3):
            with pytest.raises(Unavailable):
                await process.heartbeat.beat()
    monkeypatch.undo()
    before = await beat_of(books, process)
    await process.heartbeat.beat()
    assert await beat_of(books, process) == before + 1


async def test_a_pruned_row_comes_back(process: Process, books: Books) -> None:
    account = await books.account()
    await books.fetch("DELETE FROM processes WHERE id = $1", process.journal.process_id)
    grant, _ = await stream(process, account, chars=12)
    await process.heartbeat.beat()
    assert [progress.id for progress in await said(books, process)] == [grant.request.id]
    (row,) = await books.fetch("SELECT * FROM processes WHERE id = $1", process.journal.process_id)
    assert (row["beat"], row["ended_at"]) == (1, None)


async def test_goodbye_only_when_nothing_runs(process: Process, books: Books) -> None:
    async def has_ended() -> bool:
        (row,) = await books.fetch("SELECT ended_at FROM processes WHERE id = $1", process.journal.process_id)
        return row["ended_at"] is not None

    request_id = uuid7()
    process.running.enter(request_id)
    await process.heartbeat.stop()
    assert not await has_ended()
    process.running.leave(request_id)
    await process.heartbeat.stop()
    assert await has_ended()
    await process.heartbeat.beat()  # it lives, whatever was said
    assert not await has_ended()


def _chars_per_token(process: Process) -> Any:
    return process.heartbeat.chars_per_token
