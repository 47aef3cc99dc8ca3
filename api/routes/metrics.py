"""`/metrics`: how the books stand and what was counted, for Prometheus. Nobody is named, so no key is asked for.

How the books stand is read from Postgres at most every few seconds however many ask, never on the path of a request,
and so the same on every process; what a process counts itself is in `api.observability.metrics`. Postgres away: 503,
since a scrape that fails is what everybody is alarmed by (`up == 0`), and numbers that cannot be known are not made up.
"""

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.runtime import Runtime
from billing.webhooks.inbox import InboxGauges, read_inbox_gauges
from core.errors import Unavailable
from core.resilience.cache import TtlCache
from metering.reports.gauges import Gauges, read_gauges

_TTL_S = 3
_TIMEOUT_S = 4  # a scraper's own is 10 s
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


class _Snapshot(Collector):
    """One reading of Postgres."""

    def __init__(self, gauges: Gauges, inbox: InboxGauges) -> None:
        self._gauges = gauges
        self._inbox = inbox

    def collect(self) -> Iterator[Metric]:
        """The families; what is not known is left out."""
        gauges = self._gauges
        for name, words, value in (
            ("naka_open_requests", "Requests opened and not settled yet.", gauges.open_requests),
            ("naka_open_requests_overdue", "Open requests past their deadline.", gauges.overdue_requests),
            ("naka_processes_alive", "Processes with a fresh heartbeat.", gauges.living_processes),
            ("naka_postgres_writable", "Whether Postgres takes writes: 0 on a replica.", gauges.writable),
            ("naka_reconcile_drifts", "Drifts that the last check of the books found.", gauges.drifts),
            ("naka_reconcile_age_seconds", "Time since the last check of the books.", gauges.age_s),
            ("naka_worker_overdue_seconds", "How long a duty has waited for a worker.", gauges.worker_overdue_s),
            ("naka_webhooks_waiting", "Events of Razorpay's to be worked off.", self._inbox.received),
            ("naka_webhooks_parked", "Events of Razorpay's that a person must look at.", self._inbox.parked),
            ("naka_webhook_lag_seconds", "How long the oldest event of Razorpay's has waited.", self._inbox.lag_s),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, words, value)


def build_router(runtime: Runtime) -> APIRouter:
    """The route, with its cache."""
    router = APIRouter(tags=["health"])
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
        responses={503: {"description": "Postgres does not answer", "content": _PROBLEM}},
    )
    async def metrics() -> Response:
        """Numbers for Prometheus, in its text format."""
        registry = CollectorRegistry()
        registry.register(_Snapshot(*await cache.load(None, read)))
        runtime.instruments.stand(runtime.standing())
        runtime.instruments.register(registry)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
