"""Metering as one process has it, without HTTP: what the tests of this folder start, ask and kill.

Everything is real. `Books` (tests.harness) reads what Postgres has; `redis_counters` and `books_say` put
the counters in Redis beside the sums of the rows in Postgres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import ANY
from uuid import UUID

from core.clock import now_ms
from core.ids import uuid7
from core.postgres.database import Connections, Database
from core.tenancy.principal import Principal
from metering.admission.admission import Admission, AdmissionRequest, AdmissionRules
from metering.admission.breaker import Breaker, BreakerRules
from metering.admission.budget_status import BudgetStatusReader
from metering.admission.entitlements import Entitlements
from metering.admission.expired_holds import ExpiredHolds
from metering.admission.limit_status import LimitStatusReader
from metering.admission.postgres_grants import DWELL_S, PostgresGrants
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_grants import RedisGrants
from metering.admission.redis_pipeline import RedisPipeline
from metering.admission.redis_scripts import QuotaScripts
from metering.budgets.opens import BudgetedOpens
from metering.budgets.tag_limits import TagLimitCache
from metering.counts import COUNT_COLUMNS
from metering.journal.in_flight import InFlight
from metering.journal.journal import Journal
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement
from metering.journal.spool import Spool
from metering.pricing.price_list import PriceList
from metering.pricing.tokens import (
    PROMPT_OVERHEAD_TOKENS,
    CacheCreation,
    OutputDetails,
    ReportedUsage,
    ServerToolUse,
    Usage,
    bound_of_text,
    likely_of_text,
)
from metering.quota.counters import ScopeCounters, WindowState
from metering.quota.query import Grant
from metering.quota.schedule import window_of
from metering.quota.windows import MINUTE_MS, Calendar
from metering.settlement.chars_per_token import CharsPerToken
from metering.settlement.heartbeat import Heartbeat
from metering.settlement.recovery import Recovery
from metering.settlement.replay import Replay
from metering.settlement.settlement import Settlements
from metering.settlement.token_counting import OutputCounter
from metering.tags.resolution import TagResolver
from metering.tags.tags import Tags
from tests.harness import Account, Books, spool_folder
from tests.servers import asyncpg_dsn

MODEL = "claude-sonnet-4-6"
SMALLEST_GRANT = 16
PATIENCE_S = 30
"""A crowd on a busy machine is no outage; the deadline has tests of its own."""
KOLKATA = Calendar("Asia/Kolkata")


@dataclass(frozen=True)
class Process:
    """One process's worth of metering, started."""

    database: Database
    pool: Connections
    pipeline: RedisPipeline
    quota: QuotaScripts
    journal: Journal
    rebuilder: Rebuilder
    expired_holds: ExpiredHolds
    admission: Admission
    settlements: Settlements
    running: InFlight
    heartbeat: Heartbeat
    recovery: Recovery
    replay: Replay
    spool: Spool
    postgres_grants: PostgresGrants
    limit_status: LimitStatusReader
    entitlements: Entitlements
    tags: TagResolver
    budgeted: BudgetedOpens
    budget_status: BudgetStatusReader

    async def admit(self, account: Account, *, max_tokens: int = 100, prompt_bytes: int = 68, tags: Tags = ()) -> Grant:
        """Asks for `account`; a prompt of 68 bytes is held as 100 tokens."""
        return await self.admit_as(principal(account), max_tokens=max_tokens, prompt_bytes=prompt_bytes, tags=tags)

    async def admit_as(
        self, who: Principal, *, max_tokens: int = 100, prompt_bytes: int = 68, tags: Tags = ()
    ) -> Grant:
        """As `admit`, for a caller such as a short-lived token."""
        ask = replace(text_ask(max_tokens, prompt_bytes), tags=tags)
        return await self.admission.admit(who, ask, within_s=PATIENCE_S)

    async def settle(self, grant: Grant, usage: Usage) -> Settlement:
        """The request ended well and used `usage`."""
        return await self.settlements.begin(grant, recorder(usage))

    async def stop(self) -> None:
        """As the API does it."""
        await self.settlements.stop()
        await self.expired_holds.stop()
        await self.postgres_grants.stop()
        await self.budgeted.stop()
        await self.journal.stop()
        await self.replay.stop()
        await self.heartbeat.stop()
        await self.pipeline.stop()
        await self.pool.close()
        await self.database.close()


async def start_process(  # noqa: PLR0913 - each test turns the one knob that it is about
    database_url: str,
    redis_url: str,
    *,
    ttl_ms: int = 60_000,
    redis_timeout_s: float = 5,
    spool_dir: Path | None = None,
    breaker: BreakerRules | None = None,
    probe_s: float = 1,
    fallback_s: float = DWELL_S,
    dead_after_s: float = 1,
    calendar: Calendar = KOLKATA,
    remember_s: float = 0,
) -> Process:
    """A process of its own; it keeps entitlements for no time at all, so that a test may change limits.

    Its heartbeat has beaten once; it beats, recovers and replays only when a test says so.
    """
    database = Database(database_url, timeout_s=PATIENCE_S)
    pool = Connections(database_url, timeout_s=PATIENCE_S)
    pipeline = RedisPipeline(redis_url, timeout_s=redis_timeout_s, breaker=Breaker(breaker), probe_s=probe_s)
    quota = QuotaScripts(pipeline)
    process_id, running, densities = uuid7(), InFlight(), CharsPerToken()
    folder = spool_dir or spool_folder()
    spool = Spool(folder, process_id)
    journal = Journal(asyncpg_dsn(database_url), timeout_s=10, process_id=process_id, spillover=spool)
    rebuilder, expired_holds = Rebuilder(pool, quota, calendar), ExpiredHolds(pool, quota)
    prices = PriceList(database, ttl_s=60)
    entitlements = Entitlements(database, ttl_s=remember_s)
    tags = TagResolver(database, ttl_s=remember_s)
    tag_limits = TagLimitCache(database, ttl_s=remember_s)
    budgeted = BudgetedOpens(database, asyncpg_dsn(database_url), process_id=process_id, timeout_s=10)
    postgres_grants = PostgresGrants(
        asyncpg_dsn(database_url),
        process_id=process_id,
        running=running,
        calendar=calendar,
        timeout_s=10,
        dwell_s=fallback_s,
    )
    admission = Admission(
        RedisGrants(quota, journal, expired_holds, running=running, calendar=calendar, budgeted=budgeted),
        postgres_grants,
        rebuilder=rebuilder,
        breaker=pipeline.breaker,
        entitlements=entitlements,
        prices=prices,
        tags=tags,
        tag_limits=tag_limits,
        rules=AdmissionRules(smallest_grant=SMALLEST_GRANT, ttl_ms=ttl_ms, counts_per_minute=60),
    )
    await pool.start()
    pipeline.start()
    journal.start()
    postgres_grants.start()
    budgeted.start()
    counter = OutputCounter(None, densities)
    settlements = Settlements(journal, quota, prices, pool, in_flight=running, spool=spool, counter=counter)
    heartbeat = Heartbeat(pool, running, densities, process_id, every_s=1)
    recovery = Recovery(
        pool, quota, prices, densities, process_id=process_id, in_flight=running, dead_after_s=dead_after_s
    )
    replay = Replay(pool, quota, folder, spool=spool, in_flight=running)
    await heartbeat.beat()
    return Process(
        database,
        pool,
        pipeline,
        quota,
        journal,
        rebuilder,
        expired_holds,
        admission,
        settlements,
        running,
        heartbeat,
        recovery,
        replay,
        spool,
        postgres_grants,
        LimitStatusReader(quota, rebuilder, entitlements, calendar, pool),
        entitlements,
        tags,
        budgeted,
        BudgetStatusReader(tags, tag_limits, calendar, pool),
    )


def text_ask(max_tokens: int, prompt_bytes: int, *, model: str = MODEL) -> AdmissionRequest:
    """A request with a prompt of plain text, as `/chat` makes it."""
    bound, likely = (of(prompt_bytes, PROMPT_OVERHEAD_TOKENS) for of in (bound_of_text, likely_of_text))
    return AdmissionRequest(model, max_tokens, bound, likely)


def principal(account: Account) -> Principal:
    """Who asks."""
    return Principal(account.tenant_id, account.user_id, account.key_id, frozenset({"chat"}))


def recorder(usage: Usage) -> UsageRecorder:
    """A message that was answered whole, as the relay leaves it."""
    writes = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    started = ReportedUsage(
        usage.input_tokens,
        1,
        writes,
        usage.cache_read_tokens,
        CacheCreation(usage.cache_write_5m_tokens, usage.cache_write_1h_tokens),
    )
    latest = ReportedUsage(
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputDetails(usage.thinking_tokens),
        server_tool_use=ServerToolUse(usage.web_searches),
    )
    return UsageRecorder(0, 0, outcome=Outcome.COMPLETED, started=started, latest=latest, finished=True, model=MODEL)


States = tuple[tuple[int, tuple[WindowState, ...]], tuple[int, tuple[WindowState, ...]]]
"""(requests that run, (minute, day, period)) of the user and of its tenant.

A minute that is over is equal to anything: Redis drops its window with the next grant, or when it is built anew.
"""


async def redis_counters(quota: QuotaScripts, grant: Grant, user_id: UUID | None = None) -> States:
    """The counters in Redis, in the windows of `grant`."""
    request = grant.request
    names = [f"m:{request.opened_ms // MINUTE_MS}", f"d:{request.day}", f"p:{window_of(request.period_id)}"]
    answer = await quota.read(request.tenant_id, user_id or request.user_id, names)
    assert isinstance(answer, tuple), answer
    of_user, of_tenant = answer
    return _plain(of_user, request.opened_ms), _plain(of_tenant, request.opened_ms)


async def books_say(books: Books, grant: Grant, user_id: UUID | None = None) -> States:
    """What the rows of Postgres add up to in the windows of `grant`."""
    request = grant.request
    rows = await books.fetch("SELECT * FROM usage_requests WHERE tenant_id = $1", request.tenant_id)
    user = user_id or request.user_id

    def states(chosen: Sequence[dict[str, object]]) -> tuple[int, tuple[WindowState, ...]]:
        minute = [row for row in chosen if row["id"].int >> 80 >= request.opened_ms // MINUTE_MS * MINUTE_MS]  # type: ignore[attr-defined]
        day = [row for row in chosen if row["day"] == request.day]
        period = [row for row in chosen if window_of(str(row["period_id"])) == window_of(request.period_id)]
        running = sum(row["state"] == "open" for row in chosen)
        return _plain(
            ScopeCounters(running, tuple(_sum(window) for window in (minute, day, period))), request.opened_ms
        )

    dicts = [dict(row) for row in rows if row["state"] != "void"]
    return states([row for row in dicts if row["user_id"] == user]), states(dicts)


def _sum(rows: Sequence[dict[str, object]]) -> WindowState:
    settled = [row for row in rows if row["state"] == "settled"]
    held = [row for row in rows if row["state"] == "open"]
    names = ("held_prompt_tokens", "held_output_tokens", "held_web_searches", "held_nano_usd")
    return WindowState(
        tuple(sum(int(str(row[name])) for row in settled) for name in COUNT_COLUMNS),
        (len(held), *(sum(int(str(row[name])) for row in held) for name in names)),
    )


def _plain(state: ScopeCounters, opened_ms: int) -> tuple[int, tuple[WindowState, ...]]:
    is_over = now_ms() // MINUTE_MS > opened_ms // MINUTE_MS
    return state.active, (ANY, *state.windows[1:]) if is_over else state.windows
