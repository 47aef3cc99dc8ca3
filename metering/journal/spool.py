"""The spool: settlements on disk, with fsync, while Postgres is down, until a process replays them.

Each process has one file and holds a lock on it while it lives; any process replays a file without a lock. Replaying is
idempotent, in part, twice, or after its requests were recovered otherwise. A torn last line was never acknowledged and
is dropped. If the disk fails too (`OSError`), the settlement waits in memory.

Settlements whose data Postgres refuses are kept in the file `poisoned` until a person has removed the cause.
`retry_poisoned` turns it into an abandoned file; what is refused again returns to `poisoned`.
"""

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from uuid import UUID

import msgspec

from core.ids import uuid7
from core.logs import get_logger
from metering.journal.journal import Settled
from metering.journal.records import Settlement

_SUFFIX = ".settlements"
_POISONED = "poisoned"
_OPEN_TRIES = 50

log = get_logger(__name__)


class Spool:
    """This process's file in the folder, created when it is first needed. One per process."""

    def __init__(self, folder: Path, process_id: UUID) -> None:
        self._folder = folder
        self._path = folder / f"{process_id}{_SUFFIX}"
        self._file: FileIO | None = None
        self._lock = asyncio.Lock()
        self._active = False
        self._counted = ((0, 0), 0)
        self.pending: dict[UUID, Settlement] = {}
        """Settlements that this process wrote and that are not replayed yet, by request."""
        self.poisoned: set[UUID] = set()
        """Requests of this process that are open because Postgres refuses their settlement."""

    @property
    def active(self) -> bool:
        """Whether Postgres was last known to be down: settlements are then spooled without asking it.

        Not whether `pending` is empty: under load it never would be, and nothing would go to Postgres directly again.
        """
        return self._active

    async def spill(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Returns once they are on disk; cancelling the caller does not stop the write. Raises OSError."""
        await asyncio.shield(self._keep(settlements))
        log.warning("settlements_spooled", settlements=len(settlements), waiting=len(self.pending))
        return [Settled.SPOOLED] * len(settlements)

    async def replayed(self, settlements: Sequence[Settlement]) -> None:
        """Notes that they are in Postgres, so it is back. Removes the file with the last one."""
        async with self._lock:
            self._active = False
            for settlement in settlements:
                if self.pending.get(settlement.id) == settlement:
                    del self.pending[settlement.id]
            if not self.pending:
                self._discard()

    def count_poisoned(self) -> int:
        """The number of poisoned settlements in the folder, of all its processes. Reads the file only if it changed."""
        try:
            stat = (self._folder / _POISONED).stat()
        except OSError:
            return 0
        if (stat.st_ino, stat.st_size) != self._counted[0]:
            self._counted = ((stat.st_ino, stat.st_size), len(poisoned(self._folder)))
        return self._counted[1]

    async def set_aside(self, settlement: Settlement) -> None:
        """Stores a settlement that Postgres refuses, until it is retried. Raises OSError."""
        try:
            await asyncio.to_thread(_append_poisoned, self._folder, settlement)
        except OSError as error:
            log.critical("not_set_aside", error=repr(error), item=repr(settlement))
            raise
        self.poisoned.add(settlement.id)

    async def close(self) -> None:
        """Unlocks the file; other processes replay what is left in it."""
        async with self._lock:
            if self.pending:
                log.critical("settlements_left_spooled", waiting=len(self.pending), file=self._path.name)
                if self._file is not None:
                    self._file.close()
                    self._file = None
            else:
                self._discard()

    async def _keep(self, settlements: Sequence[Settlement]) -> None:
        async with self._lock:
            await asyncio.to_thread(self._append, settlements)
            self.pending.update((settlement.id, settlement) for settlement in settlements)
            self._active = True

    def _append(self, settlements: Sequence[Settlement]) -> None:
        lines = b"".join(map(_line, settlements))
        file, self._file = self._file or self._opened(), None
        end = os.fstat(file.fileno()).st_size
        try:
            _write(file, b"\n" + lines if end else lines)  # a failed write may have left half a line
        except BaseException:
            with suppress(OSError):
                file.truncate(end)
            file.close()
            raise
        self._file = file

    def _opened(self) -> FileIO:
        """The file, locked and still at its path: until it is locked, another process may replay and remove it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for _ in range(_OPEN_TRIES):
            file = self._path.open("ab", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                in_place = _is_at(self._path, file)
                _sync_folder(self._folder)
            except BaseException:
                file.close()
                raise
            if in_place:
                return file
            file.close()
        raise OSError(f"{self._path.name} was removed at each try")

    def _discard(self) -> None:
        """Removes the file. If that fails, it is replayed once more, which changes nothing."""
        if self._file is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                log.critical("spool_not_removed", file=self._path.name, error=repr(error))
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class AbandonedFile:
    """A file whose process died, locked by this process. `damaged`: a line could not be read."""

    path: Path
    settlements: list[Settlement]
    damaged: bool

    def remove(self) -> None:
        """Removes the file, once its settlements are in Postgres. A damaged file is renamed instead."""
        try:
            if self.damaged:
                self.path.rename(self.path.with_suffix(".damaged"))
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            log.critical("spool_not_removed", file=self.path.name, error=repr(error))


def abandoned(folder: Path) -> list[Path]:
    """The files in the folder, oldest first; `claim` tells which of them have no living owner."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def waiting(folder: Path) -> tuple[int, int]:
    """The numbers of settlements that wait in the folder's files, and of poisoned ones."""
    spooled = sum(len(_read(path)) for path in abandoned(folder))
    return spooled, len(poisoned(folder))


def poisoned(folder: Path) -> list[Settlement]:
    """The settlements that Postgres refuses, oldest first. Each once: an interrupted retry may have left copies."""
    return list({settlement.id: settlement for settlement in _read(folder / _POISONED)}.values())


def retry_poisoned(folder: Path) -> Path | None:
    """Turns the poisoned settlements into an abandoned file; its path, or None if there are none.

    One rename, so a crash leaves one of the two names, and of two concurrent calls one finds nothing. A writer sees
    under the file's lock that it has moved, and begins a new one.
    """
    path = folder / f"{uuid7()}{_SUFFIX}"
    try:
        (folder / _POISONED).rename(path)
    except FileNotFoundError:
        return None
    _sync_folder(folder)
    return path


@contextmanager
def claim(path: Path) -> Iterator[AbandonedFile | None]:
    """The file, locked for the block; None if a living process owns it, it is gone, or it cannot be read."""
    content = None
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("r+b", buffering=0))  # some file systems lock no file opened to read
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = file.readall() if _is_at(path, file) else None
        except (FileNotFoundError, BlockingIOError):
            pass
        except OSError as error:
            log.critical("spool_unreadable", file=path.name, error=repr(error))
        yield None if content is None else AbandonedFile(path, *read_settlements(content))


def read_settlements(content: bytes) -> tuple[list[Settlement], bool]:
    """The settlements of a file, and whether a complete line could not be decoded (it is skipped and logged)."""
    *lines, torn = content.split(b"\n")
    settlements, damaged = [], False
    for number, line in enumerate(lines):
        if line.strip():
            try:
                settlements.append(msgspec.json.decode(line, type=Settlement))
            except msgspec.DecodeError:
                log.critical("spooled_line_unreadable", line=number)
                damaged = True
    if torn:
        log.warning("spooled_line_torn", bytes=len(torn))
    return settlements, damaged


def _read(path: Path) -> list[Settlement]:
    try:
        return read_settlements(path.read_bytes())[0]
    except FileNotFoundError:
        return []


def _append_poisoned(folder: Path, settlement: Settlement) -> None:
    """Appends under the file's lock, which a replay takes, too: it reads the whole line or none of it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for _ in range(_OPEN_TRIES):
        with (folder / _POISONED).open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(folder / _POISONED, file):
                _write(file, b"\n" + _line(settlement))  # a failed write may have left half a line
                _sync_folder(folder)
                return
    raise OSError(f"{_POISONED} was moved at each try")


def _line(settlement: Settlement) -> bytes:
    return msgspec.json.encode(settlement) + b"\n"


def _write(file: FileIO, content: bytes) -> None:
    """Writes everything, and syncs it."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]
    os.fsync(file.fileno())


def _is_at(path: Path, file: FileIO) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
