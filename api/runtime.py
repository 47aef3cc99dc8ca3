"""The parts of one API process, put together once. Nothing else builds them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from api.auth.sign_in_throttle import SignInThrottle
from api.gateway.idle_monitor import IdleMonitor
from api.observability.metrics import Instruments, ProcessStats, build_instruments
from api.observability.tracing import Tracing, build_tracing
from api.pools import CONNECTIONS, Pools
from billing.account import ensure_same_mode
from billing.context import BillingContext, build_billing_context
from billing.webhooks.inbox import Inbox
from core.clock import follow_test_clock
from core.errors import Unavailable
from core.ids import uuid7
from core.logs import get_logger
from core.postgres.database import Connections, Database
from core.redis.changes import Changes
from core.redis.client import connect_redis
from core.resilience.rates import Rate
from core.settings import Settings
from core.tenancy.directory import Directory
from metering.admission.admission import Admission, AdmissionRules
from metering.admission.entitlements import Entitlements
from metering.admission.expired_holds import ExpiredHolds
from metering.admission.limit_status import LimitStatusReader
from metering.admission.postgres_grants import PostgresGrants
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_grants import RedisGrants
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.in_flight import InFlight
from metering.journal.journal import Journal
from metering.journal.partitions import ensure_partitions
from metering.journal.spool import Spool
from metering.pricing.price_list import PriceList
from metering.quota.default_limits import default_limits
from metering.quota.windows import Calendar
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.heartbeat import Heartbeat
from metering.settlement.recovery import Recovery
from metering.settlement.replay import Replay
from metering.settlement.settlement import Settlements
from metering.settlement.token_counting import OutputCounter

if TYPE_CHECKING:  # the command line shares the routes' operations, and need not wait for Anthropic's SDK
    from api.gateway.upstream import Upstream

_PRICE_TTL_S = 60

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that lives as long as the process."""

    settings: Settings
    pools: Pools
    rate: Rate
    """How often a key may call what is not metered."""
    database: Database
    lookups: Database
    reports: Database
    redis: "Redis"
    changes: Changes
    directory: Directory
    calendar: Calendar
    prices: PriceList
    entitlements: Entitlements
    journal: Journal
    quota: QuotaScripts
    lapses: ExpiredHolds
    fallback: PostgresGrants
    admission: Admission
    settlements: Settlements
    running: InFlight
    spool: Spool
    heartbeat: Heartbeat
    recovery: Recovery
    replay: Replay
    standings: LimitStatusReader
    upstream: "Upstream"
    silence: IdleMonitor
    pool: Connections
    billing: BillingContext
    inbox: Inbox
    attempts: SignInThrottle
    instruments: Instruments
    tracing: Tracing | None

    async def start(self) -> None:
        """Connects and starts what runs by itself. Raises what Postgres raises when it is not there."""
        await self.pool.start()
        async with self.pool.acquire() as connection:
            await ensure_partitions(connection)
        await ensure_same_mode(self.database, self.settings)
        self.changes.subscribe(self.directory.forget)
        self.changes.subscribe(self.entitlements.forget)
        self.changes.subscribe(self.prices.forget)
        await self.heartbeat.start()
        self.journal.start()
        self.fallback.start()
        self.quota.lane.start()
        self.recovery.start()
        self.replay.start()
        self.silence.start()
        await self.changes.start()
        self.instruments.start(self.standing)

    async def stop(self) -> None:
        """Settles what is left, then closes everything, in the order of dependence."""
        await self.silence.stop()
        await self.recovery.stop()
        await self.settlements.stop()
        await self.lapses.stop()
        await self.fallback.stop()
        await self.journal.stop()
        await self._settle_orphans()
        await self.replay.stop()
        await self.heartbeat.stop()
        await self.changes.stop()
        await self.quota.lane.stop()
        await self.inbox.stop()
        await self.upstream.close()
        self.billing.razorpay.close()
        await self.redis.aclose()
        await self.pool.close()
        for database in (self.database, self.lookups, self.reports):
            await database.close()
        self.instruments.close()
        if self.tracing is not None:
            await self.tracing.stop()

    def standing(self) -> ProcessStats:
        """How this process stands, for whoever scrapes."""
        return ProcessStats(
            running=len(self.running),
            spooled=len(self.spool.pending),
            poisoned=self.spool.count_poisoned(),
            journal={
                "open": self.journal.opens.depth,
                "settle": self.journal.settlements.depth,
                "fallback": self.fallback.depth,
            },
            fallback_tenants=self.fallback.tenants,
            redis_given_up=self.quota.lane.breaker.is_open,
            webhooks_refused=self.inbox.refusals.count,
            webhooks_stale=self.inbox.stale.count,
            pools={pool.pool: (pool.taken, pool.refused) for pool in self.pools},
        )

    async def _settle_orphans(self) -> None:
        """What Postgres opened for requests that were cancelled meanwhile. It is away: another's recovery does it."""
        try:
            await self.recovery.recover_orphans()
        except Unavailable as error:
            log.warning("orphans_left", error=type(error).__name__)


def build_runtime(settings: Settings) -> Runtime:
    """Puts the parts together; connects nothing yet."""
    from api.gateway.upstream import Upstream  # noqa: PLC0415 - as above

    if settings.test_clock_file is not None:
        follow_test_clock(settings.test_clock_file)
    url, timeout_s = settings.postgres, settings.store_deadline_s
    pools = Pools.of(settings)
    database, lookups, reports = (
        Database(url, pool_size=size, timeout_s=timeout_s, session_s=timeout_s, shares=shares)
        for size, shares in (
            (settings.database_pool_size, pools.database),
            (settings.lookup_pool_size, pools.lookups),
            (settings.report_pool_size, pools.reports),
        )
    )
    pool = Connections(url, max_size=CONNECTIONS, timeout_s=timeout_s, shares=pools.connections)
    redis = connect_redis(settings.redis_url, timeout_s=settings.redis_timeout_s)
    changes = Changes(redis)
    calendar = Calendar(settings.timezone)
    prices = PriceList(lookups, ttl_s=_PRICE_TTL_S)
    entitlements = Entitlements(lookups, ttl_s=settings.directory_ttl_s, defaults=default_limits(settings))
    process_id, running, densities = uuid7(), InFlight(), CharsPerToken()
    directory = Directory(lookups, ttl_s=settings.directory_ttl_s)
    spool = Spool(settings.spool_dir, process_id)
    journal = Journal(url, timeout_s=settings.store_deadline_s, process_id=process_id, refuge=spool)
    quota = QuotaScripts(RedisPipeline(settings.redis_url, timeout_s=settings.redis_timeout_s))
    epochs = Rebuilder(pool, quota, calendar)
    fallback = PostgresGrants(
        url, process_id=process_id, running=running, calendar=calendar, timeout_s=settings.store_deadline_s
    )
    lapses = ExpiredHolds(pool, quota)
    rules = AdmissionRules(
        smallest_grant=settings.min_grant_tokens,
        ttl_ms=settings.request_deadline_s * 1000,
        counts_per_minute=settings.count_calls_per_minute,
    )
    upstream = Upstream(settings, pools.counts)
    counter = OutputCounter(upstream.count_output, densities)
    instruments, tracing = build_instruments(settings), build_tracing(settings)
    return Runtime(
        settings=settings,
        pools=pools,
        rate=Rate(settings.admin_requests_per_minute),
        database=database,
        lookups=lookups,
        reports=reports,
        redis=redis,
        changes=changes,
        directory=directory,
        calendar=calendar,
        prices=prices,
        entitlements=entitlements,
        journal=journal,
        quota=quota,
        lapses=lapses,
        fallback=fallback,
        admission=Admission(
            RedisGrants(quota, journal, epochs, lapses, running=running, calendar=calendar),
            fallback,
            entitlements=entitlements,
            prices=prices,
            rules=rules,
        ),
        settlements=Settlements(
            journal,
            quota,
            prices,
            pool,
            running=running,
            spool=spool,
            counter=counter,
            on_settled=instruments.settled,
        ),
        running=running,
        spool=spool,
        heartbeat=Heartbeat(
            pool, running, densities, process_id, every_s=settings.heartbeat_s, rider=directory.traces.flush
        ),
        recovery=Recovery(
            pool,
            quota,
            prices,
            densities,
            process_id=process_id,
            running=running,
            dead_after_s=settings.dead_after_s,
        ),
        replay=Replay(pool, quota, settings.spool_dir, spool=spool, running=running),
        standings=LimitStatusReader(quota, epochs, entitlements, calendar, pool),
        upstream=upstream,
        silence=IdleMonitor(
            comment_after_s=settings.chat_keepalive_s, give_up_after_s=settings.upstream_read_timeout_s
        ),
        pool=pool,
        billing=build_billing_context(settings, database, changes),
        inbox=Inbox(
            pool,
            settings.razorpay_webhook_secret,
            max_age_s=settings.razorpay_webhook_max_age_s if settings.test_clock_file is None else None,
        ),
        attempts=SignInThrottle(redis),
        instruments=instruments,
        tracing=tracing,
    )
