"""Cache invalidation between processes over Redis pub/sub. Redis down: entries live as long as their time to live.

Every (re)connect invalidates everything, because messages may have been missed.
"""

import asyncio
from collections.abc import Callable
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.logs import get_logger
from core.redis.channel import listen
from core.tasks import end

CHANNEL = "naka:changes"
EVERYTHING = "*"
_PUBLISH_S = 1  # a hanging Redis must not delay an answer

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
        await listen(
            self._redis,
            CHANNEL,
            lambda data: self._notify(_tenant(data)),
            on_connect=self._connected,
            on_loss=self.subscribed.clear,
        )

    def _connected(self) -> None:
        self._notify(None)
        self.subscribed.set()

    def _notify(self, tenant_id: UUID | None) -> None:
        for listener in self._listeners:
            listener(tenant_id)


def _tenant(data: bytes) -> UUID | None:
    try:
        return UUID(data.decode())
    except ValueError:
        return None
