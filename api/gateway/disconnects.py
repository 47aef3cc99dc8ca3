"""How long an answer is awaited whose client has left: until the provider says what the prompt came to, within bounds.

A prompt that the provider processes is paid, so a client that hangs up before the head has its input counted exactly,
by `message_start`. The wait is bounded in time (`HANGUP_WAIT_S`) and in number per process; each request keeps its
hold and its place among the user's concurrent requests meanwhile. Beyond the bounds the input is estimated.
"""

import asyncio

_MOST_AT_ONCE = 200


class Disconnects:
    """The waits of one process."""

    def __init__(self, *, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting = 0

    async def wait(self) -> None:
        """Returns when the time is over, or at once when too many wait. Cancel it when the answer begins."""
        if self._waiting >= _MOST_AT_ONCE:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(self._wait_s)
        finally:
            self._waiting -= 1
