"""News between the processes: "something about this tenant changed, forget what you cached".

Rides on Redis's pub/sub, so it may be lost; that only makes a cache as old as its time to live. A connection that
was away may have missed news: on every (re)connect everything is dropped. A connection on which nothing was heard for
a while is asked whether it still leads anywhere: a server that froze, or a network that drops packets, says nothing.
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
_PUBLISH_S = 1  # a Redis that hangs must not hold up an answer
_SILENCE_S = 10.0
_PONG_S = 2.0

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
                    while True:
                        message = await _next(pubsub)
                        if message["type"] == "message":
                            self._tell(_tenant(message["data"]))
                        elif message["type"] == "subscribe":  # redis-py may reconnect by itself: this is the sign of it
                            self._tell(None)
                            self.heard.set()
            except (RedisError, OSError):
                self.heard.clear()
                await asyncio.sleep(_RETRY_S)

    def _tell(self, tenant_id: UUID | None) -> None:
        for listener in self._listeners:
            listener(tenant_id)


async def _next(pubsub: "PubSub") -> Any:
    """The next message, be it the answer to a ping. Raises RedisError when there is no answer."""
    message = await pubsub.get_message(timeout=_SILENCE_S)
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
