"""Settlements that Postgres could not take: on disk with fsync, until somebody replays them.

One file per process, which holds a lock on it for as long as it lives: a file whose lock is free belonged to a process
that died, and any process that sees the folder replays it. Replaying is idempotent, so a file may be replayed in part,
twice, or after its rows were recovered otherwise. A torn last line was never promised to anybody and is dropped. The
disk refuses: `OSError`, and the settlement waits in memory instead.

Settlements whose own data Postgres refuses are kept in the file `poisoned` until a person has mended what refuses them.
`retry_poisoned` makes an abandoned file of it: from then on it is replayed like any other, and what is refused again
comes back to `poisoned`.
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
    """This process's file in the folder, made when it is first needed. One per process."""

    def __init__(self, folder: Path, process_id: UUID) -> None:
        self._folder = folder
        self._path = folder / f"{process_id}{_SUFFIX}"
        self._file: FileIO | None = None
        self._lock = asyncio.Lock()
        self._active = False
        self._counted = ((0, 0), 0)
        self.pending: dict[UUID, Settlement] = {}
        """What this process has written and nobody has replayed yet, by request."""
        self.poisoned: set[UUID] = set()
        """Requests of this process that are open only because Postgres refuses their settlement."""

    @property
    def active(self) -> bool:
        """Whether Postgres was away when we last knew: then what follows is spooled at once, without asking it.

        Not simply whether something waits: under load something always would, and nothing ever went direct again.
        """
        return self._active

    async def take(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Answers once they are on the disk; that they get there does not depend on the caller. Raises OSError."""
        await asyncio.shield(self._keep(settlements))
        log.warning("settlements_spooled", settlements=len(settlements), waiting=len(self.pending))
        return [Settled.SPOOLED] * len(settlements)

    async def replayed(self, settlements: Sequence[Settlement]) -> None:
        """They are in Postgres, so it is back. With the last one the file goes."""
        async with self._lock:
            self._active = False
            for settlement in settlements:
                if self.pending.get(settlement.id) == settlement:
                    del self.pending[settlement.id]
            if not self.pending:
                self._discard()

    def count_poisoned(self) -> int:
        """How many poisoned settlements are in the folder, of all its processes; the file is read when it changed."""
        try:
            stat = (self._folder / _POISONED).stat()
        except OSError:
            return 0
        if (stat.st_ino, stat.st_size) != self._counted[0]:
            self._counted = ((stat.st_ino, stat.st_size), len(poisoned(self._folder)))
        return self._counted[1]

    async def set_aside(self, settlement: Settlement) -> None:
        """Keeps one that Postgres refuses, until it is retried. Raises OSError when the disk refuses it as well."""
        try:
            await asyncio.to_thread(_append_poisoned, self._folder, settlement)
        except OSError as error:
            log.critical("not_set_aside", error=repr(error), item=repr(settlement))
            raise
        self.poisoned.add(settlement.id)

    async def close(self) -> None:
        """Lets the file go: what is left in it is anybody's to replay."""
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
            _write(file, b"\n" + lines if end else lines)  # what a failed write may have left must not join with it
        except BaseException:
            with suppress(OSError):
                file.truncate(end)
            file.close()
            raise
        self._file = file

    def _opened(self) -> FileIO:
        """The file, locked by us and in its place: who finds it unlocked may replay and remove it at that moment."""
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
        raise OSError(f"{self._path.name} is removed again and again")

    def _discard(self) -> None:
        """What cannot be removed is replayed once more, by whoever finds it; that changes nothing."""
        if self._file is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                log.critical("spool_not_removed", file=self._path.name, error=repr(error))
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class Found:
    """A dead process's file, while its lock is ours: its settlements, and whether a line of it could not be read."""

    path: Path
    settlements: list[Settlement]
    damaged: bool

    def remove(self) -> None:
        """Once they are in Postgres. A file with a line that nobody can read is kept, under a name of its own."""
        try:
            if self.damaged:
                self.path.rename(self.path.with_suffix(".damaged"))
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            log.critical("spool_not_removed", file=self.path.name, error=repr(error))


def abandoned(folder: Path) -> list[Path]:
    """The files in the folder, oldest first; `taken` says which of them have no living owner."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def waiting(folder: Path) -> tuple[int, int]:
    """How many settlements wait in the folder's files, and how many are poisoned."""
    spooled = sum(len(_read(path)) for path in abandoned(folder))
    return spooled, len(poisoned(folder))


def poisoned(folder: Path) -> list[Settlement]:
    """Those that Postgres refuses, oldest first; each once, since a retry that was cut short may have left copies."""
    return list({settlement.id: settlement for settlement in _read(folder / _POISONED)}.values())


def retry_poisoned(folder: Path) -> Path | None:
    """Has the poisoned settlements replayed as a dead process's file; its path, or None when there are none.

    One rename, so a crash leaves either name; of two that do this at once, one finds nothing. Who is about to append
    sees under the file's lock that it has moved, and begins a new one.
    """
    path = folder / f"{uuid7()}{_SUFFIX}"
    try:
        (folder / _POISONED).rename(path)
    except FileNotFoundError:
        return None
    _sync_folder(folder)
    return path


@contextmanager
def taken(path: Path) -> Iterator[Found | None]:
    """The file, if nobody owns it, locked for the block; None when somebody does, it is gone, or cannot be read."""
    claimed = _claim(path)
    if claimed is None:
        yield None
        return
    file, content = claimed
    with file:
        settlements, damaged = read_settlements(content)
        yield Found(path, settlements, damaged)


def read_settlements(content: bytes) -> tuple[list[Settlement], bool]:
    """The settlements of a file, and whether a whole line is none: it is skipped, loudly. Each stands for itself."""
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


def _claim(path: Path) -> tuple[FileIO, bytes] | None:
    """The file, locked, and its content. Opened to be written, since some file systems lock no other."""
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("r+b", buffering=0))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(path, file):
                return None
            content = file.readall()
            stack.pop_all()
            return file, content
    except (FileNotFoundError, BlockingIOError):
        return None
    except OSError as error:
        log.critical("spool_unreadable", file=path.name, error=repr(error))
        return None


def _read(path: Path) -> list[Settlement]:
    try:
        return read_settlements(path.read_bytes())[0]
    except FileNotFoundError:
        return []


def _append_poisoned(folder: Path, settlement: Settlement) -> None:
    """Appends under the file's lock, which whoever replays the file takes, too: it is read whole, or not yet."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for _ in range(_OPEN_TRIES):
        with (folder / _POISONED).open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(folder / _POISONED, file):
                _write(file, b"\n" + _line(settlement))  # what a failed write may have left must not join with it
                _sync_folder(folder)
                return
    raise OSError(f"{_POISONED} is moved again and again")


def _line(settlement: Settlement) -> bytes:
    return msgspec.json.encode(settlement) + b"\n"


def _write(file: FileIO, content: bytes) -> None:
    """All of it, onto the disk."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]
    os.fsync(file.fileno())


def _is_at(path: Path, file: FileIO) -> bool:
    """Whether the open file still is the one at `path`."""
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
