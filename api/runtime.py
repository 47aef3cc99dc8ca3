"""Composition of one API process: builds the parts, starts and stops them.

Postgres down at the start: `Runtime.start` raises. Redis down: the process starts, and Postgres admits.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from api.auth.identities import Identities
from api.auth.oidc import OidcClient
from api.auth.sign_in_state import SignInState
from api.auth.sign_in_throttle import SignInThrottle
from api.gateway.idle_monitor import IdleMonitor
from api.observability.metrics import ProcessStats, build_metrics
from api.observability.tracing import build_tracing
from api.pools import CONNECTIONS, Pools
from billing.account import ensure_same_mode
from billing.context import build_billing_context
from billing.webhooks.inbox import Inbox
from core.clock import follow_test_clock
from core.errors import Unavailable
from core.figures import group_digits
from core.identity.delegation import Delegations
from core.identity.end_users import EndUsers
from core.identity.token_secrets import TokenSecrets
from core.ids import uuid7
from core.logs import get_logger
from core.postgres.database import Connections, Database
from core.redis.changes import Changes
from core.redis.client import connect_redis
from core.resilience.rates import Rate
from core.settings import Settings
from core.tenancy.directory import Directory
from metering.admission.admission import Admission, AdmissionRules
from metering.admission.budget_status import BudgetStatusReader
from metering.admission.entitlements import Entitlements
from metering.admission.expired_holds import ExpiredHolds
from metering.admission.limit_status import LimitStatusReader
from metering.admission.postgres_grants import PostgresGrants
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_grants import RedisGrants
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.admission.refusals import RefusalCounter
from metering.budgets.opens import BudgetedOpens
from metering.budgets.tag_limits import TagLimitCache
from metering.journal.in_flight import InFlight
from metering.journal.journal import Journal
from metering.journal.partitions import ensure_partitions
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Settlement
from metering.journal.spool import Spool
from metering.pricing.price_list import PriceList
from metering.quota.default_limits import default_limits
from metering.quota.windows import Calendar
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.heartbeat import Heartbeat
from metering.settlement.output_rates import OutputRates
from metering.settlement.recovery import Recovery
from metering.settlement.replay import Replay
from metering.settlement.settlement import Settlements
from metering.settlement.token_counting import OutputCounter
from metering.tags.resolution import TagResolver

if TYPE_CHECKING:  # the command line imports this module, and does not need Anthropic's SDK
    from api.gateway.idempotency.store import RunStore
    from api.gateway.upstream.client import Upstream

_PRICE_TTL_S = 60

log = get_logger(__name__)


class Metering:
    """The parts that admit, settle and recover metered requests. Built without connecting."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        pool: Connections,
        *,
        directory: Directory,
        upstream: "Upstream",
        on_settled: Callable[[Settlement, UsageRecorder], None],
    ) -> None:
        self._activity_log = directory.activity_log
        calendar, process_id, densities = Calendar(settings.timezone), uuid7(), CharsPerToken()
        url, timeout_s = settings.postgres, settings.store_deadline_s
        self.prices = prices = PriceList(database, ttl_s=_PRICE_TTL_S)
        self.entitlements = Entitlements(database, ttl_s=settings.directory_ttl_s, defaults=default_limits(settings))
        self.tags = TagResolver(database, ttl_s=settings.directory_ttl_s)
        self.in_flight = in_flight = InFlight()
        self.spool = Spool(settings.spool_dir, process_id)
        self.journal = Journal(url, timeout_s=timeout_s, process_id=process_id, spillover=self.spool)
        self.quota = quota = QuotaScripts(RedisPipeline(settings.redis_url, timeout_s=settings.redis_timeout_s))
        rebuilder = Rebuilder(pool, quota, calendar)
        self.postgres_grants = PostgresGrants(
            url, process_id=process_id, running=in_flight, calendar=calendar, timeout_s=timeout_s
        )
        self.budgeted_opens = BudgetedOpens(database, url, process_id=process_id, timeout_s=timeout_s)
        self.tag_limits = TagLimitCache(database, ttl_s=settings.directory_ttl_s)
        self.refusals = RefusalCounter(calendar)
        self.expired_holds = ExpiredHolds(pool, quota)
        self.admission = Admission(
            RedisGrants(
                quota,
                self.journal,
                self.expired_holds,
                running=in_flight,
                calendar=calendar,
                budgeted=self.budgeted_opens,
            ),
            self.postgres_grants,
            rebuilder=rebuilder,
            breaker=quota.pipeline.breaker,
            entitlements=self.entitlements,
            prices=prices,
            tags=self.tags,
            tag_limits=self.tag_limits,
            rules=AdmissionRules(
                smallest_grant=settings.min_grant_tokens,
                ttl_ms=settings.request_deadline_s * 1000,
                counts_per_minute=settings.count_calls_per_minute,
            ),
        )
        rates = OutputRates()
        counter = OutputCounter(upstream.count_output, densities, rates)
        self.settlements = Settlements(
            self.journal,
            quota,
            prices,
            pool,
            in_flight=in_flight,
            spool=self.spool,
            counter=counter,
            on_settled=on_settled,
        )
        self.heartbeat = Heartbeat(
            pool,
            in_flight,
            densities,
            process_id,
            every_s=settings.heartbeat_s,
            after_beat=self._write_counts,
            output_rates=rates,
        )
        self.recovery = Recovery(
            pool,
            quota,
            prices,
            densities,
            process_id=process_id,
            in_flight=in_flight,
            dead_after_s=settings.dead_after_s,
        )
        self.replay = Replay(pool, quota, settings.spool_dir, spool=self.spool, in_flight=in_flight)
        self.limit_status = LimitStatusReader(quota, rebuilder, self.entitlements, calendar, pool)
        self.budget_status = BudgetStatusReader(self.tags, self.tag_limits, calendar, pool)

    async def start(self) -> None:
        """Registers the process and starts the background tasks."""
        await self.heartbeat.start()
        self.journal.start()
        self.postgres_grants.start()
        self.budgeted_opens.start()
        self.quota.pipeline.start()
        self.recovery.start()
        self.replay.start()

    async def stop(self) -> None:
        """Settles what is left; each part stops before the parts it uses."""
        await self.recovery.stop()
        await self.settlements.stop()
        await self.expired_holds.stop()
        await self.postgres_grants.stop()
        await self.budgeted_opens.stop()
        await self.journal.stop()
        await self._settle_orphans()
        await self.replay.stop()
        await self.heartbeat.stop()
        await self.quota.pipeline.stop()

    async def _write_counts(self, pool: Connections) -> None:
        """Writes what is counted in memory, after each heartbeat and at the end. Raises Unavailable."""
        try:
            await self._activity_log.flush(pool)
        finally:
            await self.refusals.flush(pool)

    async def _settle_orphans(self) -> None:
        """Settles rows that Postgres opened for requests cancelled meanwhile; without Postgres another process does."""
        try:
            await self.recovery.recover_orphans()
        except Unavailable as error:
            log.warning("orphans_left", error=type(error).__name__)


class Runtime:
    """Everything that lives as long as the process. Built without connecting."""

    def __init__(self, settings: Settings) -> None:
        from api.gateway.messages.models import AllowedModels, ModelDetails  # noqa: PLC0415 - as above
        from api.gateway.upstream.client import Upstream  # noqa: PLC0415
        from core.identity.issuer_tokens import IssuerTokens  # noqa: PLC0415
        from core.identity.tokens import Tokens  # noqa: PLC0415 - imports the library that signs

        if settings.test_clock_file is not None:
            follow_test_clock(settings.test_clock_file)
        group_digits(settings.digit_grouping)
        url, timeout_s = settings.postgres, settings.store_deadline_s
        self.settings = settings
        self.pools = pools = Pools.of(settings)
        self.rate = Rate(settings.admin_requests_per_minute)
        """Rate of unmetered calls, per key."""
        self.database, self.reports = (
            Database(url, pool_size=size, timeout_s=timeout_s, session_s=timeout_s, shares=shares)
            for size, shares in (
                (settings.database_pool_size, pools.database),
                (settings.report_pool_size, pools.reports),
            )
        )
        self.pool = Connections(url, max_size=CONNECTIONS, timeout_s=timeout_s, shares=pools.connections)
        self.redis = connect_redis(settings.redis_url, timeout_s=settings.redis_timeout_s)
        self.changes = Changes(self.redis)
        self.runs = _build_runs(settings, self.redis)
        """The runs of idempotent requests; None when the setting is off."""
        self.directory = Directory(self.database, ttl_s=settings.directory_ttl_s)
        ttl_s = settings.directory_ttl_s
        self.end_users = EndUsers(self.database, ttl_s=ttl_s)
        self.tokens = Tokens(TokenSecrets(self.database, ttl_s=ttl_s), Delegations(self.database), ttl_s=ttl_s)
        self.issuer_tokens = IssuerTokens(self.database, settings, self.end_users)
        self.identities = Identities(self.directory, self.end_users, [self.tokens, self.issuer_tokens])
        self.upstream = Upstream(settings, pools.counts)
        self.metrics = build_metrics(settings)
        self.metering = Metering(
            settings,
            self.database,
            self.pool,
            directory=self.directory,
            upstream=self.upstream,
            on_settled=self.metrics.settled,
        )
        self.idle_monitor = IdleMonitor(
            comment_after_s=settings.chat_keepalive_s, give_up_after_s=settings.upstream_read_timeout_s
        )
        self.billing = build_billing_context(settings, self.database, self.changes)
        self.inbox = Inbox(
            self.pool,
            settings.razorpay_webhook_secret,
            max_age_s=settings.razorpay_webhook_max_age_s if settings.test_clock_file is None else None,
        )
        self.sign_in_throttle = SignInThrottle(self.redis)
        self.oidc = OidcClient(settings)
        self.sign_in_state = SignInState(self.redis)
        self.model_details = ModelDetails(self.upstream)
        self.allowed_models = AllowedModels(self.metering.prices, self.metering.entitlements)
        self.tracing = build_tracing(settings)

    async def start(self) -> None:
        """Connects and starts the background tasks. Raises STORE_ERRORS when Postgres is down."""
        await self.pool.start()
        async with self.pool.acquire() as connection:
            await ensure_partitions(connection)
        await ensure_same_mode(self.database, self.settings)
        self.changes.subscribe(self.identities.forget)
        self.changes.subscribe(self.metering.entitlements.forget)
        self.changes.subscribe(self.metering.prices.forget)
        self.changes.subscribe(self.metering.tags.forget)
        self.changes.subscribe(self.metering.tag_limits.forget)
        await self.metering.start()
        self.idle_monitor.start()
        if self.runs is not None:
            self.runs.start()
        await self.changes.start()
        self.metrics.start(self.stats)

    async def stop(self) -> None:
        """Settles what is left, then closes every connection."""
        await self.idle_monitor.stop()
        await self.issuer_tokens.stop()
        if self.runs is not None:
            await self.runs.stop()
        await self.metering.stop()
        await self.changes.stop()
        await self.inbox.stop()
        await self.model_details.stop()
        await self.oidc.close()
        await self.upstream.close()
        self.billing.razorpay.close()
        await self.redis.aclose()
        await self.pool.close()
        await self.database.close()
        await self.reports.close()
        self.metrics.close()
        if self.tracing is not None:
            await self.tracing.stop()

    def stats(self) -> ProcessStats:
        """Returns the gauges of this process."""
        metering = self.metering
        return ProcessStats(
            in_flight=len(metering.in_flight),
            spooled=len(metering.spool.pending),
            poisoned=metering.spool.count_poisoned(),
            journal={
                "open": metering.journal.opens.depth,
                "settle": metering.journal.settlements.depth,
                "fallback": metering.postgres_grants.depth,
                "budget": metering.budgeted_opens.committer.depth,
            },
            fallback_tenants=metering.postgres_grants.tenants,
            redis_given_up=metering.quota.pipeline.breaker.is_open,
            webhooks_refused=self.inbox.refusals.count,
            webhooks_stale=self.inbox.stale.count,
            pools={pool.pool: (pool.taken, pool.refused) for pool in self.pools},
        )


def _build_runs(settings: Settings, redis: "Redis") -> "RunStore | None":
    """Returns the store of idempotent runs, if they are on."""
    if not settings.idempotency_minutes:
        return None
    from api.gateway.idempotency.store import RunStore  # noqa: PLC0415 - imports cryptography

    return RunStore(settings, redis)
