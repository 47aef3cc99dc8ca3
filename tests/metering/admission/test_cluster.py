"""A Redis Cluster is refused, although every key of a tenant is in one slot and the scripts run there unchanged."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from api.cli.processes.start import check_redis
from api.doctor import stores
from api.doctor.findings import Checkup, Verdict
from core.ids import uuid7
from core.settings import Settings, SettingsError
from metering.admission.redis_pipeline import RedisPipeline, RedisUnavailable
from metering.admission.redis_scripts import tenant_key, user_key
from metering.pricing.tokens import Usage
from metering.quota.counters import WindowState
from sandbox.daemon import free_port
from sandbox.valkey import Valkey
from tests.harness import Books
from tests.metering.process import Process, books_say, redis_counters

START_S = 20


@pytest.fixture
def cluster(private_valkey: Callable[..., Valkey]) -> Iterator[redis.Redis]:
    """A cluster of one node that has all slots."""
    bus = str(free_port())  # the default, port + 10,000, is among the ports of outgoing connections
    server = private_valkey(
        cluster_enabled="yes", cluster_port=bus, cluster_require_full_coverage="no", appendonly="no"
    )
    with redis.Redis.from_url(server.url) as client:
        ask(client, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + START_S
        while b"cluster_state:ok" not in ask(client, "CLUSTER", "INFO", NEVER_DECODE=True):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield client


def url_of(cluster: redis.Redis) -> str:
    at = cluster.connection_pool.connection_kwargs
    return f"redis://:{at['password']}@{at['host']}:{at['port']}/0"


def slot(cluster: redis.Redis, key: str) -> int:
    return int(ask(cluster, "CLUSTER", "KEYSLOT", key))


def ask(client: redis.Redis, *command: object, **options: object) -> Any:
    return client.execute_command(*command, **options)  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_a_tenants_keys_share_a_slot(cluster: redis.Redis) -> None:
    slots = set()
    for _ in range(20):
        tenant = uuid7()
        of_tenant = slot(cluster, tenant_key(tenant))
        assert {slot(cluster, user_key(tenant, uuid7())) for _ in range(5)} == {of_tenant}
        slots.add(of_tenant)
    assert len(slots) > 10  # tenants are spread
    with pytest.raises(redis.ResponseError, match="same slot"):  # the server does check slots
        ask(cluster, "DEL", tenant_key(uuid7()), tenant_key(uuid7()), tenant_key(uuid7()))


@pytest.mark.slow
async def test_the_scripts_run_on_a_cluster(
    cluster: redis.Redis, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Awaitable[Process]], books: Books
) -> None:
    monkeypatch.setattr("metering.admission.redis_pipeline.refused_mode", lambda _: None)
    process = await start(redis=url_of(cluster), ttl_ms=1)
    account = await books.account()
    first = await process.admit(account)  # the tenant's hash and the user's are built
    assert await redis_counters(process.quota, first) == await books_say(books, first)
    await process.settle(first, Usage(1, 2, 3, 4, 5))
    second = await process.admit(account)
    assert (await redis_counters(process.quota, second))[0][1][1].used[:6] == (1, 1, 2, 3, 4, 5)
    assert await redis_counters(process.quota, second) == await books_say(books, second)
    await books.fetch("UPDATE usage_requests SET state = 'void' WHERE id = $1", second.request.id)
    assert await process.expired_holds.look(account.tenant_id, account.user_id) == 1
    after = await redis_counters(process.quota, second)
    assert after == await books_say(books, second)
    assert [state.held for state in after[0][1][1:]] == [(0, 0, 0, 0, 0)] * 2
    for key in (tenant_key(account.tenant_id), user_key(account.tenant_id, account.user_id)):
        assert isinstance(cluster.hget(key, f"d:{second.request.day}"), bytes)
        assert WindowState.unpack(cluster.hget(key, f"d:{second.request.day}")) == after[0][1][1]  # type: ignore[arg-type]


@pytest.mark.slow
async def test_a_node_of_a_cluster_is_refused_at_the_start_and_later_logged_once(
    cluster: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(_env_file=None, redis_url=url_of(cluster))
    with pytest.raises(SettingsError, match="REDIS_URL names a node of a Redis Cluster"):
        await check_redis(settings)
    checkup = Checkup(settings)
    await stores.redis(checkup)
    await checkup.redis.aclose()
    assert [(finding.verdict, finding.says[:29]) for finding in checkup.findings] == [
        (Verdict.FAULT, "a node of a Redis Cluster, wh")
    ]
    # The server was unreachable at the start, and turns out to be a cluster.
    pipeline = RedisPipeline(url_of(cluster), timeout_s=5, probe_s=0.05)
    pipeline.start()
    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            await pipeline.connect()
        pipeline.breaker.succeeded()
    await pipeline.stop()
    await asyncio.sleep(0.01)  # its connections are closed without waiting for it
    assert caplog.text.count("redis_not_supported") == 1


async def test_a_single_server_and_an_unreachable_redis_may_start(redis_url: str) -> None:
    await check_redis(Settings(_env_file=None, redis_url=redis_url))
    await check_redis(Settings(_env_file=None, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(SettingsError, match="parameter"):
        await check_redis(Settings(_env_file=None, redis_url=f"{redis_url}?moon=1"))
