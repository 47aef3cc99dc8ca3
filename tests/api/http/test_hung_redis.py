"""A Redis that hangs: who signs in is answered in time, and news are heard again once it goes on."""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from api.auth.sign_in_throttle import FREE_ATTEMPTS, SignInThrottle, TooManyAttempts
from core.redis import changes as news
from core.redis.changes import Changes
from core.redis.client import connect_redis
from sandbox.valkey import Valkey

ADDRESS = "192.0.2.7"


@pytest.mark.chaos
async def test_a_sign_in_does_not_wait_for_a_redis_that_hangs(private_valkey: Callable[..., Valkey]) -> None:
    server = private_valkey(appendonly="no")
    redis = connect_redis(server.url, timeout_s=0.3)
    attempts = SignInThrottle(redis)
    for _ in range(FREE_ATTEMPTS):
        await attempts.admit(ADDRESS)
        await attempts.wrong(ADDRESS)
    for _ in range(4):  # the address has to wait for half a minute, longer than this test takes
        await attempts.wrong(ADDRESS)
    with pytest.raises(TooManyAttempts):
        await attempts.admit(ADDRESS)
    server.pause()
    try:
        began_s = time.monotonic()
        await attempts.admit(ADDRESS)  # nobody is slowed down, as when Redis is away
        await attempts.wrong(ADDRESS)
        await Changes(redis).publish(uuid4())
        assert time.monotonic() - began_s < 3 * 1.0 + 0.5
    finally:
        server.resume()
    with pytest.raises(TooManyAttempts):
        await attempts.admit(ADDRESS)
    await redis.aclose()


@pytest.mark.chaos
async def test_a_silent_connection_is_given_up(
    private_valkey: Callable[..., Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that drops packets ends no connection: only a question shows that nobody is there."""
    monkeypatch.setattr(news, "_SILENCE_S", 0.2)
    monkeypatch.setattr(news, "_PONG_S", 0.2)
    server = private_valkey(appendonly="no")
    redis = connect_redis(server.url, timeout_s=0.3)
    changes, told = Changes(redis), list[UUID | None]()
    changes.subscribe(told.append)
    await changes.start()
    await changes.heard.wait()
    await asyncio.sleep(0.7)
    assert told == [None]  # it answers, so nothing was missed
    server.pause()
    async with asyncio.timeout(10):
        while changes.heard.is_set():  # noqa: ASYNC110 - it is set again only after a resume
            await asyncio.sleep(0.02)
    server.resume()
    await asyncio.wait_for(changes.heard.wait(), 10)
    assert told[-1] is None  # what was said meanwhile may be missed, so everything is dropped
    await changes.stop()
    await redis.aclose()
