"""Reliable cancellation of tasks."""

import asyncio
from typing import Any

_RETRY_S = 0.1


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancels the task until it has ended, and discards its error.

    One cancel may be lost: `asyncio.wait_for` of Python 3.11, which redis-py uses, swallows a cancel that arrives just
    as its awaitable finishes.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_RETRY_S)
    if not task.cancelled():
        task.exception()
