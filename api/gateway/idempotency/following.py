"""Runs that requests of this process follow: each is read once, however many requests wait for it.

A run is read when the store says that it has news, and every second at least, which is how the death of its process is
noticed. Redis away: requests that have received nothing yet get 503 after the time of a lease, others are cut off.
"""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from api.gateway.idempotency.keys import Entry, Kind, Seal, Unreadable
from api.gateway.idempotency.store import READ_AT_ONCE, RunStore, State
from core.logs import get_logger
from core.resilience.shares import FairPool
from metering.admission.redis_pipeline import RedisUnavailable

_POLL_S = 1.0
_RETRY_S = 0.25

log = get_logger(__name__)


class FollowedRun:
    """The answer of a run, as far as it has come. `state`: LIVE until no item follows."""

    def __init__(self) -> None:
        self.items: list[tuple[Kind, bytes]] = []
        self.state = State.LIVE
        self.is_unreachable = False
        """Whether it is dead because Redis is away."""
        self.readers: set[asyncio.Event] = set()
        self.has_news = asyncio.Event()

    @contextmanager
    def reader(self) -> Iterator[asyncio.Event]:
        """An event that is set when there is more to read."""
        event = asyncio.Event()
        self.readers.add(event)
        try:
            yield event
        finally:
            self.readers.discard(event)

    def wake_readers(self) -> None:
        """Tells every reader to look."""
        for event in self.readers:
            event.set()


@dataclass(frozen=True, slots=True)
class _Reading:
    """The reading of a run, and its place in the pool."""

    followed: FollowedRun
    task: asyncio.Task[None]
    place: ExitStack


class FollowedRuns:
    """One per process. `places`: one for each run, whose answer is in memory meanwhile."""

    def __init__(self, store: RunStore, places: FairPool) -> None:
        self._store = store
        self._places = places
        self._runs: dict[str, _Reading] = {}
        store.on_news = self._note_news

    @contextmanager
    def follow(self, entry: Entry, run: str, owner: Hashable) -> Iterator[tuple[FollowedRun, asyncio.Event]]:
        """Follows a run in the block: its answer, and an event that is set when there is more. Raises PoolFull."""
        reading = self._runs.get(run) or self._start(entry, run, owner)
        followed = reading.followed
        try:
            with followed.reader() as event:
                yield followed, event
        finally:
            if not followed.readers:
                del self._runs[run]
                reading.task.cancel()
                reading.place.close()

    def _start(self, entry: Entry, run: str, owner: Hashable) -> _Reading:
        place, followed = ExitStack(), FollowedRun()
        place.enter_context(self._places.take(owner))
        task = asyncio.create_task(self._read(entry, run, followed), name="idempotency-reader")
        reading = self._runs[run] = _Reading(followed, task, place)
        return reading

    def __len__(self) -> int:
        """Returns the number of runs that are followed."""
        return len(self._runs)

    def _note_news(self, run: str | None) -> None:
        for name, reading in self._runs.items():
            if run is None or name == run:
                reading.followed.has_news.set()

    async def _read(self, entry: Entry, run: str, followed: FollowedRun) -> None:
        try:
            await self._read_items(Seal(entry, run), entry, run, followed)
        finally:
            if followed.state is State.LIVE:
                followed.state = State.DEAD
            followed.wake_readers()

    async def _read_items(self, seal: Seal, entry: Entry, run: str, followed: FollowedRun) -> None:
        """Reads until the answer has ended, or nothing can follow."""
        loop = asyncio.get_running_loop()
        reached_s = loop.time()
        while True:
            followed.has_news.clear()
            try:
                state, items = await self._store.read(entry, run, len(followed.items))
            except RedisUnavailable:
                if loop.time() - reached_s > self._store.lease_s:
                    followed.is_unreachable = True
                    return
                await asyncio.sleep(_RETRY_S)
                continue
            reached_s = loop.time()
            try:
                followed.items += [seal.open(len(followed.items) + at, item) for at, item in enumerate(items)]
            except Unreadable:
                log.critical("stored_answer_unreadable")
                return
            if followed.items and followed.items[-1][0] in {Kind.COMPLETE, Kind.FAILED}:
                followed.state = State.DONE
                return
            if state is not State.LIVE and not items:  # one that is done, and whose items Redis evicted, is not kept
                followed.state = State.DEAD if state is State.DEAD else State.LARGE
                return
            followed.wake_readers()
            if state is State.LIVE and len(items) < READ_AT_ONCE:
                await self._await_news(followed)

    async def _await_news(self, followed: FollowedRun) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await followed.has_news.wait()
