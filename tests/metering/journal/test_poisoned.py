"""Settlements whose data Postgres refuses: kept, not settled as lost, and retried, also after an interruption."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metering.journal.group_commit import Poisoned
from metering.journal.recorder import UsageRecorder
from metering.journal.spool import Spool, abandoned, poisoned, retry_poisoned, waiting
from tests.harness import Account, Books
from tests.metering.faults import USAGE, agree, entries_of, recover, row_of
from tests.metering.process import Process, recorder, redis_counters, start_process

_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.upstream_request_id = 'refused' THEN RAISE EXCEPTION 'refused'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON usage_requests FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_ACCEPT = "DROP TRIGGER refuse ON usage_requests; DROP FUNCTION refuse;"


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    made = Books(database_url)
    async with made.connection() as connection:
        await connection.execute(_REFUSE)
    yield made
    await made.close()


@pytest.fixture
async def ours(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    process = await start_process(database_url, redis_url, spool_dir=tmp_path)
    yield process
    await process.stop()


async def accept(books: Books) -> None:
    """Removes the trigger that refuses the rows."""
    async with books.connection() as connection:
        await connection.execute(_ACCEPT)


def refused() -> UsageRecorder:
    """A complete answer that the trigger refuses."""
    told = recorder(USAGE)
    told.upstream_request_id = "refused"
    return told


async def poison(process: Process, account: Account) -> Any:
    """An answered request whose settlement Postgres refuses."""
    grant = await process.admit(account)
    told = refused()
    process.running.record(grant.request.id, told)
    with pytest.raises(Poisoned):
        await process.settlements.begin(grant, told)
    return grant


@pytest.mark.slow
async def test_it_is_kept_open_and_retried_once_the_cause_is_mended(
    ours: Process, books: Books, tmp_path: Path
) -> None:
    account = await books.account()
    grants = [await poison(ours, account) for _ in range(3)]
    assert waiting(tmp_path) == (0, 3)
    assert await ours.recovery.recover_orphans() == 0
    assert (await redis_counters(ours.quota, grants[0]))[0][0] == 0  # no concurrency is held for it

    path = retry_poisoned(tmp_path)
    assert path is not None
    assert await ours.replay.replay_file(path) == 3
    assert waiting(tmp_path) == (0, 3)  # refused again, and kept again
    assert {(await row_of(books, grant))["state"] for grant in grants} == {"open"}

    await accept(books)
    path = retry_poisoned(tmp_path)
    assert path is not None
    assert await ours.replay.replay_file(path) == 3
    assert waiting(tmp_path) == (0, 0)
    assert retry_poisoned(tmp_path) is None
    assert (await agree(books, account))["output_tokens"] == 3 * USAGE.output_tokens
    await ours.replay._forget_retried()
    assert len(ours.running) == 0


@pytest.mark.slow
async def test_one_that_was_recovered_meanwhile_gets_the_better_count(
    ours: Process, database_url: str, redis_url: str, books: Books, tmp_path: Path
) -> None:
    """Its process died before a beat carried the end of the answer."""
    account = await books.account()
    grant = await poison(ours, account)
    ours.running.record(grant.request.id, UsageRecorder(0, 0))
    await ours.heartbeat.beat()
    other = await start_process(database_url, redis_url, spool_dir=tmp_path / "elsewhere")
    try:
        assert await recover(other, ours, books) == 1
        assert (await row_of(books, grant))["outcome"] == "lost"
        await accept(books)
        path = retry_poisoned(tmp_path)
        assert path is not None
        assert await other.replay.replay_file(path) == 1
        assert (await agree(books, account))["output_tokens"] == USAGE.output_tokens
        assert len(await entries_of(books, account)) == 1
    finally:
        await other.stop()


async def test_a_retry_may_be_cut_short_anywhere(ours: Process, books: Books, tmp_path: Path) -> None:
    """An interruption after the rename, or before the file is removed: the replay is repeated, to the same end."""
    account = await books.account()
    for _ in range(2):
        await poison(ours, account)
    assert retry_poisoned(tmp_path) is not None
    assert (retry_poisoned(tmp_path), waiting(tmp_path)) == (None, (2, 0))
    (path,) = abandoned(tmp_path)
    content = path.read_bytes()
    assert await ours.replay.replay_abandoned() == 2  # any process's loop does it
    path.write_bytes(content)  # as if that process had died before it removed the file
    assert await ours.replay.replay_abandoned() == 2
    assert waiting(tmp_path) == (0, 2)

    await accept(books)
    retry_poisoned(tmp_path)
    (path,) = abandoned(tmp_path)
    content = path.read_bytes()
    assert await ours.replay.replay_abandoned() == 4
    path.write_bytes(content)
    assert await ours.replay.replay_abandoned() == 4
    assert (waiting(tmp_path), (await agree(books, account))["requests"]) == ((0, 0), 2)


async def test_what_is_set_aside_during_a_retry_is_in_one_of_the_two_files(
    ours: Process, books: Books, tmp_path: Path
) -> None:
    account = await books.account()
    await poison(ours, account)
    (one,) = poisoned(tmp_path)
    some = [replace(one, output_chars=number) for number in range(200)]
    spools = [Spool(tmp_path, one.id) for _ in range(4)]
    moved: list[Path] = []

    async def retry() -> None:
        for _ in range(20):
            path = await asyncio.to_thread(retry_poisoned, tmp_path)
            if path is not None:
                moved.append(path)
            await asyncio.sleep(0)

    async def append(number: int) -> None:
        for settlement in some[number::4]:
            await spools[number].set_aside(settlement)

    await asyncio.gather(retry(), *(append(number) for number in range(4)))
    content = b"".join(path.read_bytes() for path in [*moved, tmp_path / "poisoned"] if path.exists())
    assert content.count(b'"output_chars":') == 201
    for path in moved:
        path.unlink()
