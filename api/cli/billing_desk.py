"""Commands of billing: the desk that the worker has, for one command. Its operations make their own transactions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.cli.session import acting, load_database_settings
from billing.desk import Desk, build_desk
from core.changes import Changes
from core.database import Database
from core.logs import configure_logs
from core.redis import connect_redis
from core.settings import Settings, SettingsError
from core.tenancy.audit import Actor

T = TypeVar("T")
_REDIS_TIMEOUT_S = 2


def at_billing(work: Callable[[Desk, Actor], Awaitable[T]]) -> T:
    """Runs `work`. Raises SettingsError without a database or a Redis."""
    configure_logs(level="warning", as_json=False)  # to standard error: the output is the answer alone
    return asyncio.run(_at_billing(work, load_database_settings()))


async def _at_billing(work: Callable[[Desk, Actor], Awaitable[T]], settings: Settings) -> T:
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set")
    timeout_s = settings.store_deadline_s
    redis = connect_redis(settings.redis_url, timeout_s=_REDIS_TIMEOUT_S)
    database = Database(settings.postgres, pool_size=1, timeout_s=timeout_s)
    desk = build_desk(settings, database, Changes(redis))
    try:
        return await work(desk, acting())
    finally:
        desk.razorpay.close()
        await redis.aclose()
        await database.close()
