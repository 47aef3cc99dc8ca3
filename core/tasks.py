"""Ending a task for certain."""

import asyncio
from typing import Any

_AGAIN_S = 0.1


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancels it until it has ended; what it raised is not told.

    Once may not do: `asyncio.wait_for` of Python 3.11, by which redis-py sends, swallows a cancel that comes when what
    it waits for is just done. Measured: at every other step of a connect.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)
    if not task.cancelled():
        task.exception()
