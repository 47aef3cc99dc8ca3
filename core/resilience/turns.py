"""Turns: of each owner at most a few tasks run at once, and its others wait, first come, first served.

Unlike `core.resilience.shares` there is no pool: owners never wait for each other.
"""

import asyncio
from collections.abc import Callable, Hashable

from core.resilience.shares import PoolFull


class Turns:
    """One per kind of work and process. An owner without tasks costs no memory."""

    def __init__(self, name: str, at_once: int, *, wait_s: float) -> None:
        self._name = name
        self._at_once = at_once
        self._wait_s = wait_s
        self._owners: dict[Hashable, tuple[asyncio.Semaphore, int]] = {}

    async def take(self, owner: Hashable) -> Callable[[], None]:
        """Waits for a turn and returns the function that ends it, once or more often. Raises PoolFull in the end."""
        turns, tasks = self._owners.get(owner) or (asyncio.Semaphore(self._at_once), 0)
        self._owners[owner] = turns, tasks + 1
        try:
            if turns.locked():
                async with asyncio.timeout(self._wait_s):
                    await turns.acquire()
            else:
                await turns.acquire()
        except BaseException as error:
            self._leave(owner)
            if isinstance(error, TimeoutError):
                raise PoolFull(self._name) from error
            raise
        has_turn = True

        def end() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                turns.release()
                self._leave(owner)

        return end

    def __len__(self) -> int:
        """Returns the number of owners with a task that runs or waits."""
        return len(self._owners)

    def _leave(self, owner: Hashable) -> None:
        turns, tasks = self._owners.pop(owner)
        if tasks > 1:
            self._owners[owner] = turns, tasks - 1
