"""The throttle of failed sign-ins: after a few wrong keys, each further one doubles the wait of its network.

Counted in Redis for all processes. Redis down, or silent for a second: nobody is throttled, which costs only work.
"""

import asyncio

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.http.client_address import network_of
from core.errors import NakaError
from core.logs import get_logger
from core.resilience.backoff import Backoff

FREE_ATTEMPTS = 5
_WINDOW_S = 900
_BACKOFF = Backoff(2, 300)
_REDIS_S = 1.0
"""Seconds that a sign-in waits for Redis before it goes on without the throttle."""

log = get_logger(__name__)


class TooManyAttempts(NakaError):
    """Too many wrong keys came from this network. The next attempt is possible after `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many failed sign-ins. Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class SignInThrottle:
    """Counts failures per network (`api.http.client_address.network_of`)."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def check(self, address: str) -> None:
        """Raises TooManyAttempts while the address has to wait."""
        try:
            async with asyncio.timeout(_REDIS_S):
                wait_s = await self._redis.ttl(f"{_key(address)}:wait")
        except (RedisError, OSError) as error:
            log.warning("attempts_not_counted", error=type(error).__name__)
            return
        if wait_s >= 0:
            raise TooManyAttempts(max(1, wait_s))

    async def note_failure(self, address: str) -> None:
        """Counts a wrong key."""
        key = _key(address)
        try:
            async with asyncio.timeout(_REDIS_S):
                count = await self._redis.incr(key)
                await self._redis.expire(key, _WINDOW_S)
                if count >= FREE_ATTEMPTS:
                    wait_s = _BACKOFF.wait_s(count - FREE_ATTEMPTS)
                    await self._redis.set(f"{key}:wait", "", ex=int(wait_s))
        except (RedisError, OSError) as error:
            log.warning("attempts_not_counted", error=type(error).__name__)


def _key(address: str) -> str:
    return f"naka:door:{network_of(address)}"
