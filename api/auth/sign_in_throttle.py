"""Wrong keys at the door slow their address down: a few are free, then each one doubles the wait.

Counted in Redis, for all processes together. Redis away, or silent for a second: nobody is slowed down; a key has 256
random bits, so what this saves is our work and the log, not the keys.
"""

import asyncio

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api.http.client_address import network_of
from core.errors import NakaError
from core.logs import get_logger

FREE_ATTEMPTS = 5
_FORGOTTEN_AFTER_S = 900
_LONGEST_WAIT_S = 300
_REDIS_S = 1.0
"""How long a sign-in waits for Redis, each time; then it goes on without."""

log = get_logger(__name__)


class TooManyAttempts(NakaError):
    """Wrong keys came from this address; nothing is looked at before `retry_after_s` have passed."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many wrong keys from your address: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class SignInThrottle:
    """Counts per customer's network: `api.http.client_address`."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def admit(self, address: str) -> None:
        """Raises TooManyAttempts while the address has to wait."""
        try:
            async with asyncio.timeout(_REDIS_S):
                wait_s = await self._redis.ttl(f"{_key(address)}:wait")
        except (RedisError, OSError) as error:
            log.warning("attempts_not_counted", error=type(error).__name__)
            return
        if wait_s >= 0:
            raise TooManyAttempts(max(1, wait_s))

    async def wrong(self, address: str) -> None:
        """One more wrong key."""
        key = _key(address)
        try:
            async with asyncio.timeout(_REDIS_S):
                count = await self._redis.incr(key)
                await self._redis.expire(key, _FORGOTTEN_AFTER_S)
                if count >= FREE_ATTEMPTS:
                    wait_s = min(2 ** min(count - FREE_ATTEMPTS + 1, 20), _LONGEST_WAIT_S)
                    await self._redis.set(f"{key}:wait", "", ex=wait_s)
        except (RedisError, OSError) as error:
            log.warning("attempts_not_counted", error=type(error).__name__)


def _key(address: str) -> str:
    return f"naka:door:{network_of(address)}"
