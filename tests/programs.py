"""Naka's programs as processes, and their logs."""

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import fork_server

WITHIN_S = 60  # generous, for a loaded machine


class Process:
    """A Python process and its log."""

    def __init__(self, log: Path, *arguments: str, **variables: str) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = fork_server.start(*arguments, variables=variables, stdout=out)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Returns its log lines of the event, without an incomplete last line."""
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")
        lines = [json.loads(line) for line in whole.decode().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    async def says(self, name: str, times: int = 1, *, within_s: float = WITHIN_S) -> None:
        """Returns once the event was logged `times` times."""

        async def said() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return len(self.events(name)) >= times

        await until(said, within_s=within_s)

    async def ends(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal and returns the exit code."""
        self.process.send_signal(signum)
        return await asyncio.to_thread(self.process.wait, WITHIN_S)


async def until(holds: Callable[[], Awaitable[object]], *, within_s: float = WITHIN_S) -> None:
    """Returns once the condition holds; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while not await holds():
        assert time.monotonic() < deadline, "it took too long"
        await asyncio.sleep(0.02)


@contextmanager
def starter(folder: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes in the block and kills those still running at its end."""
    started: list[Process] = []

    def start(*arguments: str, **variables: str) -> Process:
        started.append(Process(folder / f"{len(started)}.log", *arguments, **variables))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            one.process.kill()
            one.process.wait()
