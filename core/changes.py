"""News between the processes: "something about this tenant changed, forget what you cached".

Rides on Redis's pub/sub, so it may be lost; that only makes a cache as old as its time to live. A connection that
was away may have missed news: on every (re)connect everything is dropped.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.logs import get_logger
from core.tasks import end

CHANNEL = "naka:changes"
EVERYTHING = "*"
_RETRY_S = 0.1
_PUBLISH_S = 1  # a Redis that hangs must not hold up an answer

log = get_logger(__name__)


class Changes:
    """Publishes and hears news. A listener is called with a tenant's id, or None for "anything may have changed"."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._listeners: list[Callable[[UUID | None], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.heard = asyncio.Event()

    def subscribe(self, listener: Callable[[UUID | None], None]) -> None:
        """`listener` is called in this process for its own news and for everybody's."""
        self._listeners.append(listener)

    async def publish(self, tenant_id: UUID | None) -> None:
        """Tells every process. Call it after the commit; a failure is logged and made good by the caches' age."""
        self._tell(tenant_id)
        try:
            async with asyncio.timeout(_PUBLISH_S):
                await self._redis.publish(CHANNEL, EVERYTHING if tenant_id is None else str(tenant_id))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("change_not_published", error=type(error).__name__)

    async def start(self) -> None:
        """Starts listening; returns at once."""
        self._task = asyncio.create_task(self._listen(), name="changes")

    async def stop(self) -> None:
        """Stops listening."""
        if self._task is not None:
            await end(self._task)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    async for message in pubsub.listen():
                        if message["type"] == "subscribe":  # confirmed: news before this moment went past us
                            self._tell(None)
                            self.heard.set()
                        elif message["type"] == "message":
                            self._tell(_tenant(message["data"]))
            except (RedisError, OSError):
                self.heard.clear()
                await asyncio.sleep(_RETRY_S)

    def _tell(self, tenant_id: UUID | None) -> None:
        for listener in self._listeners:
            listener(tenant_id)


def _tenant(data: bytes) -> UUID | None:
    try:
        return UUID(data.decode())
    except ValueError:
        return None
