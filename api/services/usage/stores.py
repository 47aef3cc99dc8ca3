"""Connections to Postgres and Redis for the maintenance commands: metering's own kind, beside the context's pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.postgres.database import Connections
from core.settings import Settings
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts

_CONNECTIONS = 2


@asynccontextmanager
async def open_stores(
    settings: Settings, *, redis_timeout_s: float
) -> AsyncIterator[tuple[Connections, QuotaScripts | None]]:
    """Both stores for the block; None for a Redis that is not set. Raises STORE_ERRORS when Postgres is down."""
    connections = Connections(settings.postgres, max_size=_CONNECTIONS, timeout_s=settings.store_deadline_s)
    pipeline = RedisPipeline(settings.redis_url, timeout_s=redis_timeout_s) if settings.redis_url else None
    try:
        await connections.start()
        if pipeline is not None:
            pipeline.start()
        yield connections, None if pipeline is None else QuotaScripts(pipeline)
    finally:
        if pipeline is not None:
            await pipeline.stop()
        await connections.close()
