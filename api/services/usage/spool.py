"""Settlements on this host's disk that Postgres refuses for their own data (poisoned), and their retry.

Other spooled settlements are replayed by any process that sees the folder. Poisoned ones are kept until a person has
fixed the cause and retries them.
"""

import asyncio
from pathlib import Path
from typing import cast

from api.schemas.usage.spool import PoisonedItem, Retried
from api.services.context import ServiceContext
from api.services.usage.stores import open_stores
from core.errors import Unavailable
from core.settings import SettingsError
from core.tenancy.principal import Scope
from metering.admission.redis_scripts import QuotaScripts
from metering.journal import spool
from metering.settlement.replay import Replay

_REDIS_TIMEOUT_S = 2
_TRIES, _TRY_EVERY_S = 50, 0.2


async def list_poisoned(context: ServiceContext) -> list[PoisonedItem]:
    """The settlements that Postgres refuses."""
    context.require(Scope.PLATFORM_ADMIN)
    return [PoisonedItem.of(settlement) for settlement in spool.poisoned(context.settings.spool_dir)]


async def retry_poisoned(context: ServiceContext) -> Retried:
    """Settles them once the cause is fixed; keeps what is refused again. Raises SettingsError without a Redis."""
    context.require(Scope.PLATFORM_ADMIN)
    folder = context.settings.spool_dir
    if not context.settings.redis_url:
        raise SettingsError("REDIS_URL is not set")
    tried = len(spool.poisoned(folder))
    path = spool.retry_poisoned(folder)
    if path is not None:
        await _replay(context, path)
    refused = len(spool.poisoned(folder))
    return Retried(settled=max(0, tried - refused), refused_again=refused)


async def _replay(context: ServiceContext, path: Path) -> None:
    """Returns once the file is replayed, also by another process. Raises Unavailable: then it will be, later."""
    settings = context.settings
    async with open_stores(settings, redis_timeout_s=_REDIS_TIMEOUT_S) as (connections, quota):
        replay = Replay(connections, cast("QuotaScripts", quota), settings.spool_dir)  # `retry_poisoned` asks for Redis
        for _ in range(_TRIES):
            await replay.replay_file(path)
            if path not in spool.abandoned(settings.spool_dir):
                return
            await asyncio.sleep(_TRY_EVERY_S)
        raise Unavailable("another process is still replaying it")
