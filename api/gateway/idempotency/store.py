"""The runs of idempotent requests in Redis: who owns each, and its answer as numbered, encrypted items.

Each step is one script, safe to repeat after a time-out. Redis unreachable or slow: `RedisUnavailable`. Redis empty:
its runs are lost, and the next retry runs anew.
"""

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from redis.asyncio import Redis

from api.gateway.idempotency.errors import IdempotencyFull, IdempotencyMismatch, too_large
from api.gateway.idempotency.keys import Entry, new_run
from core.redis.channel import listen
from core.settings import Settings
from core.tasks import end
from metering.admission.redis_pipeline import RedisPipeline, load_script

RUN_BYTES = 1024
"""Bytes that an empty run counts: about as many as its keys take in Redis."""
_LUA = Path(__file__).parent / "lua"
READ_AT_ONCE = 64
"""Items of one read: of 64 kB at most each, so that Redis is not held up."""
_LAST_READ_MS = 10_000
"""How long the items of an ended run stay for the requests that follow it."""
_FOLLOWED_MS = 60_000


class Kept(Enum):
    """The result of storing items."""

    KEPT = b"kept"
    LARGE = b"large"
    """Too large: no item is stored any more, for the life of the key."""
    LOST = b"lost"
    """The run does not own its key any more."""


class End(Enum):
    """The end of a run."""

    NOT_YET = ""
    KEEP = "keep"
    """Its answer is kept for the life of the key."""
    FREE = "free"
    """The key is free again: the next request runs anew."""
    LARGE = "large"


class State(Enum):
    """The state of a run."""

    LIVE = b"live"
    DONE = b"done"
    LARGE = b"large"
    DEAD = b"dead"
    """It was freed, its process died, or Redis lost it."""


class RunStore:
    """One per process. `on_news` is called with a followed run that has news; with None if any may."""

    def __init__(self, settings: Settings, redis: "Redis") -> None:
        self.lease_s = settings.dead_after_s
        self.beat_s = settings.heartbeat_s
        self.answer_max_bytes = settings.idempotency_answer_max_bytes
        self.on_news: Callable[[str | None], None] = lambda _: None
        self._tenant_max_bytes = settings.idempotency_tenant_max_bytes
        self._lease_ms = round(self.lease_s * 1000)
        self._life_ms = settings.idempotency_minutes * 60_000
        self._forget_ms = settings.request_deadline_s * 1000 + self._life_ms
        self._pipeline = RedisPipeline(settings.redis_url, timeout_s=settings.redis_timeout_s)
        self._redis = redis
        self._channel = f"naka:idempotency:process:{new_run()}"
        self._claim = load_script("claim", _LUA)
        self._append = load_script("append", _LUA)
        self._read = load_script("read", _LUA)
        self._listener: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the tasks that send and listen."""
        self._pipeline.start()
        self._listener = asyncio.create_task(self._listen(), name="idempotency-news")

    async def stop(self) -> None:
        """Closes the connections."""
        if self._listener is not None:
            await end(self._listener)
        await self._pipeline.stop()

    async def claim(self, entry: Entry, run: str) -> str | None:
        """Returns the run that owns the key: `run`, unless it is another. An empty `run` only looks: None for no owner.

        Raises IdempotencyMismatch, IdempotencyConflict, IdempotencyFull, RedisUnavailable.
        """
        keys = (entry.name, *_tenant_keys(entry))
        answer = await self._pipeline.call(
            self._claim,
            keys,
            run,
            entry.fingerprint,
            self._lease_ms,
            self._forget_ms,
            self._tenant_max_bytes,
            RUN_BYTES,
            _LAST_READ_MS,
        )
        match answer:
            case [b"mine"]:
                return run
            case [b"follow", owner]:
                return str(owner.decode())
            case [b"mismatch"]:
                raise IdempotencyMismatch
            case [b"large"]:
                raise too_large()
            case [b"full", wait_ms]:
                raise IdempotencyFull(max(1, -(-int(wait_ms) // 1000)))
            case _:
                return None

    async def append(
        self, entry: Entry, run: str, first: int, items: Sequence[bytes], *, end: End = End.NOT_YET
    ) -> Kept:
        """Appends items, of which the first has the number `first`, and extends the lease. Raises RedisUnavailable."""
        keys = (entry.name, f"{entry.name}:{run}", f"{entry.name}:{run}:followed", *_tenant_keys(entry))
        answer = await self._pipeline.call(
            self._append,
            keys,
            run,
            first,
            end.value,
            self._lease_ms,
            self._forget_ms,
            self._life_ms,
            _LAST_READ_MS,
            self.answer_max_bytes,
            self._tenant_max_bytes,
            RUN_BYTES,
            *items,
        )
        return Kept(answer)

    async def read(self, entry: Entry, run: str, first: int) -> tuple[State, list[bytes]]:
        """Returns the state of a run and its items from `first` on, some at a time. Raises RedisUnavailable.

        While it is live, `on_news` will be called when there is more.
        """
        keys = (entry.name, f"{entry.name}:{run}", f"{entry.name}:{run}:followed")
        state, items = await self._pipeline.call(
            self._read, keys, run, first, READ_AT_ONCE, self._channel, _FOLLOWED_MS
        )
        return State(state), items

    async def _listen(self) -> None:
        await listen(
            self._redis,
            self._channel,
            lambda data: self.on_news(data.decode()),
            on_connect=lambda: self.on_news(None),
            on_loss=lambda: None,
        )


def _tenant_keys(entry: Entry) -> tuple[str, str]:
    return f"{entry.tenant}:expiry", f"{entry.tenant}:bytes"
