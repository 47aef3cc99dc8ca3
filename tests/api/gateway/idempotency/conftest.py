"""The stores of two processes, on a real Redis."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from api.gateway.idempotency.store import RunStore
from core.settings import Settings

LEASE_S = 0.4
ANSWER, TENANT = 2_000, 6_000


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator["Redis"]:
    """The server itself."""
    async with Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
async def stores(redis_url: str, redis: "Redis") -> AsyncIterator[tuple[RunStore, RunStore]]:
    """The stores of two processes."""
    given: dict[str, Any] = {
        "redis_url": redis_url,
        "redis_timeout_s": 10,
        "heartbeat_s": LEASE_S / 4,
        "dead_after_s": LEASE_S,
        "idempotency_minutes": 1,
        "idempotency_answer_max_bytes": ANSWER,
        "idempotency_tenant_max_bytes": TENANT,
    }
    made = [RunStore(Settings(_env_file=None, **given), redis) for _ in range(2)]
    for store in made:
        store.start()
    yield made[0], made[1]
    for store in made:
        await store.stop()
