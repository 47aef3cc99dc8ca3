"""Cache invalidation between processes over Redis pub/sub. Redis down: entries live as long as their time to live.

Every (re)connect invalidates everything, because messages may have been missed. An idle connection is pinged, because a
frozen server or a network that drops packets does not close it.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from core.logs import get_logger
from core.tasks import end

CHANNEL = "naka:changes"
EVERYTHING = "*"
_RETRY_S = 0.1
_PUBLISH_S = 1  # a hanging Redis must not delay an answer
_IDLE_S = 10.0
_PONG_S = 2.0

log = get_logger(__name__)


class Changes:
    """Publishes and receives invalidations. A listener is called with a tenant's id, or None for everything."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._listeners: list[Callable[[UUID | None], None]] = []
        self._task: asyncio.Task[None] | None = None
        self.subscribed = asyncio.Event()

    def subscribe(self, listener: Callable[[UUID | None], None]) -> None:
        """Calls `listener` for the invalidations of this process and of all others."""
        self._listeners.append(listener)

    async def publish(self, tenant_id: UUID | None) -> None:
        """Publishes an invalidation. Call it after the commit. A failure is logged: the time to live covers it."""
        self._notify(tenant_id)
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
                    while True:
                        message = await _next(pubsub)
                        if message["type"] == "message":
                            self._notify(_tenant(message["data"]))
                        elif message["type"] == "subscribe":  # also sent when redis-py reconnects by itself
                            self._notify(None)
                            self.subscribed.set()
            except (RedisError, OSError):
                self.subscribed.clear()
                await asyncio.sleep(_RETRY_S)

    def _notify(self, tenant_id: UUID | None) -> None:
        for listener in self._listeners:
            listener(tenant_id)


async def _next(pubsub: "PubSub") -> Any:
    """Returns the next message, or the answer to a ping. Raises RedisError without an answer."""
    message = await pubsub.get_message(timeout=_IDLE_S)
    if message is None:
        await pubsub.ping()
        message = await pubsub.get_message(timeout=_PONG_S)
    if message is None:
        raise RedisTimeout("the connection is dead")
    return message


def _tenant(data: bytes) -> UUID | None:
    try:
        return UUID(data.decode())
    except ValueError:
        return None
