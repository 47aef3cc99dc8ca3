"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT names a collector: one span per request, with child spans.

A caller's trace (`traceparent`) is continued, and not passed on to providers. Spans carry the route, the status and the
ids of request and tenant: no text, key or name. Collector down: spans are dropped.
"""

import asyncio
import logging
from types import TracebackType
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import REQUEST_ID
from core.settings import Settings, SettingsError
from core.spans import START_SPAN, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TENANT = "naka.tenant"
"""The scope key of the authenticated tenant's id."""
_EXPORT_TIMEOUT_S = 2
_STOP_S = 5
_SERVER_ERROR = 500


class _OtelSpan(Span):
    """An OpenTelemetry span as a `core.spans.Span`."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self._ended = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not self._ended:
            self._span.set_attribute("error.type", kind.__name__)
        self.end()

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._span.end()


class Tracing:
    """The tracer and its exporter. One per process."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("naka")

    async def stop(self) -> None:
        """Exports the pending spans, for at most `_STOP_S`."""
        try:
            async with asyncio.timeout(_STOP_S):
                await asyncio.to_thread(self._provider.shutdown)
        except TimeoutError:
            pass


def build_tracing(settings: Settings) -> Tracing | None:
    """Builds the tracing; None without a collector. Raises SettingsError if OpenTelemetry is not installed."""
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
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: pip install 'naka[otel]'"
        ) from error
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a collector that is down is no failure of ours
    provider = TracerProvider(resource=Resource.create({"service.name": "naka"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


class TracingMiddleware:
    """Starts a span for each request. Streamed text bypasses it."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - an optional dependency
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._app = app
        self._tracer = tracing.tracer
        self._api = trace
        self._no_context = Context()
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the application in a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        parent = self._propagator.extract(carrier, context=self._no_context)
        span = self._tracer.start_span(scope["method"], context=parent, kind=self._api.SpanKind.SERVER)
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        context = self._api.set_span_in_context(span, self._no_context)

        def start_span(name: str) -> Span:
            return _OtelSpan(self._tracer.start_span(name, context=context))

        token = START_SPAN.set(start_span)
        try:
            await self._app(scope, receive, send_noted)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            raise
        finally:
            START_SPAN.reset(token)
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
    """Returns the route's template. A path could contain anything, so it is never used."""
    if scope["path"] in {"/chat", "/chat/ui"}:
        return str(scope["path"])
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
