"""A small cache for what the request path looks up again and again: bounded, aged, dropped on notice.

Never the last word on anything that costs money: the open in Postgres is. A load that was under way when a drop
arrived is not kept, so that a drop cannot be overtaken by an older answer. Concurrent loads of one key are one load.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from core.resilience.deadline import unbounded

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """At most `max_size` entries, each for `ttl_s` seconds. When full, it starts anew: reloading is cheap."""

    def __init__(self, *, ttl_s: float, max_size: int = 50_000) -> None:
        self._ttl_s = ttl_s
        self._max_size = max_size
        self._entries: dict[K, tuple[float, V]] = {}
        self._loading: dict[K, asyncio.Task[V]] = {}
        self._generation = 0

    def get(self, key: K) -> V | None:
        """The entry, if it is there and young enough."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > time.monotonic() else None

    async def load(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        """The entry, or what `fetch` answers, kept unless a drop came meanwhile. An error of `fetch` is not kept."""
        found = self.get(key)
        if found is not None:
            return found
        task = self._loading.get(key)
        if task is None:
            with unbounded():  # others will wait for it, with later deadlines than this caller's
                task = asyncio.ensure_future(self._fetch(key, fetch))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _fetch(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        generation = self._generation
        value = await fetch()
        if generation == self._generation:
            if len(self._entries) >= self._max_size:
                self._entries.clear()
            self._entries[key] = (time.monotonic() + self._ttl_s, value)
        return value

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()  # looked at, so that a load nobody waits for any more is no warning

    def discard(self, key: K) -> None:
        """Forgets one entry, which its reader found too old. A load of it that is under way may be as old."""
        self._entries.pop(key, None)

    def drop(self, matches: Callable[[K, V], bool] | None = None) -> None:
        """Forgets what `matches` (all, when none is given), and whatever is being loaded right now."""
        self._generation += 1
        self._loading.clear()
        if matches is None:
            self._entries.clear()
            return
        self._entries = {key: entry for key, entry in self._entries.items() if not matches(key, entry[1])}
