"""Checks before `naka serve` or `naka worker` starts; each failure is one line.

A check that needs Redis passes while Redis is down.
"""

import tempfile
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.postgres.connection import check_pooler
from core.redis.mode import refused_mode
from core.settings import Settings, SettingsError


async def check_start(settings: Settings) -> None:
    """Raises SettingsError, UnexpectedPooler, or what Postgres raises."""
    check_spool(settings.spool_dir)
    await check_redis(settings)
    if settings.database_pooler == "none":
        await check_pooler(settings.postgres, timeout_s=settings.store_deadline_s)


def check_spool(folder: Path) -> None:
    """Creates the folder, and a file in it. Raises SettingsError when settlements could not be stored there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"SPOOL_DIR cannot be used: {error.strerror or type(error).__name__}") from None


async def check_redis(settings: Settings) -> None:
    """Raises SettingsError for an invalid URL, and for a server in a mode that Naka does not support."""
    timeout_s = settings.redis_timeout_s
    try:
        redis = Redis.from_url(settings.redis_url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s)
        redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):
        raise SettingsError("REDIS_URL has an unknown parameter, or one of a wrong type") from None
    try:
        refused = refused_mode(await redis.info("server"))
    except (RedisError, OSError):
        return  # down or refusing: Postgres admits requests meanwhile, and the reason is logged there
    finally:
        await redis.aclose()
    if refused is not None:
        raise SettingsError(f"REDIS_URL names {refused}")
