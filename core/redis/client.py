"""Redis clients for what is no quota: news between processes, wrong keys at the sign-in. Every wait has a time-out.

redis-py's own default is to wait for a hung server for ever, and to try three times with growing pauses. Here a command
is tried twice, at once, since the first connection may have been closed while it was idle.
"""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_RETRIES = 1


def connect_redis(url: str, *, timeout_s: float) -> "Redis":
    """A client with a pool of its own, which connects when it is first used. Raises ValueError for a URL of none."""
    return Redis.from_url(
        url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s, retry=Retry(NoBackoff(), _RETRIES)
    )
