"""Faults of a process: its connection to Postgres is cut, or an answer is lost; and the state after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from metering.counts import COUNT_COLUMNS
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement
from metering.journal.spool import abandoned, read_settlements
from metering.pricing.tokens import CacheCreation, ReportedUsage, Usage
from metering.quota.query import Grant
from tests.harness import Account, Books
from tests.metering.process import MODEL, Process, start_process

INPUT = Usage(10, 0, 30, 40, 50)
"""The `message_start` of these tests."""
USAGE = Usage(1, 2, 3, 4, 5, 1, 6)
"""The usage of complete answers."""


class Line:
    """A proxy between one process and Postgres. Other processes have their own."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._writers: list[asyncio.StreamWriter] = []
        self._is_cut = False
        self._is_deaf = False
        self.port = 0

    @property
    def url(self) -> str:
        """The server by way of this line."""
        user = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Line"]:
        """Serves, until the end of the block."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self.cut()
            await listener.wait_closed()

    def cut(self) -> None:
        """Nothing gets through."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def deafen(self) -> None:
        """The server hears what is said, and its answers are lost."""
        self._is_deaf = True

    def mend(self) -> None:
        """As it was."""
        self._is_cut = self._is_deaf = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        from_server, to_server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writers += [writer, to_server]
        await asyncio.gather(self._pump(reader, to_server), self._pump(from_server, writer, answers=True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not (answers and self._is_deaf):
                    writer.write(data)
        writer.close()


def write(recorder: UsageRecorder, *, chars: int, told: int | None = None, ended: bool = False) -> UsageRecorder:
    """The recorder in the middle of an answer: `chars` relayed, and `told` output tokens reported."""
    creation = CacheCreation(INPUT.cache_write_5m_tokens, INPUT.cache_write_1h_tokens)
    recorder.started = ReportedUsage(INPUT.input_tokens, 3, 90, INPUT.cache_read_tokens, creation)
    recorder.outcome = Outcome.COMPLETED if ended else Outcome.UPSTREAM_BROKE
    recorder.model, recorder.upstream_request_id, recorder.upstream_message_id = MODEL, "req_1", "msg_1"
    recorder.output_chars, recorder.finished = chars, ended
    recorder.latest = None if told is None else ReportedUsage(output_tokens=told)
    recorder.stop_reason = "end_turn" if ended else None
    return recorder


async def stream(process: Process, account: Account, **written: Any) -> tuple[Grant, UsageRecorder]:
    """An admitted request in the middle of its answer."""
    grant = await process.admit(account)
    recorder = process.settlements.recorder(grant)
    return grant, write(recorder, **written) if written else recorder


async def beat_of(books: Books, process: Process) -> int:
    """The current beat of the process; -1 without a row."""
    rows = await books.fetch("SELECT beat FROM processes WHERE id = $1", process.journal.process_id)
    return rows[0]["beat"] if rows else -1


async def recover(by: Process, dead: Process, books: Books) -> int:
    """Recovers as if the beat had stood still."""
    return await by.recovery.recover(dead.journal.process_id, beat=await beat_of(books, dead))


async def agree(books: Books, account: Account) -> dict[str, int]:
    """Asserts that rows and entries, rollup and meters have the same sums; returns them."""
    rows = await books.sums("usage_requests", account.tenant_id)
    entries = await books.sums("usage_entries", account.tenant_id)
    together = {name: rows[name] + entries[name] for name in COUNT_COLUMNS}
    for table in ("usage_daily", "usage_monthly", "usage_by_day", "usage_meters"):
        assert dict(await books.sums(table, account.tenant_id)) == together, table
    return together


async def row_of(books: Books, grant: Grant) -> Any:
    """The request's row."""
    (row,) = await books.fetch("SELECT * FROM usage_requests WHERE id = $1", grant.request.id)
    return row


async def entries_of(books: Books, account: Account) -> list[Any]:
    """The tenant's entries, oldest first."""
    return await books.fetch("SELECT * FROM usage_entries WHERE tenant_id = $1 ORDER BY id", account.tenant_id)


@asynccontextmanager
async def cut_off(line: Line, redis_url: str, folder: Path) -> AsyncIterator[Process]:
    """A process whose connection can be cut; it is restored for its stop."""
    process = await start_process(line.url, redis_url, spool_dir=folder)
    yield process
    line.mend()
    await process.stop()


async def grants(process: Process, account: Account, count: int) -> list[Grant]:
    """Admitted requests in flight."""
    made = [await process.admit(account) for _ in range(count)]
    for grant in made:
        process.settlements.recorder(grant)
    return made


async def settle(process: Process, granted: list[Grant]) -> list[Settlement]:
    """All of them end at once."""
    return await asyncio.gather(*(process.settle(grant, USAGE) for grant in granted))


def spooled(folder: Path) -> list[Settlement]:
    """The settlements on disk."""
    return [found for path in abandoned(folder) for found in read_settlements(path.read_bytes())[0]]


def die(process: Process) -> None:
    """Closes its files, as the kernel does for a killed process."""
    file, process.spool._file = process.spool._file, None
    assert file is not None
    file.close()


def files(folder: Path) -> list[str]:
    """What is in it."""
    return [path.name for path in folder.iterdir()]
