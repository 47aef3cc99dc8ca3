"""A bounded cache with a time to live and invalidation, for look-ups of the request path.

A load in progress during an invalidation is not cached, because its answer may be older. Concurrent loads of one key
share one load.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from core.resilience.deadline import unbounded

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """At most `max_size` entries, each for `ttl_s` seconds. A full cache is cleared: reloading is cheap."""

    def __init__(self, *, ttl_s: float, max_size: int = 50_000) -> None:
        self._ttl_s = ttl_s
        self._max_size = max_size
        self._entries: dict[K, tuple[float, V]] = {}
        self._loading: dict[K, asyncio.Task[V]] = {}
        self._generation = 0

    @property
    def generation(self) -> int:
        """Another number after each invalidation; see `put`."""
        return self._generation

    def get(self, key: K) -> V | None:
        """Returns the entry; None when missing or expired."""
        entry = self._entries.get(key)
        return entry[1] if entry is not None and entry[0] > time.monotonic() else None

    async def load(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        """Returns the entry, or what `fetch` returns, cached unless invalidated meanwhile. Errors are not cached."""
        found = self.get(key)
        return found if found is not None else await self.reload(key, fetch)

    async def reload(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        """Returns what `fetch` returns, in place of the entry; the entry stays if `fetch` fails."""
        task = self._loading.get(key)
        if task is None:
            with unbounded():  # other callers with later deadlines may wait for it
                task = asyncio.ensure_future(self._fetch(key, fetch))
            self._loading[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _fetch(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        generation = self._generation
        value = await fetch()
        if generation == self._generation:
            self.put(key, value)
        return value

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn about it

    def put(self, key: K, value: V, *, generation: int | None = None) -> None:
        """Caches a value. `generation`: as before it was read; None: no invalidation can have outdated it."""
        if generation not in (None, self._generation):
            return
        if len(self._entries) >= self._max_size:
            self._entries.clear()
        self._entries[key] = (time.monotonic() + self._ttl_s, value)

    def discard(self, key: K) -> None:
        """Drops one outdated entry; a load of it in progress is still cached."""
        self._entries.pop(key, None)

    def drop(self, matches: Callable[[K, V], bool] | None = None) -> None:
        """Drops the entries that match (by default all), and any load in progress."""
        self._generation += 1
        self._loading.clear()
        if matches is None:
            self._entries.clear()
            return
        self._entries = {key: entry for key, entry in self._entries.items() if not matches(key, entry[1])}
