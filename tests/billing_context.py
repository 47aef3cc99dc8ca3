"""A billing context in the test's process, on its database, Redis and Razorpay's simulator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from billing.context import BillingContext, build_billing_context
from core.postgres.database import Database
from core.redis.changes import Changes
from core.settings import Settings
from tests import simulated_razorpay as sandbox


@asynccontextmanager
async def open_billing_context(
    database_url: str, redis_url: str, razorpay: sandbox.Razorpay, **settings: Any
) -> AsyncIterator[BillingContext]:
    """Default settings except those given; closed at the end of the block."""
    chosen = Settings(
        _env_file=None,
        database_url=database_url,
        redis_url=redis_url,
        store_deadline_s=30,  # a busy machine is no outage
        razorpay_key_id=sandbox.KEY_ID,
        razorpay_key_secret=sandbox.KEY_SECRET,
        razorpay_base_url=razorpay.url,
        **settings,
    )
    database, redis = Database(database_url, timeout_s=30), Redis.from_url(redis_url)
    made = build_billing_context(chosen, database, Changes(redis))
    try:
        yield made
    finally:
        made.razorpay.close()
        await redis.aclose()
        await database.close()
