"""A disk that fails, or holds garbage or settlements that Postgres refuses: nothing is lost or delayed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from core.ids import uuid7
from metering.journal.group_commit import Poisoned
from metering.journal.journal import Settled
from metering.journal.records import Settlement
from metering.journal.spool import Spool, abandoned, read_settlements, waiting
from tests.harness import Books
from tests.metering.faults import (
    USAGE,
    Line,
    agree,
    beat_of,
    cut_off,
    entries_of,
    files,
    grants,
    row_of,
    settle,
    spooled,
    stream,
)
from tests.metering.process import Process, recorder

Start = Callable[..., Awaitable[Process]]


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


def block(folder: Path) -> None:
    """A folder in which no file can be created: a file is in its place."""
    folder.rmdir()
    folder.write_text("no folder")


def unblock(folder: Path) -> None:
    """It can be made again."""
    folder.unlink()


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Replaces the content, as a crash or a bad disk would; returns what was there."""
    content = path.read_bytes() if path.exists() else b""
    path.write_bytes(change(content))
    return content


def not_a_file(path: Path) -> None:
    """Something that no spool made."""
    path.mkdir()


def set_aside(folder: Path) -> list[Settlement]:
    """What waits for a person."""
    return read_settlements((folder / "poisoned").read_bytes())[0]


async def test_a_torn_last_line_and_one_that_is_none(start: Start, books: Books, tmp_path: Path) -> None:
    alive, account = await start(spool_dir=tmp_path), await books.account()
    granted = await grants(alive, account, 4)
    whole = [await alive.settlements._measure(grant, recorder(USAGE)) for grant in granted]
    dead = Spool(tmp_path, uuid7())
    await dead.spill(whole[:2])
    await dead.spill(whole[2:])
    await dead.close()
    (path,) = abandoned(tmp_path)
    assert spooled(tmp_path) == whole
    content = rewrite(path, lambda content: content[:-30])
    assert waiting(tmp_path) == (3, 0)
    assert await alive.replay.replay_abandoned() == 3
    assert files(tmp_path) == []

    rewrite(path, lambda _: b"\x00\xff{}\n" + content)
    assert await alive.replay.replay_abandoned() == 4
    assert [Path(name).suffix for name in files(tmp_path)] == [".damaged"]  # for a person: nobody else can read it
    assert await alive.replay.replay_abandoned() == 0
    assert (await agree(books, account))["requests"] == 4


@pytest.mark.slow
async def test_a_poisoned_line_is_set_aside(ours: Process, line: Line, books: Books, tmp_path: Path) -> None:
    account = await books.account()
    granted = await grants(ours, account, 5)
    line.cut()
    told = recorder(USAGE)
    told.stop_reason = "a\0b"
    odd = ours.settlements.begin(granted[0], told)
    await asyncio.gather(odd, settle(ours, granted[1:]))
    line.mend()
    await ours.replay.replay_own()
    states = [(await row_of(books, grant))["state"] for grant in granted]
    assert states == ["open", "settled", "settled", "settled", "settled"]
    assert waiting(tmp_path) == (0, 1)
    assert set_aside(tmp_path) == [odd.result()]
    assert granted[0].request.id in ours.running
    assert await ours.recovery.recover_orphans() == 0  # its true counts are known, so nobody books it as lost
    assert (await agree(books, account))["requests"] == 4

    (more,) = await grants(ours, account, 1)
    with pytest.raises(Poisoned):
        await ours.settlements.begin(more, told)
    assert waiting(tmp_path) == (0, 2)
    assert more.request.id in ours.running


@pytest.mark.slow
async def test_a_folder_that_cannot_be_written(ours: Process, line: Line, books: Books, tmp_path: Path) -> None:
    """Waits in memory and retries: the disk or Postgres, whichever is back first."""
    account = await books.account()
    first, second, third = await grants(ours, account, 3)
    block(tmp_path)
    line.cut()
    told = asyncio.ensure_future(settle(ours, [first, second]))
    await asyncio.sleep(0.4)
    assert (told.done(), len(ours.running)) == (False, 3)
    unblock(tmp_path)
    await asyncio.wait_for(told, 30)
    assert len(spooled(tmp_path)) == 2
    line.mend()
    await ours.replay.replay_own()

    block(tmp_path)
    line.cut()
    waits = asyncio.create_task(ours.settle(third, USAGE))
    await asyncio.sleep(0.3)
    assert (waits.done(), len(ours.running)) == (False, 1)
    line.mend()
    await asyncio.wait_for(waits, 30)
    assert ((await agree(books, account))["requests"], len(ours.running)) == (3, 0)
    unblock(tmp_path)


async def test_a_file_that_cannot_be_read_keeps_no_other(start: Start, books: Books, tmp_path: Path) -> None:
    alive, account = await start(spool_dir=tmp_path), await books.account()
    not_a_file(tmp_path / f"{uuid7()}.settlements")
    (grant,) = await grants(alive, account, 1)
    dead = Spool(tmp_path, uuid7())
    await dead.spill([await alive.settlements._measure(grant, recorder(USAGE))])
    await dead.close()
    assert await alive.replay.replay_abandoned() == 1
    assert (await row_of(books, grant))["state"] == "settled"


async def test_a_better_count_waits_for_the_disk_or_postgres(
    ours: Process, line: Line, start: Start, books: Books, tmp_path: Path
) -> None:
    """Recovery settled its row, its connection breaks before the revision, and the disk fails."""
    account, other = await books.account(), await start()
    grant, told = await stream(ours, account, chars=40)
    await ours.heartbeat.beat()
    await other.recovery.recover(ours.journal.process_id, beat=await beat_of(books, ours))
    block(tmp_path)
    final = await ours.settlements._measure(grant, recorder(USAGE))
    line.cut()
    safe = asyncio.create_task(ours.settlements._revise(final))
    await asyncio.sleep(0.1)
    assert not safe.done()
    line.mend()
    assert await asyncio.wait_for(safe, 30) is Settled.BEFORE
    assert len(await entries_of(books, account)) == 1
    line.cut()
    unblock(tmp_path)
    assert await ours.settlements._revise(final) is Settled.SPOOLED
    line.mend()
    await ours.replay.replay_own()
    assert len(await entries_of(books, account)) == 1
    assert told.output_chars == 40
