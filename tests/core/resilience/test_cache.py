"""Cache invalidation: entries are dropped in time, and everything is dropped after missed messages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from core.redis.changes import CHANNEL, Changes
from core.resilience.cache import TtlCache
from sandbox.valkey import Valkey

PATIENCE_S = 10


class Source:
    """A loader that answers on command and counts its calls."""

    def __init__(self) -> None:
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.value = "old"

    async def fetch(self) -> str:
        """Returns the value as of the start of the load."""
        self.loads += 1
        value, gate = self.value, self.gate
        await gate.wait()
        return value


async def test_an_entry_is_kept_until_it_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("core.resilience.cache.time", SimpleNamespace(monotonic=lambda: now_s))
    cache, source = TtlCache[str, str](ttl_s=0.5), Source()
    assert cache.get("a") is None
    assert await cache.load("a", source.fetch) == "old"
    assert cache.get("a") == "old"
    source.value = "new"
    assert await cache.load("a", source.fetch) == "old"
    now_s += 0.5
    assert cache.get("a") is None
    assert await cache.load("a", source.fetch) == "new"
    assert source.loads == 2


async def test_concurrent_loads_are_one() -> None:
    cache, source = TtlCache[str, str](ttl_s=60), Source()
    source.gate.clear()
    waiting = [asyncio.ensure_future(cache.load("a", source.fetch)) for _ in range(20)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()  # who gives up takes nothing from the others
    source.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["old"] * 19
    assert source.loads == 1
    assert cache.get("a") == "old"


async def test_a_load_that_a_drop_overtook_is_not_kept() -> None:
    cache, source = TtlCache[str, str](ttl_s=60), Source()
    source.gate.clear()
    early = asyncio.ensure_future(cache.load("a", source.fetch))
    await asyncio.sleep(0.01)
    cache.drop(lambda key, _: key == "unrelated")  # what is being loaded may be what changed: nobody can tell
    source.value = "new"
    slow, source.gate = source.gate, asyncio.Event()
    source.gate.set()
    assert await cache.load("a", source.fetch) == "new"
    slow.set()
    assert await early == "old"
    assert cache.get("a") == "new"
    assert source.loads == 2


async def test_a_drop_forgets_what_matches_and_no_more() -> None:
    cache, source = TtlCache[str, str](ttl_s=60), Source()
    for key in ("a", "b"):
        await cache.load(key, source.fetch)
    cache.drop(lambda key, value: key == "a" and value == "old")
    assert (cache.get("a"), cache.get("b")) == (None, "old")
    cache.drop()
    assert cache.get("b") is None


async def test_an_error_is_not_kept() -> None:
    cache, source = TtlCache[str, str](ttl_s=60), Source()

    async def fail() -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.load("a", fail)
    assert await cache.load("a", source.fetch) == "old"


async def test_it_never_holds_more_than_its_bound() -> None:
    cache, source = TtlCache[int, str](ttl_s=60, max_size=3), Source()
    for key in range(10):
        await cache.load(key, source.fetch)
        assert cache.get(key) == "old"
        assert sum(cache.get(other) is not None for other in range(10)) <= 3


class Listener:
    """Records invalidations."""

    def __init__(self) -> None:
        self.told: list[UUID | None] = []
        self.news = asyncio.Event()

    def __call__(self, tenant_id: UUID | None) -> None:
        self.told.append(tenant_id)
        self.news.set()

    async def next(self) -> list[UUID | None]:
        """Returns the invalidations since the last call, once there is one."""
        async with asyncio.timeout(PATIENCE_S):
            await self.news.wait()
        told, self.told = self.told, []
        self.news.clear()
        return told


@pytest.fixture
def valkey(private_valkey: Callable[..., Valkey]) -> Valkey:
    """A private Redis: pub/sub reaches all databases of a server, hence all workers."""
    return private_valkey(appendonly="no")


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """Its URL."""
    return valkey.url


@pytest.fixture
async def listening(redis_url: str) -> AsyncIterator[Callable[[], Awaitable[tuple[Changes, Listener]]]]:
    """Starts a listening process and waits for its first invalidation."""
    made: list[tuple[Changes, Redis]] = []

    async def make() -> tuple[Changes, Listener]:
        redis = Redis.from_url(redis_url)
        changes, listener = Changes(redis), Listener()
        made.append((changes, redis))
        changes.subscribe(listener)
        await changes.start()
        assert set(await listener.next()) == {None}  # news from before it listened were missed
        return changes, listener

    yield make
    for changes, redis in made:
        await changes.stop()
        await redis.aclose()


async def test_news_reach_every_process(
    listening: Callable[[], Awaitable[tuple[Changes, Listener]]],
) -> None:
    (here, mine), (_, theirs) = await listening(), await listening()
    tenant = uuid4()
    await here.publish(tenant)
    assert mine.told[0] == tenant  # at once, not by way of Redis
    assert await theirs.next() == [tenant]
    await here.publish(None)
    assert await theirs.next() == [None]


async def test_what_cannot_be_read_may_concern_anybody(
    listening: Callable[[], Awaitable[tuple[Changes, Listener]]], redis_url: str
) -> None:
    _, theirs = await listening()
    async with Redis.from_url(redis_url) as redis:
        await redis.publish(CHANNEL, "no tenant")
    assert await theirs.next() == [None]
    async with Redis.from_url(redis_url) as redis:
        await redis.publish(CHANNEL, b"\xff\xfe")
    assert await theirs.next() == [None]


async def test_a_connection_that_was_away_drops_everything(
    listening: Callable[[], Awaitable[tuple[Changes, Listener]]], redis_url: str
) -> None:
    (here, mine), (_, theirs) = await listening(), await listening()
    for _ in range(3):
        async with Redis.from_url(redis_url) as redis:
            assert await redis.client_kill_filter(_type="pubsub") == 2
        for listener in (mine, theirs):
            assert await listener.next() == [None]
    tenant = uuid4()
    await here.publish(tenant)
    assert await theirs.next() == [tenant]


async def test_everything_is_dropped_once_news_are_heard_and_not_before(valkey: Valkey) -> None:
    """Messages between a subscription's request and its confirmation may be lost."""
    async with Redis.from_url(valkey.url) as redis:
        await redis.ping()
        changes, listener = Changes(redis), Listener()
        changes.subscribe(listener)
        valkey.pause()
        await changes.start()
        await asyncio.sleep(0.1)
        assert listener.told == []
        valkey.resume()
        assert await listener.next() == [None]
        await changes.stop()


async def test_news_while_redis_is_away_are_no_error() -> None:
    async with Redis.from_url("redis://127.0.0.1:1/0") as redis:
        changes, listener = Changes(redis), Listener()
        changes.subscribe(listener)
        tenant = uuid4()
        await changes.publish(tenant)
        assert listener.told == [tenant]
