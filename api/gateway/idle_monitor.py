"""The idle monitor of open streams: one task checks all of them.

It sends a comment to a client that received nothing for a while, so that proxies keep the connection open, and gives
up an upstream that has been silent for too long. Time in which the upstream is not read, because the client does not
keep up, is not silence.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from core.logs import get_logger

_MAX_TICK_S = 1.0
_SEND_S = 0.1

log = get_logger(__name__)


class Upstream(Protocol):
    """An answer being received."""

    @property
    def is_paused(self) -> bool:
        """Whether it is not being read."""

    def give_up(self) -> None:
        """Ends it."""


class MonitoredStream:
    """One stream, with the monotonic times of its last read from upstream and its last write to the client."""

    __slots__ = ("comment", "read_s", "upstream", "wrote_s")

    def __init__(self, comment: Callable[[], Awaitable[None]], upstream: Upstream) -> None:
        self.comment = comment
        self.upstream = upstream
        self.read_s = self.wrote_s = time.monotonic()


class IdleMonitor:
    """Monitors streams. One per process."""

    def __init__(self, *, comment_after_s: float, give_up_after_s: float) -> None:
        self._comment_after_s = comment_after_s
        self._give_up_after_s = give_up_after_s
        self._streams: set[MonitoredStream] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task."""
        self._task = asyncio.create_task(self._tick(), name="idle-monitor")

    async def stop(self) -> None:
        """Ends the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextlib.contextmanager
    def watch(self, comment: Callable[[], Awaitable[None]], upstream: Upstream) -> Iterator[MonitoredStream]:
        """Monitors a stream for the block: calls `comment` when no text was sent, gives up a silent upstream."""
        stream = MonitoredStream(comment, upstream)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    async def _tick(self) -> None:
        tick_s = min(_MAX_TICK_S, self._comment_after_s / 4, self._give_up_after_s / 4)
        while True:
            await asyncio.sleep(tick_s)
            now = time.monotonic()
            for stream in list(self._streams):
                if stream.upstream.is_paused:
                    stream.read_s = now
                elif now - stream.read_s >= self._give_up_after_s:
                    stream.upstream.give_up()
                elif now - stream.wrote_s >= self._comment_after_s:
                    stream.wrote_s = now
                    await _comment(stream)


async def _comment(stream: MonitoredStream) -> None:
    try:
        async with asyncio.timeout(_SEND_S):  # a client that reads nothing must not hold up the others
            await stream.comment()
    except (TimeoutError, OSError, RuntimeError) as error:
        log.debug("comment_not_sent", error=type(error).__name__)
