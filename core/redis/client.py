"""The Redis client for cache invalidation and the sign-in throttle (quotas use `metering.admission.redis_pipeline`).

Every wait has a timeout. A command is tried twice without a pause, since an idle connection may have been closed.
"""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_RETRIES = 1


def connect_redis(url: str, *, timeout_s: float) -> "Redis":
    """Returns a client that connects when first used. Raises ValueError for an invalid URL."""
    return Redis.from_url(
        url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s, retry=Retry(NoBackoff(), _RETRIES)
    )
