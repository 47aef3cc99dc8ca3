"""The worker's parts, put together once: duties, done at their hours by one worker; and loops, that run in each.

Postgres away at the start: raises, for whoever starts it to say so. Away later: duties wait, and loops look after
themselves; the worker lives until it is told to stop.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from redis.asyncio import Redis

from billing.account import ensure_same_mode
from billing.alerts.alerts import look
from billing.alerts.delivery import deliver
from billing.collection.collection import collect
from billing.context import (
    ALERTS,
    CLOSES,
    COLLECT,
    INBOX,
    LEVELS,
    RAZORPAY,
    SUBSCRIPTIONS,
    BillingContext,
    build_billing_context,
)
from billing.invoicing.period_close import close_due
from billing.reconciliation import reconcile_razorpay
from billing.subscriptions.push import drive
from billing.webhooks.processing import process_due
from billing.webhooks.queries import prune_events
from core.logs import get_logger
from core.postgres.database import Connections, Database
from core.queue import Duty, Queue, forget_jobs
from core.redis.changes import Changes
from core.redis.client import connect_redis
from core.settings import Settings
from core.tenancy.sessions import prune_sessions
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.partitions import ensure_partitions
from metering.pricing.price_list import PriceList
from metering.reconciliation.pruning import prune_processes, prune_reconciliations
from metering.reconciliation.reconcile import run_reconciliation
from metering.reconciliation.retention import detach_old_months
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.recovery import Recovery
from metering.settlement.replay import Replay

_STOP_S = 10  # for all loops and connections together
_JOBS_FOR = timedelta(days=90)
_RECONCILE_BOUND_S = 6 * 3600
_RETAIN_BOUND_S = 2 * 3600
_PRICE_TTL_S = 60
_CLOSE_BOUND_S = 3600

log = get_logger(__name__)


class Loop(Protocol):
    """What runs all the time, in every worker at once."""

    def start(self) -> None:
        """Begins; returns at once."""

    async def stop(self) -> None:
        """Ends, soon."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Everything that lives as long as the process. Loops start in their order, and stop in the reverse one."""

    database: Database
    pool: Connections
    redis: "Redis"
    billing: BillingContext
    queue: Queue
    loops: Sequence[Loop]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises QueueMissing, Unavailable or one of STORE_ERRORS, at its start only."""
        await self.queue.check()
        await self.pool.start()
        async with self.pool.acquire(patient=True) as connection:
            await ensure_partitions(connection)
        await ensure_same_mode(self.billing.database, self.billing.settings)
        for loop in self.loops:
            loop.start()
        log.info("worker_ready")
        try:
            await self.queue.serve(stop)
        finally:
            await self._stop()
        log.info("worker_stopped")

    async def _stop(self) -> None:
        try:
            async with asyncio.timeout(_STOP_S):
                for loop in reversed(self.loops):
                    await loop.stop()
                self.billing.razorpay.close()
                await self.redis.aclose()
                await self.pool.close()
                await self.database.close()
        except TimeoutError:
            log.warning("worker_stopped_hard")


def build_worker(settings: Settings) -> Worker:
    """Puts the parts together; connects nothing yet."""
    timeout_s = settings.store_deadline_s
    pool = Connections(settings.postgres, timeout_s=timeout_s)
    database = Database(settings.postgres, pool_size=settings.database_pool_size, timeout_s=timeout_s)
    redis = connect_redis(settings.redis_url, timeout_s=settings.redis_timeout_s)
    billing = build_billing_context(settings, database, Changes(redis))
    quota = QuotaScripts(RedisPipeline(settings.redis_url, timeout_s=settings.redis_timeout_s))
    prices = PriceList(database, ttl_s=_PRICE_TTL_S)
    return Worker(
        database=database,
        pool=pool,
        redis=redis,
        billing=billing,
        queue=Queue(
            settings.postgres_direct, [*duties(pool, quota, settings), *billing_duties(billing)], timeout_s=timeout_s
        ),
        loops=[
            quota.lane,
            Recovery(pool, quota, prices, CharsPerToken(), dead_after_s=settings.dead_after_s),
            Replay(pool, quota, settings.spool_dir),
        ],
    )


def duties(pool: Connections, quota: QuotaScripts, settings: Settings) -> list[Duty]:
    """What is done at its hour. Each bears being done again."""
    zone = ZoneInfo(settings.timezone)

    async def partitions() -> None:
        async with pool.acquire(patient=True) as connection:
            await ensure_partitions(connection)

    async def retain() -> None:
        await detach_old_months(pool, keep_months=settings.retention_months, drop=settings.retention_drop)

    async def prune() -> None:
        async with pool.acquire(patient=True) as connection:
            await prune_processes(connection)
            await prune_reconciliations(connection)
            await prune_events(connection)
            await prune_sessions(connection)
            await forget_jobs(connection, older_than=_JOBS_FOR)

    async def reconcile() -> None:
        await run_reconciliation(pool, quota)

    return [
        Duty("partitions", "7 * * * *", partitions),
        Duty("retain", "52 * * * *", retain, bound_s=_RETAIN_BOUND_S),
        Duty("prune", "37 * * * *", prune),
        Duty("reconcile", "20 3 * * *", reconcile, zone=zone, bound_s=_RECONCILE_BOUND_S),
    ]


def billing_duties(billing: BillingContext) -> list[Duty]:
    """What moves bills and money. Without a key of Razorpay there is nothing to move."""
    if not billing.settings.razorpay_key_id:
        return []

    async def levels() -> None:
        if await look(billing):
            await billing.post([ALERTS])

    async def closes() -> None:
        await close_due(billing)

    async def compare() -> None:
        await reconcile_razorpay(billing)

    return [
        Duty(INBOX, "* * * * *", lambda: process_due(billing)),
        Duty(SUBSCRIPTIONS, "* * * * *", lambda: drive(billing)),
        Duty(CLOSES, "* * * * *", closes, bound_s=_CLOSE_BOUND_S),
        Duty(COLLECT, "* * * * *", lambda: collect(billing)),
        Duty(LEVELS, "* * * * *", levels),
        Duty(ALERTS, "* * * * *", lambda: deliver(billing)),
        Duty(RAZORPAY, "11 * * * *", compare, bound_s=_CLOSE_BOUND_S),
    ]
