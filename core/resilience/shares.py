"""Places of a shared pool, and the share of them that one owner may hold: a dynamic threshold, as switch buffers use.

An owner (a tenant; before authentication, an address) may take another place only while it holds fewer than are free.
So one owner alone gets half of the pool, `k` greedy ones get 1/(k+1) each, and a newcomer finds room, without a
partition, a list of tenants or a setting for each. Taking a place costs O(1), giving one back O(owners that wait), and
an owner costs memory only while it holds a place or waits for one.

`take` answers at once; `wait` queues, one line per owner, served in turn, and gives up at a deadline. Both raise
PoolFull. Two attempts at one pool must not be nested: the inner one could wait for the outer one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from core.errors import Overloaded

OWNER: ContextVar[Hashable] = ContextVar("naka.owner", default=None)
"""For whom the current task works. Set at the authentication of a request; tasks that the request starts inherit it."""


class PoolFull(Overloaded):
    """The owner's share of a pool is used up, or all of the pool is. Nothing was started; try again later."""

    def __init__(self, pool: str, *, retry_after_s: int = 1) -> None:
        message = "this server has as much work of yours as it can take: try again in a moment"
        super().__init__(message, retry_after_s=retry_after_s)
        self.pool = pool


class FairPool:
    """The places of one pool. One per pool and process."""

    def __init__(self, pool: str, places: int, *, line: int = 0, wait_s: float = 0, retry_after_s: int = 1) -> None:
        """At most `places` are held, and at most `line` owners' tasks wait for one, each for `wait_s` at most."""
        self.pool = pool
        self.places = places
        self.taken = 0
        self.refused = 0
        self._line = line
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
        """A place for the block, as soon as it is this owner's turn. Raises PoolFull."""
        if owner not in self._waiting and self._fits(owner):
            self._enter(owner)
        else:
            await self._queue(owner)
        try:
            yield
        finally:
            self._leave(owner)

    def held_by(self, owner: Hashable) -> int:
        """How many places the owner holds."""
        return self._held.get(owner, 0)

    @property
    def owners(self) -> int:
        """How many owners are remembered: those who hold a place or wait for one."""
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
        """Returns once a place was entered for this task. The line is shared by the same rule as the places."""
        line = self._waiting.get(owner, ())
        if len(line) >= self._line - self._waiters:
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._waiters += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(owner)  # the place came in the moment in which the task gave up
            else:
                self._forget(owner, turn)
                self._serve()  # one who came behind this one may fit
            if isinstance(error, TimeoutError):
                raise self._full() from error
            raise

    def _forget(self, owner: Hashable, turn: "asyncio.Future[None]") -> None:
        line = self._waiting[owner]
        line.remove(turn)
        self._waiters -= 1
        if not line:
            del self._waiting[owner]

    def _serve(self) -> None:
        """Gives free places to those who wait: the owners in turn, and within an owner the first who came."""
        for owner in list(self._waiting):
            if self.taken >= self.places:
                return
            if not self._fits(owner):
                continue
            line = self._waiting[owner]
            turn = next((one for one in line if not one.done()), None)
            if turn is None:
                continue  # its tasks have all given up, and are about to say so
            self._forget(owner, turn)
            if line:
                self._waiting.move_to_end(owner)
            self._enter(owner)
            turn.set_result(None)

    def _full(self) -> PoolFull:
        self.refused += 1
        return PoolFull(self.pool, retry_after_s=self._retry_after_s)
