"""The wait for `message_start` after a client disconnected, so that its input tokens are counted exactly.

The provider charges for a prompt it processes, whether or not the client waits. The wait is bounded in time
(`HANGUP_WAIT_S`) and in number per process; beyond the bounds the input is estimated.
"""

import asyncio

_MAX_WAITING = 200


class Disconnects:
    """The waits of one process."""

    def __init__(self, *, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting = 0

    async def wait(self) -> None:
        """Returns after the wait, or at once when too many requests wait. Cancel it when the answer begins."""
        if self._waiting >= _MAX_WAITING:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(self._wait_s)
        finally:
            self._waiting -= 1
