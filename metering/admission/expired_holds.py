"""Holds past their deadline: each counts until Postgres has answered for it.

Postgres knows the request's state: settled (its counts replace the hold; if its process may only sleep, once that time
is over), void (it never ran), open (the hold goes on counting until recovery settles the request), or none: then a void
row makes it impossible first, and only then is the hold released. Postgres or Redis unreachable: the holds stay.
"""

import asyncio
from uuid import UUID

from core.errors import Unavailable
from core.logs import get_logger
from core.postgres.database import Connections
from core.resilience.deadline import unbounded
from metering.admission.redis_scripts import QuotaScripts, tenant_key, user_key
from metering.journal.journal import void_unknown

_AGAIN_MS = 15_000

log = get_logger(__name__)


class ExpiredHolds:
    """Releases the expired holds that admission was told of. One per process."""

    def __init__(self, pool: Connections, quota: QuotaScripts) -> None:
        self._pool = pool
        self._quota = quota
        self._looking: dict[tuple[UUID, UUID], asyncio.Task[int]] = {}

    def look(self, tenant_id: UUID, user_id: UUID) -> "asyncio.Task[int]":
        """Starts a check of the tenant's hash and the user's; one at a time for each pair."""
        pair = (tenant_id, user_id)
        task = self._looking.get(pair)
        if task is None:
            with unbounded():
                task = asyncio.create_task(self._release(tenant_id, user_id))
            self._looking[pair] = task
            task.add_done_callback(lambda _: self._looking.pop(pair, None))
        return task

    async def stop(self) -> None:
        """Ends running checks; the next process checks again."""
        for task in list(self._looking.values()):
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _release(self, tenant_id: UUID, user_id: UUID) -> int:
        """Returns how many holds were released."""
        try:
            keys = (tenant_key(tenant_id), user_key(tenant_id, user_id))
            expired = {hold for key in keys for hold in await self._quota.expired_holds(key, _AGAIN_MS)}
            if not expired:
                return 0
            async with self._pool.acquire() as connection:
                known = await void_unknown(connection, [(tenant_id, request, user) for request, user in expired])
            released = await self._quota.settle_all(
                (tenant_id, user, request_id, known[request_id].counts)
                for request_id, user in expired
                if not known[request_id].holds
            )
        except Unavailable as error:
            log.warning("expired_holds_stay", tenant_id=str(tenant_id), error=type(error).__name__)
            return 0
        log.warning("expired_holds", tenant_id=str(tenant_id), found=len(expired), released=released)
        return released
