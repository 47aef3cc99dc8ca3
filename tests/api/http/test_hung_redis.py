"""A hanging Redis: sign-ins are answered in time, and invalidations arrive again after it resumes."""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from api.auth.sign_in_throttle import FREE_ATTEMPTS, SignInThrottle, TooManyAttempts
from core.redis import channel
from core.redis.changes import Changes
from core.redis.client import connect_redis
from sandbox.valkey import Valkey

ADDRESS = "192.0.2.7"


@pytest.mark.slow
@pytest.mark.chaos
async def test_a_sign_in_does_not_wait_for_a_redis_that_hangs(private_valkey: Callable[..., Valkey]) -> None:
    server = private_valkey(appendonly="no")
    redis = connect_redis(server.url, timeout_s=0.3)
    throttle = SignInThrottle(redis)
    for _ in range(FREE_ATTEMPTS):
        await throttle.check(ADDRESS)
        await throttle.note_failure(ADDRESS)
    for _ in range(4):  # the address has to wait for half a minute, longer than this test takes
        await throttle.note_failure(ADDRESS)
    with pytest.raises(TooManyAttempts):
        await throttle.check(ADDRESS)
    server.pause()
    try:
        began_s = time.monotonic()
        await throttle.check(ADDRESS)  # nobody is slowed down, as when Redis is away
        await throttle.note_failure(ADDRESS)
        await Changes(redis).publish(uuid4())
        assert time.monotonic() - began_s < 3 * 1.0 + 0.5
    finally:
        server.resume()
    with pytest.raises(TooManyAttempts):
        await throttle.check(ADDRESS)
    await redis.aclose()


@pytest.mark.chaos
async def test_a_silent_connection_is_given_up(
    private_valkey: Callable[..., Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that drops packets closes no connection: only a ping detects it."""
    monkeypatch.setattr(channel, "_IDLE_S", 0.2)
    monkeypatch.setattr(channel, "_PONG_S", 0.2)
    server = private_valkey(appendonly="no")
    redis = connect_redis(server.url, timeout_s=0.3)
    changes, told = Changes(redis), list[UUID | None]()
    changes.subscribe(told.append)
    await changes.start()
    await changes.subscribed.wait()
    await asyncio.sleep(0.7)
    assert told == [None]  # it answers, so nothing was missed
    server.pause()
    async with asyncio.timeout(10):
        while changes.subscribed.is_set():  # noqa: ASYNC110 - it is set again only after a resume
            await asyncio.sleep(0.02)
    server.resume()
    await asyncio.wait_for(changes.subscribed.wait(), 10)
    assert told[-1] is None  # what was said meanwhile may be missed, so everything is dropped
    await changes.stop()
    await redis.aclose()
