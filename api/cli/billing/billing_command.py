"""Commands of billing: the desk that the worker has, for one command. Its operations make their own transactions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.cli.command import acting, load_database_settings
from billing.context import BillingContext, build_billing_context
from core.logs import configure_logs
from core.postgres.database import Database
from core.redis.changes import Changes
from core.redis.client import connect_redis
from core.settings import Settings, SettingsError
from core.tenancy.audit import Actor

T = TypeVar("T")
_REDIS_TIMEOUT_S = 2


def run_billing_command(work: Callable[[BillingContext, Actor], Awaitable[T]]) -> T:
    """Runs `work`. Raises SettingsError without a database or a Redis."""
    configure_logs(level="warning", as_json=False)  # to standard error: the output is the answer alone
    return asyncio.run(_at_billing(work, load_database_settings()))


async def _at_billing(work: Callable[[BillingContext, Actor], Awaitable[T]], settings: Settings) -> T:
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set")
    timeout_s = settings.store_deadline_s
    redis = connect_redis(settings.redis_url, timeout_s=_REDIS_TIMEOUT_S)
    database = Database(settings.postgres, pool_size=1, timeout_s=timeout_s)
    context = build_billing_context(settings, database, Changes(redis))
    try:
        return await work(context, acting())
    finally:
        context.razorpay.close()
        await redis.aclose()
        await database.close()
