"""OpenTelemetry traces, where OTEL_EXPORTER_OTLP_ENDPOINT names a collector: one span per request, with its steps.

A trace that the caller began (`traceparent`) goes on in ours, and is passed on to nobody. Spans carry the route, the
status, the request's and the tenant's id: never a text, a key or a name. They leave in batches by a thread of their
own. The collector away: spans are dropped, and nothing else happens. Not configured: neither SDK nor exporter is
imported, and no layer is there.
"""

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import REQUEST_ID
from core.settings import Settings, SettingsError
from core.spans import TRACE, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

TENANT = "naka.tenant"
"""On the scope, once it is known: the id of the tenant that asks."""
_EXPORT_TIMEOUT_S = 2
_STOP_S = 5
_SERVER_ERROR = 500


class _Step:
    """A span of OpenTelemetry's, as `core.spans` knows it."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not self._over:
            self._span.set_attribute("error.type", kind.__name__)
        self.end()

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def end(self) -> None:
        if not self._over:
            self._over = True
            self._span.end()


class _Request:
    """A traced request: all its steps hang on its own span."""

    def __init__(self, tracer: "Tracer", context: Any) -> None:
        self._tracer = tracer
        self._context = context

    def child(self, name: str) -> Span:
        return _Step(self._tracer.start_span(name, context=self._context))


class Tracing:
    """The way to the collector. One per process."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("naka")

    async def stop(self) -> None:
        """Sends what waits, for a moment; a collector that does not answer does not hold up the stop."""
        try:
            async with asyncio.timeout(_STOP_S):
                await asyncio.to_thread(self._provider.shutdown)
        except TimeoutError:
            pass


def build_tracing(settings: Settings) -> Tracing | None:
    """None where no collector is named. Raises SettingsError when one is, and OpenTelemetry is not installed."""
    endpoint = settings.otel_exporter_otlp_endpoint
    if not endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but not installed: pip install 'naka[otel]'"
        ) from error
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a collector that is away is not our outage
    provider = TracerProvider(resource=Resource.create({"service.name": "naka"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


class TracingMiddleware:
    """Around everything but the request's id, where traces are wanted. Pieces of a stream do not pass through it."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only where it is wanted
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._app = app
        self._tracer = tracing.tracer
        self._api = trace
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application in a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        parent = self._propagator.extract(carrier, context=_empty())
        span = self._tracer.start_span(scope["method"], context=parent, kind=self._api.SpanKind.SERVER)
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = TRACE.set(_Request(self._tracer, self._api.set_span_in_context(span, _empty())))
        try:
            await self._app(scope, receive, send_noted)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            TRACE.reset(token)
            self._conclude(span, scope, status)

    def _conclude(self, span: Any, scope: Scope, status: int) -> None:
        route = route_of(scope)
        span.update_name(f"{scope['method']} {route}")
        span.set_attributes(
            {"http.request.method": scope["method"], "http.route": route, "naka.request_id": scope[REQUEST_ID]}
        )
        if status:
            span.set_attribute("http.response.status_code", status)
        if TENANT in scope:
            span.set_attribute("naka.tenant_id", scope[TENANT])
        if not status or status >= _SERVER_ERROR:
            span.set_status(self._api.StatusCode.ERROR)
        span.end()


def route_of(scope: Scope) -> str:
    """The route's template, never the path: a path may hold anything."""
    if scope["path"] == "/chat":
        return "/chat"
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))


def _empty() -> Any:
    from opentelemetry.context import Context  # noqa: PLC0415

    return Context()
