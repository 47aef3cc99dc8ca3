"""`/metrics` for Prometheus. It identifies nobody, so it needs no key.

Gauges of the system are read from Postgres at most every few seconds, however many ask, and never on the path of a
request: they are the same on every process. `api.observability.metrics` has the counters of the process. Postgres down:
503, because monitoring alerts on a failed scrape (`up == 0`), and unknown numbers are not made up.
"""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.routes.answers import PROBLEM
from api.routes.route import api_router
from api.runtime import Runtime
from billing.webhooks.inbox import InboxGauges, read_inbox_gauges
from core.errors import Unavailable
from core.resilience.cache import TtlCache
from metering.reports.gauges import Gauges, read_gauges

_TTL_S = 3
_TIMEOUT_S = 4  # Prometheus waits 10 s


class _Snapshot(Collector):
    """One reading of Postgres."""

    def __init__(self, gauges: Gauges, inbox: InboxGauges) -> None:
        self._gauges = gauges
        self._inbox = inbox

    def collect(self) -> Iterator[Metric]:
        """The families; unknown values are left out."""
        gauges = self._gauges
        for name, words, value in (
            ("naka_open_requests", "Requests opened and not settled yet.", gauges.open_requests),
            ("naka_open_requests_overdue", "Open requests past their deadline.", gauges.overdue_requests),
            ("naka_processes_alive", "Processes with a fresh heartbeat.", gauges.living_processes),
            ("naka_postgres_writable", "Whether Postgres takes writes: 0 on a replica.", gauges.writable),
            ("naka_reconcile_drifts", "Drifts found by the last reconciliation.", gauges.drifts),
            ("naka_reconcile_age_seconds", "Time since the last reconciliation.", gauges.age_s),
            ("naka_worker_overdue_seconds", "Longest wait of a duty for a worker.", gauges.worker_overdue_s),
            ("naka_webhooks_waiting", "Razorpay events waiting to be processed.", self._inbox.received),
            ("naka_webhooks_parked", "Razorpay events parked for a person.", self._inbox.parked),
            ("naka_webhook_lag_seconds", "Age of the oldest waiting Razorpay event.", self._inbox.lag_s),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, words, value)


def build_router(runtime: Runtime) -> APIRouter:
    """The route, with its cache."""
    router = api_router("health")
    cache: TtlCache[None, tuple[Gauges, InboxGauges]] = TtlCache(ttl_s=_TTL_S)

    async def read() -> tuple[Gauges, InboxGauges]:
        try:
            async with asyncio.timeout(_TIMEOUT_S), runtime.pool.acquire() as connection:
                gauges = await read_gauges(connection, dead_after_s=runtime.settings.dead_after_s)
                return gauges, await read_inbox_gauges(connection)
        except TimeoutError as error:
            raise Unavailable("the database does not answer") from error

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={503: {"description": "Postgres does not answer", "content": PROBLEM}},
    )
    async def metrics() -> Response:
        """Numbers for Prometheus, in its text format."""
        registry = CollectorRegistry()
        registry.register(_Snapshot(*await cache.load(None, read)))
        runtime.metrics.set_stats(runtime.stats())
        runtime.metrics.register(registry)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
