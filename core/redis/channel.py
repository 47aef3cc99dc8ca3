"""Listening on a Redis pub/sub channel. Redis down: it reconnects, and reports each time that it did.

An idle connection is pinged, because a frozen server or a network that drops packets does not close it.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

_RETRY_S = 0.1
_IDLE_S = 10.0
_PONG_S = 2.0


async def listen(
    redis: "Redis",
    channel: str,
    on_message: Callable[[bytes], None],
    *,
    on_connect: Callable[[], None],
    on_loss: Callable[[], None],
) -> None:
    """Calls `on_message` for each message, until it is cancelled. Messages between a loss and a connect are missed."""
    while True:
        try:
            async with redis.pubsub() as pubsub:
                await pubsub.subscribe(channel)
                while True:
                    message = await _next(pubsub)
                    if message["type"] == "message":
                        on_message(message["data"])
                    elif message["type"] == "subscribe":  # also sent when redis-py reconnects by itself
                        on_connect()
        except (RedisError, OSError):
            on_loss()
            await asyncio.sleep(_RETRY_S)


async def _next(pubsub: "PubSub") -> Any:
    """Returns the next message, or the answer to a ping. Raises RedisError without an answer."""
    message = await pubsub.get_message(timeout=_IDLE_S)
    if message is None:
        await pubsub.ping()
        message = await pubsub.get_message(timeout=_PONG_S)
    if message is None:
        raise RedisTimeout("the connection is dead")
    return message
