"""Fair shares of a pool by a dynamic threshold, as in the buffers of network switches.

An owner (a tenant) may take another place only while it holds fewer than are free. So one owner alone gets half of the
pool, `k` greedy ones 1/(k+1) each, and a newcomer finds room, without partitions or settings per owner. Taking a place
costs O(1), releasing one O(waiting owners); idle owners cost no memory.

`take` never waits; `wait` queues per owner, served round-robin, with a timeout. Both raise PoolFull. Do not nest two
places of one pool: the inner one could wait for the outer one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from core.errors import Overloaded

OWNER: ContextVar[Hashable] = ContextVar("naka.owner", default=None)
"""The owner the current task works for; None for the process itself. Authentication sets it, and tasks inherit it."""


@contextmanager
def own_work() -> Iterator[None]:
    """Runs the block as the process's own work, outside of any owner's share."""
    token = OWNER.set(None)
    try:
        yield
    finally:
        OWNER.reset(token)


@contextmanager
def apart(purpose: str) -> Iterator[None]:
    """Runs the block in a share of its own for this purpose, beside that of the current owner."""
    token = OWNER.set((OWNER.get(), purpose))
    try:
        yield
    finally:
        OWNER.reset(token)


class PoolFull(Overloaded):
    """The owner's share of a pool, or the whole pool, is used up. Nothing was started."""

    def __init__(self, pool: str, *, retry_after_s: int = 1) -> None:
        super().__init__("You have too many requests in progress. Try again.", retry_after_s=retry_after_s)
        self.pool = pool


class FairPool:
    """The places of one pool. One per pool and process."""

    def __init__(
        self, pool: str, places: int, *, max_waiting: int = 0, wait_s: float = 0, retry_after_s: int = 1
    ) -> None:
        """At most `max_waiting` tasks wait for one of the `places`, each for at most `wait_s`."""
        self.pool = pool
        self.places = places
        self.taken = 0
        self.refused = 0
        self._max_waiting = max_waiting
        self._wait_s = wait_s
        self._retry_after_s = retry_after_s
        self._held: dict[Hashable, int] = {}
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiters = 0

    @contextmanager
    def take(self, owner: Hashable) -> Iterator[None]:
        """A place for the block, now. Raises PoolFull."""
        if not self._fits(owner):
            raise self._full()
        self._enter(owner)
        try:
            yield
        finally:
            self._leave(owner)

    @asynccontextmanager
    async def wait(self, owner: Hashable) -> AsyncIterator[None]:
        """Waits for a place for the block. Raises PoolFull."""
        if owner not in self._waiting and self._fits(owner):
            self._enter(owner)
        else:
            await self._queue(owner)
        try:
            yield
        finally:
            self._leave(owner)

    def held_by(self, owner: Hashable) -> int:
        """Returns the places that the owner holds."""
        return self._held.get(owner, 0)

    @property
    def owners(self) -> int:
        """The number of owners that hold a place or wait for one."""
        return len(self._held.keys() | self._waiting.keys())

    def _fits(self, owner: Hashable) -> bool:
        return self._held.get(owner, 0) < self.places - self.taken

    def _enter(self, owner: Hashable) -> None:
        self.taken += 1
        self._held[owner] = self._held.get(owner, 0) + 1

    def _leave(self, owner: Hashable) -> None:
        self.taken -= 1
        left = self._held.pop(owner) - 1
        if left:
            self._held[owner] = left
        self._serve()

    async def _queue(self, owner: Hashable) -> None:
        """Waits until this task has a place. The queue is shared by the same threshold as the places."""
        queue = self._waiting.get(owner, ())
        if len(queue) >= self._max_waiting - self._waiters:
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._waiters += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(owner)  # the place was given just as the task gave up
            else:
                self._forget(owner, turn)
                self._serve()  # a task behind this one may fit
            if isinstance(error, TimeoutError):
                raise self._full() from error
            raise

    def _forget(self, owner: Hashable, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting[owner]
        queue.remove(turn)
        self._waiters -= 1
        if not queue:
            del self._waiting[owner]

    def _serve(self) -> None:
        """Gives free places to waiting tasks: owners round-robin, and first come, first served within an owner."""
        for owner in list(self._waiting):
            if self.taken >= self.places:
                return
            if not self._fits(owner):
                continue
            queue = self._waiting[owner]
            turn = next((one for one in queue if not one.done()), None)
            if turn is None:
                continue  # all its tasks have given up and are about to leave
            self._forget(owner, turn)
            if queue:
                self._waiting.move_to_end(owner)
            self._enter(owner)
            turn.set_result(None)

    def _full(self) -> PoolFull:
        self.refused += 1
        return PoolFull(self.pool, retry_after_s=self._retry_after_s)
