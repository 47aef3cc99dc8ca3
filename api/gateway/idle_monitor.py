"""Watches open streams for silence, on both sides.

Towards the client it is broken by a comment, so that nothing on the way takes the stream for dead. From the upstream
it is borne only so long: then the stream is given up. One task for the process looks at all streams; a stream costs
an entry, not a task or a timer, and a piece of text two assignments.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator

from api.gateway.sse import KEEPALIVE
from core.logs import get_logger

_LONGEST_TICK_S = 1.0
_SEND_S = 0.1

log = get_logger(__name__)


class MonitoredStream:
    """One stream: when it last heard from upstream and when it last wrote, by the monotonic clock."""

    __slots__ = ("comment", "give_up", "heard", "wrote")

    def __init__(self, comment: Callable[[bytes], Awaitable[None]], give_up: Callable[[], None]) -> None:
        self.comment = comment
        self.give_up = give_up
        self.heard = self.wrote = time.monotonic()


class IdleMonitor:
    """Watches streams. One per process."""

    def __init__(self, *, comment_after_s: float, give_up_after_s: float) -> None:
        self._comment_after_s = comment_after_s
        self._give_up_after_s = give_up_after_s
        self._streams: set[MonitoredStream] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task."""
        self._task = asyncio.create_task(self._tick(), name="silence")

    async def stop(self) -> None:
        """Ends the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextlib.contextmanager
    def watch(
        self, comment: Callable[[bytes], Awaitable[None]], give_up: Callable[[], None]
    ) -> Iterator[MonitoredStream]:
        """Within the block, `comment` is called after each silence of ours, `give_up` after a long one of upstream."""
        stream = MonitoredStream(comment, give_up)
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    async def _tick(self) -> None:
        tick_s = min(_LONGEST_TICK_S, self._comment_after_s / 4, self._give_up_after_s / 4)
        while True:
            await asyncio.sleep(tick_s)
            now = time.monotonic()
            for stream in list(self._streams):
                if now - stream.heard >= self._give_up_after_s:
                    stream.give_up()
                elif now - stream.wrote >= self._comment_after_s:
                    stream.wrote = now
                    await _comment(stream)


async def _comment(stream: MonitoredStream) -> None:
    try:
        async with asyncio.timeout(_SEND_S):  # a client that reads nothing must not hold up the others
            await stream.comment(KEEPALIVE)
    except (TimeoutError, OSError, RuntimeError) as error:
        log.debug("comment_not_sent", error=type(error).__name__)
