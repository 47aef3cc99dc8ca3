"""Prometheus metrics of this process: requests, tokens, cost, refusals and durations.

Labels never name a tenant, user or key; an unpriced model is "other". With PROMETHEUS_MULTIPROC_DIR, the processes of
one host write to files of that folder and each scrape returns the sum; prometheus_client reads the variable when it is
imported, so it must be set in the environment, not in `.env`. Disk full: a count is lost, and no request fails.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from core.errors import NakaError, PaymentRequired
from core.settings import Settings, SettingsError
from metering.admission.admission import QuotaExceeded, TooLarge
from metering.counts import TOKEN_COLUMNS
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement
from metering.pricing.answer_cost import IterationUsage
from metering.quota.budgets import Budget
from metering.quota.limits import EffectiveLimit

OTHER = "other"
_EVERY_S = 1.0
_FIRST_TOKEN_S = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)
_DURATION_S = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 300, 600)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """The gauges of one process."""

    in_flight: int
    spooled: int
    poisoned: int
    journal: dict[str, int]
    fallback_tenants: int
    redis_given_up: bool
    webhooks_refused: int
    webhooks_stale: int
    pools: dict[str, tuple[int, int]]
    """For each shared pool, the places taken and the refusals since the start."""


class _ModelSeries:
    """The series of one model."""

    def __init__(
        self, requests: Counter, tokens: Counter, thinking: Counter, searches: Counter, cost: Counter, model: str
    ) -> None:
        self.outcomes = {outcome: requests.labels(outcome.value, model) for outcome in Outcome}
        self.usage = {name: tokens.labels(name.removesuffix("_tokens"), model) for name in TOKEN_COLUMNS}
        # Thinking is in the output already: a series of its own, so that the sum over the classes stays right.
        self.usage |= {"thinking_tokens": thinking.labels(model), "web_searches": searches.labels(model)}
        self.cost = cost.labels(model)

    def add(self, part: Settlement | IterationUsage) -> None:
        """Counts the usage and cost of the model."""
        for name, child in self.usage.items():
            if count := getattr(part.usage, name):
                child.inc(count)
        self.cost.inc(part.cost_nano_usd)


class ProcessMetrics:
    """One per process, with a registry of its own."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._own = own = CollectorRegistry()
        counter, histogram = partial(Counter, registry=own), partial(Histogram, registry=own)
        gauge = partial(Gauge, registry=own, multiprocess_mode="livesum")
        self._requests = counter("naka_requests", "Requests by outcome.", ("outcome", "model"))
        self._tokens = counter("naka_tokens", "Tokens by class.", ("class", "model"))
        self._thinking = counter("naka_thinking_tokens", "Thinking tokens, which are part of the output.", ("model",))
        self._searches = counter("naka_web_searches", "Web searches that the provider ran.", ("model",))
        self._cost = counter("naka_provider_cost_nano_usd", "Provider cost.", ("model",))
        self._quota = counter("naka_quota_refusals", "Requests refused by a limit.", ("code", "scope", "window"))
        self._turned_away = counter(
            "naka_requests_turned_away", "Requests refused for reasons other than limits.", ("error",)
        )
        self._faults = counter("naka_upstream_errors", "Provider errors.", ("kind",))
        self._idempotent = counter(
            "naka_idempotent_requests",
            "Requests with an Idempotency-Key that ran, or got another's answer.",
            ("result",),
        )
        self._webhooks = counter("naka_webhooks_refused", "Deliveries without a valid signature.")
        self._stale = counter("naka_webhooks_stale", "Signed deliveries that were too old.")
        self._first_token = histogram(
            "naka_time_to_first_token_seconds", "Time from the request to its first text.", buckets=_FIRST_TOKEN_S
        )
        self._duration = histogram(
            "naka_request_duration_seconds", "Time from the request to the end of its answer.", buckets=_DURATION_S
        )
        self._lag = histogram(
            "naka_settlement_lag_seconds", "Time from the end of an answer to its commit.", buckets=_LAG_S
        )
        self._running = gauge("naka_running_requests", "Requests in flight, each with a hold.")
        self._spooled = gauge("naka_spooled_settlements", "Settlements waiting in the spool.")
        self._poisoned = gauge(
            "naka_poisoned_settlements",
            "Spooled settlements whose data Postgres refuses.",
            multiprocess_mode="livemax",  # the processes of a host share the folder
        )
        self._journal = gauge("naka_journal_depth", "Rows waiting for a group commit.", ("lane",))
        self._fallback = gauge("naka_fallback_tenants", "Tenants admitted by Postgres, as known to each process.")
        self._redis = gauge("naka_redis_given_up", "Processes whose circuit breaker for Redis is open.")
        self._pool_taken = gauge("naka_pool_places_taken", "Places taken in a shared pool.", ("pool",))
        self._pool_refusals = counter(
            "naka_pool_refusals", "Refusals because a share of a pool was used up.", ("pool",)
        )
        self._models: dict[str, _ModelSeries] = {}
        self._webhooks_seen = self._stale_seen = 0
        self._pool_refusals_seen: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, stats: Callable[[], ProcessStats]) -> None:
        """Writes the gauges every second, for the other processes of the host; alone, a scrape reads them itself."""
        if self._folder is not None:
            self._task = asyncio.create_task(self._refresh(stats), name="process-stats")

    async def _refresh(self, stats: Callable[[], ProcessStats]) -> None:
        while True:
            self.set_stats(stats())
            await asyncio.sleep(_EVERY_S)

    def settled(self, settlement: Settlement, recorder: UsageRecorder) -> None:
        """Counts a request when its settlement is committed or spooled."""
        now_s = time.monotonic()
        with contextlib.suppress(OSError):
            series = self._series(settlement.model if settlement.model_known else OTHER)
            series.outcomes[settlement.outcome].inc()
            series.add(settlement)
            for other in settlement.others:
                self._series(other.model if settlement.model_known else OTHER).add(other)
            if recorder.fault is not None:
                self._faults.labels(recorder.fault).inc()
            if recorder.first_text_s is not None:
                self._first_token.observe(recorder.first_text_s - recorder.began_s)
            self._duration.observe(recorder.ended_s - recorder.began_s)
            self._lag.observe(now_s - recorder.ended_s)

    def refused(self, error: NakaError) -> None:
        """Counts a request that was not admitted."""
        with contextlib.suppress(OSError):
            match error:
                case QuotaExceeded(code=code, limit=Budget() as budget):
                    self._quota.labels(code, budget.scope, budget.window_name).inc()
                case QuotaExceeded(code=code, limit=EffectiveLimit() | None as limit):
                    scope, window = (limit.scope.value, limit.window.value) if limit else ("none", "none")
                    self._quota.labels(code, scope, window).inc()
                case TooLarge():
                    self._quota.labels("too_large", "none", "none").inc()
                case PaymentRequired():
                    self._quota.labels(error.code, "none", "none").inc()
                case _:
                    self._turned_away.labels(type(error).__name__).inc()

    def idempotent(self, result: str) -> None:
        """Counts a request with an Idempotency-Key: `run` or `replayed`."""
        with contextlib.suppress(OSError):
            self._idempotent.labels(result).inc()

    def set_stats(self, stats: ProcessStats) -> None:
        """Sets the gauges."""
        with contextlib.suppress(OSError):
            self._running.set(stats.in_flight)
            self._spooled.set(stats.spooled)
            self._poisoned.set(stats.poisoned)
            for lane, depth in stats.journal.items():
                self._journal.labels(lane).set(depth)
            self._fallback.set(stats.fallback_tenants)
            self._redis.set(stats.redis_given_up)
            self._webhooks.inc(stats.webhooks_refused - self._webhooks_seen)
            self._webhooks_seen = stats.webhooks_refused
            self._stale.inc(stats.webhooks_stale - self._stale_seen)
            self._stale_seen = stats.webhooks_stale
            for pool, (taken, refused) in stats.pools.items():
                self._pool_taken.labels(pool).set(taken)
                self._pool_refusals.labels(pool).inc(refused - self._pool_refusals_seen.get(pool, 0))
                self._pool_refusals_seen[pool] = refused

    def register(self, registry: CollectorRegistry) -> None:
        """Adds the metrics of this process, or of all that share the folder, to a scrape's registry."""
        if self._folder is None:
            registry.register(cast("Collector", self._own))  # a registry collects, too
        else:
            remove_dead_processes(self._folder)
            MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Ends the refresh and removes the gauges of this process; its counters stay."""
        if self._task is not None:
            self._task.cancel()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                mark_process_dead(os.getpid(), str(self._folder))  # type: ignore[no-untyped-call]

    def _series(self, model: str) -> _ModelSeries:
        series = self._models.get(model)
        if series is None:
            series = self._models[model] = _ModelSeries(
                self._requests, self._tokens, self._thinking, self._searches, self._cost, model
            )
        return series


def build_metrics(settings: Settings) -> ProcessMetrics:
    """Builds the metrics. Raises SettingsError when prometheus_client was imported with another folder setting."""
    folder = settings.prometheus_multiproc_dir
    if (folder is not None) != (values.ValueClass is not values.MutexValue):
        raise SettingsError("PROMETHEUS_MULTIPROC_DIR must be set in the environment itself, not in .env")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return ProcessMetrics(folder)


def remove_dead_processes(folder: Path) -> None:
    """Removes the gauges of killed processes. The folder must not be shared between hosts: pids are local."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if not _is_alive(int(pid)):
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
