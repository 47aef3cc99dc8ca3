"""The cache of issuers' keys: rotation, rate of unknown ids, servers that are away, hostile, slow."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from core.identity import jwks as jwks_module
from core.identity.jwks import MAX_BYTES, JwksCache, KeySource, KeysUnavailable, UnknownKey
from core.ids import uuid7
from core.resilience.rates import RateLimited
from core.settings import Settings
from tests.core.identity.idp import JwksServer, jwks, new_key, serve_jwks

OLD, NEW = new_key("ES256", "old"), new_key("ES256", "new")


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with serve_jwks() as found:
        found.body = jwks(OLD)
        yield found


@asynccontextmanager
async def caching(**settings: Any) -> AsyncIterator[JwksCache]:
    cache = JwksCache(Settings(**{"naka_env": "development", "jwks_timeout_s": 1, **settings}))
    try:
        yield cache
    finally:
        await cache.stop()


def source(url: str) -> KeySource:
    return KeySource(uuid7(), uuid7(), url)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


async def test_keys_are_fetched_once_for_all_who_wait(server: JwksServer) -> None:
    server.delay_s = 0.1
    async with caching() as cache:
        one = source(server.url)
        assert cache.peek(one, "old", "ES256") is None
        found = await asyncio.gather(*(cache.find(one, "old", "ES256") for _ in range(50)))
        assert server.count == 1
        assert all(each is found[0] for each in found)
        assert cache.peek(one, "old", "ES256") is found[0]


async def test_a_new_key_is_found_at_once_and_a_removed_one_is_refused(server: JwksServer) -> None:
    async with caching() as cache:
        one = source(server.url)
        await cache.find(one, "old", "ES256")
        server.body = jwks(NEW)
        found = await asyncio.gather(*(cache.find(one, "new", "ES256") for _ in range(50)))
        assert (server.count, found[0].kid) == (2, "new")
        with pytest.raises(UnknownKey):
            await cache.find(one, "old", "ES256")


@pytest.mark.slow
async def test_keys_are_fetched_again_while_they_are_used_and_nobody_waits(server: JwksServer) -> None:
    async with caching(jwks_refresh_s=1) as cache:
        one = source(server.url)
        found = await cache.find(one, "old", "ES256")
        server.delay_s, server.body = 0.3, jwks(OLD, NEW)
        await asyncio.sleep(1.05)
        began_s = time.monotonic()
        assert await cache.find(one, "old", "ES256") is found
        assert time.monotonic() - began_s < 0.2
        await until(lambda: cache.peek(one, "new", "ES256"))
        assert server.count == 2
        assert cache.peek(one, "old", "ES256") is found  # an unchanged key stays the same object


async def test_a_flood_of_invented_ids_fetches_at_a_bounded_rate(server: JwksServer) -> None:
    async with caching() as cache:
        one, other = source(server.url), source(server.url)
        refusals: list[type[BaseException]] = []
        for number in range(200):
            with pytest.raises((UnknownKey, RateLimited)) as refused:
                await cache.find(one, f"invented-{number}", "ES256")
            refusals.append(refused.type)
        assert 10 <= server.count <= 12
        assert refusals.count(RateLimited) >= 188
        assert (await cache.find(one, "old", "ES256")).kid == "old"  # the known key goes on
        assert (await cache.find(other, "old", "ES256")).kid == "old"  # and so does another issuer


async def test_an_invented_id_at_a_slow_server_holds_up_no_known_key(server: JwksServer) -> None:
    async with caching() as cache:
        one = source(server.url)
        await cache.find(one, "old", "ES256")
        server.delay_s = 0.5
        waiting = [asyncio.create_task(cache.find(one, "invented", "ES256")) for _ in range(300)]
        await asyncio.sleep(0.05)
        began_s = time.monotonic()
        assert (await cache.find(one, "old", "ES256")).kid == "old"
        assert time.monotonic() - began_s < 0.2
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert sum(isinstance(each, UnknownKey) for each in refused) == 200
        assert sum(isinstance(each, KeysUnavailable) for each in refused) == 100  # more than may wait


@pytest.mark.slow
async def test_keys_stay_valid_for_a_bounded_time_while_the_server_is_away(server: JwksServer) -> None:
    async with caching(jwks_refresh_s=1, jwks_keep_s=2) as cache:
        one = source(server.url)
        await cache.find(one, "old", "ES256")
        server.status = 503
        await asyncio.sleep(1.1)
        assert (await cache.find(one, "old", "ES256")).kid == "old"
        await until(lambda: server.count > 1)
        with pytest.raises(KeysUnavailable):  # not "unknown": the server might know it
            await cache.find(one, "new", "ES256")
        assert (await cache.find(one, "old", "ES256")).kid == "old"
        await asyncio.sleep(1.0)
        with pytest.raises(KeysUnavailable):
            await cache.find(one, "old", "ES256")
        server.status = 200
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await cache.find(one, "old", "ES256")).kid == "old"
                    break
                except KeysUnavailable as error:
                    await asyncio.sleep(min(error.retry_after_s, 0.2))


async def test_failed_fetches_become_rarer(server: JwksServer) -> None:
    server.status = 500
    async with caching() as cache:
        one = source(server.url)
        for _ in range(100):
            with pytest.raises(KeysUnavailable):
                await cache.find(one, "old", "ES256")
        assert server.count == 1


@pytest.mark.parametrize("fault", ["huge", "slow", "dripping", "redirect", "html", "compressed", "away", "nested"])
async def test_a_hostile_server_gets_a_bounded_share(server: JwksServer, fault: str) -> None:
    with serve_jwks() as inside:  # what a redirect would reach
        inside.body = jwks(OLD)
        match fault:
            case "huge":
                server.body = msgspec.json.encode({"keys": [OLD.as_dict(private=False)], "x": "y" * MAX_BYTES})
            case "slow":
                server.delay_s = 3
            case "dripping":
                server.drips = True
            case "redirect":
                server.status, server.location = 302, inside.url
            case "html":
                server.body = b"<html>" + jwks(OLD)
            case "compressed":
                server.body = gzip.compress(b'{"keys": [' + b" " * 10**7 + b"]}")
            case "nested":
                server.body = b'{"keys": ' + b"[" * 60_000
            case _:
                assert fault == "away"
        url = "http://127.0.0.1:9/jwks" if fault == "away" else server.url
        async with caching() as cache:
            began_s = time.monotonic()
            with pytest.raises(KeysUnavailable):
                await cache.find(source(url), "old", "ES256")
            assert time.monotonic() - began_s < 2
        assert inside.count == 0


@pytest.mark.slow
async def test_one_tenants_slow_servers_delay_no_other_tenant(server: JwksServer) -> None:
    with serve_jwks() as slow:
        slow.delay_s = 2
        async with caching() as cache:
            tenant_id = uuid7()
            theirs = [KeySource(tenant_id, uuid7(), slow.url) for _ in range(30)]
            waiting = [asyncio.create_task(cache.find(each, "old", "ES256")) for each in theirs]
            await asyncio.sleep(0.1)
            assert slow.count <= 4
            began_s = time.monotonic()
            assert (await cache.find(source(server.url), "old", "ES256")).kid == "old"
            assert time.monotonic() - began_s < 0.5
            refused = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(each, KeysUnavailable) for each in refused)


async def test_names_that_hang_do_not_hold_up_the_loops_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **more: Any) -> Any:
        if host == "hangs.example":
            ends.wait(10)
            raise socket.gaierror
        return real(host, *arguments, **more)

    monkeypatch.setattr("core.network.public_addresses.socket.getaddrinfo", look_up)
    try:
        async with caching(naka_env="production") as cache:
            waiting = [
                asyncio.create_task(cache.find(source("https://hangs.example/"), "k", "ES256")) for _ in range(40)
            ]
            await asyncio.sleep(0.1)
            began_s = time.monotonic()
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(4)))  # the loop's own threads are free
            assert time.monotonic() - began_s < 0.5
            refused = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(each, KeysUnavailable) for each in refused)
            assert time.monotonic() - began_s < 4
    finally:
        ends.set()


@pytest.mark.parametrize("url", ["https://127.0.0.1/jwks", "https://localhost/jwks", "https://[::1]/jwks"])
async def test_in_production_no_private_address_is_called(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr("core.network.routes.socket.socket.connect", lambda *_: called.append(1))
    async with caching(naka_env="production") as cache:
        with pytest.raises(KeysUnavailable):
            await cache.find(source(url), "old", "ES256")
    assert called == []


async def test_keys_of_unused_issuers_are_dropped(server: JwksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_module, "_MAX_ISSUERS", 3)
    async with caching() as cache:
        sources = [source(server.url) for _ in range(5)]
        for each in sources:
            await cache.find(each, "old", "ES256")
        assert [cache.peek(each, "old", "ES256") is not None for each in sources[:1] + sources[3:]] == [
            False,
            True,
            True,
        ]


async def test_a_request_that_leaves_does_not_end_the_fetch(server: JwksServer) -> None:
    server.delay_s = 0.2
    async with caching() as cache:
        one = source(server.url)
        leaves = asyncio.create_task(cache.find(one, "old", "ES256"))
        stays = asyncio.create_task(cache.find(one, "old", "ES256"))
        await asyncio.sleep(0.05)
        leaves.cancel()
        assert (await stays).kid == "old"
        assert server.count == 1
