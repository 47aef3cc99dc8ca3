"""What this process counts for Prometheus: requests, tokens, cost, refusals, and how long things took.

Nothing here is touched once per piece of text. A label is never a tenant, a user or a key; a model that the price list
does not know is "other". Several processes of one host, which may share a socket, count into files of one folder when
PROMETHEUS_MULTIPROC_DIR is set, and a scrape of any of them says the sum; else each counts for itself. The disk is
full: a number is missing, and no request fails of it.

prometheus_client decides between the two when it is imported, by the environment itself: so the variable is set there,
and not in `.env`.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from core.errors import NakaError, PaymentRequired
from core.settings import Settings, SettingsError
from metering.admission.admission import QuotaExceeded, TooLarge
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement

OTHER = "other"
_EVERY_S = 1.0
_TOKENS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
_FIRST_TOKEN_S = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60)
_DURATION_S = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 300, 600)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody asks for


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """How this process stands: numbers that a scrape reads, and that others of this host can only read from a file."""

    running: int
    spooled: int
    poisoned: int
    journal: dict[str, int]
    fallback_tenants: int
    redis_given_up: bool
    webhooks_refused: int
    webhooks_stale: int
    pools: dict[str, tuple[int, int]]
    """Of each shared pool: the places that are taken, and how often one was refused since the start."""


class _OfModel:
    """The series of one model, looked up once."""

    def __init__(self, requests: Counter, tokens: Counter, cost: Counter, model: str) -> None:
        self.outcomes = {outcome: requests.labels(outcome.value, model) for outcome in Outcome}
        self.tokens = tuple(tokens.labels(name, model) for name in _TOKENS)
        self.cost = cost.labels(model)


class Instruments:
    """One per process, with a registry of its own."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._own = own = CollectorRegistry()
        self._requests = Counter("naka_requests", "Requests by how they ended.", ("outcome", "model"), registry=own)
        self._tokens = Counter("naka_tokens", "Tokens by class.", ("class", "model"), registry=own)
        self._cost = Counter("naka_provider_cost_nano_usd", "What the provider asks for it.", ("model",), registry=own)
        self._quota = Counter(
            "naka_quota_refusals", "Requests that a limit refused.", ("code", "scope", "window"), registry=own
        )
        self._turned_away = Counter(
            "naka_requests_turned_away", "Requests refused for another reason than a limit.", ("error",), registry=own
        )
        self._faults = Counter(
            "naka_upstream_errors", "What the provider did not do as it should.", ("kind",), registry=own
        )
        self._webhooks = Counter("naka_webhooks_refused", "Deliveries that bore no signature of ours.", registry=own)
        self._stale = Counter("naka_webhooks_stale", "Signed deliveries that were too old.", registry=own)
        self._first_token = Histogram(
            "naka_time_to_first_token_seconds",
            "From the request to its first text.",
            buckets=_FIRST_TOKEN_S,
            registry=own,
        )
        self._duration = Histogram(
            "naka_request_duration_seconds",
            "From the request to the end of its answer.",
            buckets=_DURATION_S,
            registry=own,
        )
        self._lag = Histogram(
            "naka_settlement_lag_seconds", "From the end of an answer to its commit.", buckets=_LAG_S, registry=own
        )
        self._running = _gauge("naka_running_requests", "Requests that run, each with its hold.", own)
        self._spooled = _gauge("naka_spooled_settlements", "Settlements that wait on the disk.", own)
        self._poisoned = Gauge(
            "naka_poisoned_settlements",
            "Settlements in the spool folder whose data Postgres refuses.",
            registry=own,
            multiprocess_mode="livemax",  # the processes of a host share the folder
        )
        self._journal = Gauge(
            "naka_journal_depth",
            "Rows that wait for a group commit.",
            ("lane",),
            registry=own,
            multiprocess_mode="livesum",
        )
        self._fallback = _gauge("naka_fallback_tenants", "Tenants that Postgres admits, as each process knows.", own)
        self._redis = _gauge("naka_redis_given_up", "Processes that do not ask Redis any more.", own)
        self._pool_taken = Gauge(
            "naka_pool_places_taken",
            "Places of a shared pool that are held.",
            ("pool",),
            registry=own,
            multiprocess_mode="livesum",
        )
        self._pool_refusals = Counter(
            "naka_pool_refusals", "Refusals since a share of a pool was used up.", ("pool",), registry=own
        )
        self._models: dict[str, _OfModel] = {}
        self._webhooks_seen = self._stale_seen = 0
        self._pool_refusals_seen: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, standing: Callable[[], ProcessStats]) -> None:
        """Keeps how the process stands fresh where others read it; alone, it is read when it is asked for."""
        if self._folder is not None:
            self._task = asyncio.create_task(self._keep(standing), name="standing")

    async def _keep(self, standing: Callable[[], ProcessStats]) -> None:
        while True:
            self.stand(standing())
            await asyncio.sleep(_EVERY_S)

    def settled(self, settlement: Settlement, recorder: UsageRecorder) -> None:
        """A request's settlement is safe, just now."""
        now_s = time.monotonic()
        with contextlib.suppress(OSError):
            series = self._of_model(settlement.model if settlement.model_known else OTHER)
            series.outcomes[settlement.outcome].inc()
            usage = settlement.usage
            counts = (
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_5m_tokens,
                usage.cache_write_1h_tokens,
            )
            for child, count in zip(series.tokens, counts, strict=True):
                if count:
                    child.inc(count)
            series.cost.inc(settlement.cost_nano_usd)
            if recorder.fault is not None:
                self._faults.labels(recorder.fault).inc()
            if recorder.first_text_s is not None:
                self._first_token.observe(recorder.first_text_s - recorder.began_s)
            self._duration.observe(recorder.ended_s - recorder.began_s)
            self._lag.observe(now_s - recorder.ended_s)

    def refused(self, error: NakaError) -> None:
        """A request was not admitted."""
        with contextlib.suppress(OSError):
            match error:
                case QuotaExceeded(code=code, limit=limit):
                    scope, window = (limit.scope.value, limit.window.value) if limit else ("none", "none")
                    self._quota.labels(code, scope, window).inc()
                case TooLarge():
                    self._quota.labels("too_large", "none", "none").inc()
                case PaymentRequired():
                    self._quota.labels(error.code, "none", "none").inc()
                case _:
                    self._turned_away.labels(type(error).__name__).inc()

    def stand(self, standing: ProcessStats) -> None:
        """How the process stands now."""
        with contextlib.suppress(OSError):
            self._running.set(standing.running)
            self._spooled.set(standing.spooled)
            self._poisoned.set(standing.poisoned)
            for lane, depth in standing.journal.items():
                self._journal.labels(lane).set(depth)
            self._fallback.set(standing.fallback_tenants)
            self._redis.set(standing.redis_given_up)
            self._webhooks.inc(standing.webhooks_refused - self._webhooks_seen)
            self._webhooks_seen = standing.webhooks_refused
            self._stale.inc(standing.webhooks_stale - self._stale_seen)
            self._stale_seen = standing.webhooks_stale
            for pool, (taken, refused) in standing.pools.items():
                self._pool_taken.labels(pool).set(taken)
                self._pool_refusals.labels(pool).inc(refused - self._pool_refusals_seen.get(pool, 0))
                self._pool_refusals_seen[pool] = refused

    def register(self, registry: CollectorRegistry) -> None:
        """Adds the numbers of this process, or of all that share the folder, to what a scrape says."""
        if self._folder is None:
            registry.register(_Own(self._own))
        else:
            bury(self._folder)
            MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """The process ends: what it counted stays, how it stood does not."""
        if self._task is not None:
            self._task.cancel()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                mark_process_dead(os.getpid(), str(self._folder))  # type: ignore[no-untyped-call]

    def _of_model(self, model: str) -> _OfModel:
        series = self._models.get(model)
        if series is None:
            series = self._models[model] = _OfModel(self._requests, self._tokens, self._cost, model)
        return series


class _Own(Collector):
    """What a registry has, for another."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._registry.collect()


def build_instruments(settings: Settings) -> Instruments:
    """Raises SettingsError when prometheus_client was imported with other ideas of the folder than the settings'."""
    folder = settings.prometheus_multiproc_dir
    if (folder is not None) != (values.ValueClass is not values.MutexValue):
        raise SettingsError(
            "PROMETHEUS_MULTIPROC_DIR has to be set in the environment itself, to a folder, or not at all"
        )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return Instruments(folder)


def bury(folder: Path) -> None:
    """Takes away how processes stood that were killed. They are of this host: the folder is not shared with others."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if not _lives(int(pid)):
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _gauge(name: str, words: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, words, registry=registry, multiprocess_mode="livesum")
