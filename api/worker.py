"""Composition of the worker: scheduled jobs, each run by one worker at a time, and loops that run in every worker.

Postgres down at the start: `Worker.run` raises. Down later: jobs and loops wait and retry until the worker is stopped.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from zoneinfo import ZoneInfo

from billing.account import ensure_same_mode
from billing.alerts.alerts import store_alerts
from billing.alerts.delivery import deliver_alerts
from billing.collection.collection import collect
from billing.context import (
    ALERTS,
    CLOSES,
    COLLECT,
    INBOX,
    LEDGER,
    LEVELS,
    MANDATES,
    RAZORPAY,
    SUBSCRIPTIONS,
    THRESHOLDS,
    WALLETS,
    BillingContext,
    build_billing_context,
)
from billing.invoicing.period_close import close_due
from billing.invoicing.threshold_bills import bill_thresholds
from billing.mandates.push import push_mandates
from billing.payments.ledger_check import prove_ledger
from billing.prepaid.wallets import run_wallets
from billing.reconciliation import reconcile_razorpay
from billing.subscriptions.push import push_subscriptions
from billing.webhooks.processing import process_events
from billing.webhooks.queries import prune_events
from core.figures import group_digits
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
from metering.reconciliation.pruning import prune_processes, prune_reconciliations, prune_tag_values
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


class Worker:
    """Everything that lives as long as the process. Built without connecting."""

    def __init__(self, settings: Settings) -> None:
        group_digits(settings.digit_grouping)
        timeout_s = settings.store_deadline_s
        self.pool = pool = Connections(settings.postgres, timeout_s=timeout_s)
        self.database = Database(settings.postgres, pool_size=settings.database_pool_size, timeout_s=timeout_s)
        self.redis = connect_redis(settings.redis_url, timeout_s=settings.redis_timeout_s)
        self.billing = build_billing_context(settings, self.database, Changes(self.redis))
        quota = QuotaScripts(RedisPipeline(settings.redis_url, timeout_s=settings.redis_timeout_s))
        prices = PriceList(self.database, ttl_s=_PRICE_TTL_S)
        scheduled = [*duties(pool, quota, settings), *billing_duties(self.billing)]
        self.queue = Queue(settings.postgres_direct, scheduled, timeout_s=timeout_s)
        self.loops: Sequence[RedisPipeline | Recovery | Replay] = (
            quota.pipeline,
            Recovery(pool, quota, prices, CharsPerToken(), dead_after_s=settings.dead_after_s),
            Replay(pool, quota, settings.spool_dir),
        )
        """Started in order and stopped in reverse order."""

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set. Raises QueueMissing, Unavailable or STORE_ERRORS, at the start only."""
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


def duties(pool: Connections, quota: QuotaScripts, settings: Settings) -> list[Duty]:
    """Scheduled jobs of metering. Each is idempotent."""
    zone = ZoneInfo(settings.timezone)

    async def partitions() -> None:
        async with pool.acquire(patient=True) as connection:
            await ensure_partitions(connection)

    async def prune() -> None:
        async with pool.acquire(patient=True) as connection:
            await prune_processes(connection)
            await prune_reconciliations(connection)
            await prune_tag_values(connection)
            await prune_events(connection)
            await prune_sessions(connection)
            await forget_jobs(connection, older_than=_JOBS_FOR)

    months, drop = settings.retention_months, settings.retention_drop
    return [
        Duty("partitions", "7 * * * *", partitions),
        Duty(
            "retain",
            "52 * * * *",
            lambda: detach_old_months(pool, keep_months=months, drop=drop),
            bound_s=_RETAIN_BOUND_S,
        ),
        Duty("prune", "37 * * * *", prune),
        Duty("reconcile", "20 3 * * *", lambda: run_reconciliation(pool, quota), zone=zone, bound_s=_RECONCILE_BOUND_S),
    ]


def billing_duties(billing: BillingContext) -> list[Duty]:
    """Scheduled jobs of billing; none without a Razorpay key."""
    if not billing.settings.razorpay_key_id:
        return []

    async def levels() -> None:
        if await store_alerts(billing):
            await billing.post([ALERTS])

    return [
        Duty(INBOX, "* * * * *", lambda: process_events(billing)),
        Duty(SUBSCRIPTIONS, "* * * * *", lambda: push_subscriptions(billing)),
        Duty(WALLETS, "* * * * *", lambda: run_wallets(billing)),
        Duty(MANDATES, "* * * * *", lambda: push_mandates(billing)),
        Duty(CLOSES, "* * * * *", lambda: close_due(billing), bound_s=_CLOSE_BOUND_S),
        Duty(THRESHOLDS, "* * * * *", lambda: bill_thresholds(billing), bound_s=_CLOSE_BOUND_S),
        Duty(COLLECT, "* * * * *", lambda: collect(billing)),
        Duty(LEVELS, "* * * * *", levels),
        Duty(ALERTS, "* * * * *", lambda: deliver_alerts(billing)),
        Duty(LEDGER, "41 3 * * *", lambda: prove_ledger(billing), bound_s=_CLOSE_BOUND_S),
        Duty(RAZORPAY, "11 * * * *", lambda: reconcile_razorpay(billing), bound_s=_CLOSE_BOUND_S),
    ]
