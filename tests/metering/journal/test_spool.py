"""The spool's file: synced before any answer, locked by its owner, and safe on a bad disk."""

import fcntl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.ids import uuid7
from metering.journal.journal import Settled
from metering.journal.records import Settlement
from metering.journal.spool import Spool, abandoned, claim, read_settlements, waiting
from tests.harness import Account
from tests.metering.rows import request, settlement

NOBODY = Account(uuid7(), uuid7(), uuid7(), "")


def given(count: int) -> list[Settlement]:
    """Settlements of unknown requests."""
    return [settlement(request(NOBODY)) for _ in range(count)]


def content(spool: Spool) -> tuple[list[Settlement], bool]:
    """The settlements in its file."""
    return read_settlements(spool._path.read_bytes())


def let_go(spool: Spool) -> None:
    """The lock is free, as after a crash or a failed write."""
    assert spool._file is not None
    spool._file.close()
    spool._file = None


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    """A spool in a folder that does not exist yet."""
    spool = Spool(tmp_path / "made" / "when needed", uuid7())
    yield spool
    await spool.close()


async def test_what_is_taken_is_on_the_disk_until_it_is_replayed(spool: Spool) -> None:
    one, two = given(1), given(200)
    await spool.close()
    assert not spool._folder.exists()
    assert await spool.spill(one) == [Settled.SPOOLED]
    assert content(spool) == (one, False)
    assert await spool.spill(two) == [Settled.SPOOLED] * 200
    assert content(spool) == (one + two, False)
    assert waiting(spool._folder) == (201, 0)
    await spool.replayed(two)
    assert content(spool) == (one + two, False)
    await spool.replayed(one)
    assert waiting(spool._folder) == (0, 0)
    assert list(spool._folder.iterdir()) == []
    await spool.spill(one)
    await spool.close()  # what waits stays, for anybody
    with claim(spool._path) as found:
        assert found is not None
        assert found.settlements == one


async def test_under_load_nothing_stays_with_the_spool(spool: Spool) -> None:
    """Some always wait while others are replayed; new ones still go to Postgres directly once it is back."""
    some = given(4)
    assert not spool.active
    await spool.spill(some[:2])
    assert spool.active
    await spool.replayed(some[:1])
    assert (spool.active, list(spool.pending.values())) == (False, some[1:2])
    await spool.spill(some[2:3])
    assert spool.active
    await spool.replayed(given(1))  # not what is waiting
    assert list(spool.pending.values()) == some[1:3]
    await spool.replayed(some)
    assert abandoned(spool._folder) == []


async def test_a_living_owner_s_file_is_not_taken(spool: Spool) -> None:
    await spool.spill(given(1))
    (path,) = abandoned(spool._folder)
    with claim(path) as found:
        assert found is None
    let_go(spool)
    with claim(path) as found, claim(path) as second:
        assert found is not None
        assert second is None
        found.remove()
    with claim(path) as found:
        assert found is None


async def test_a_full_disk(spool: Spool) -> None:
    some = given(3)
    spool._folder.mkdir(parents=True)
    spool._path.symlink_to("/dev/full")
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            await spool.spill(some[:1])
        assert (spool.pending, spool.active) == ({}, False)
    spool._path.unlink()
    await spool.spill(some[:1])
    assert content(spool) == (some[:1], False)


async def test_what_a_failed_write_left_does_not_join_with_the_next(spool: Spool) -> None:
    some = given(3)
    await spool.spill(some[:1])
    let_go(spool)
    spool._path.write_bytes(spool._path.read_bytes()[:50])  # and could not be taken back
    await spool.spill(some[1:])
    assert content(spool) == (some[1:], True)


async def test_a_finder_that_removes_the_file_while_it_is_made(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced between open and lock: nothing may be written to a deleted file."""
    some, lock = given(2), fcntl.flock

    def too_late(file: Any, operation: int) -> None:
        monkeypatch.setattr("metering.journal.spool.fcntl.flock", lock)
        with claim(spool._path) as found:
            assert found is not None
            found.remove()
        lock(file, operation)

    monkeypatch.setattr("metering.journal.spool.fcntl.flock", too_late)
    await spool.spill(some)
    assert content(spool) == (some, False)
    with claim(spool._path) as found:
        assert found is None


async def test_a_finder_that_holds_the_lock(spool: Spool) -> None:
    """It counts as a failure of the disk, and nothing is written."""
    some = given(2)
    await spool.spill(some[:1])
    let_go(spool)
    with claim(spool._path) as found:
        assert found is not None
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                await spool.spill(some[1:])
        assert content(spool) == (some[:1], False)
        found.remove()
    await spool.spill(some[1:])
    assert content(spool) == (some[1:], False)


async def test_what_cannot_be_removed_is_let_go(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    some = given(1)
    await spool.spill(some)

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuses)
    await spool.replayed(some)
    assert not spool.pending
    monkeypatch.undo()
    with claim(spool._path) as found:
        assert found is not None
        assert found.settlements == some
