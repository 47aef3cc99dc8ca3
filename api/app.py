"""The ASGI application: middleware and routes over one runtime.

Middleware from the outside in: WebSockets, whose questions are requests of their own, request context, tracing, CORS,
HEAD, idempotency (if it is on), usage. Then `/chat` and `/v1/messages`, plain ASGI applications, or FastAPI for every
other route.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from api.gateway.chat.call import read_chat
from api.gateway.chat.socket import ChatSockets
from api.gateway.chat.ui_call import UI_PATH, read_ui
from api.gateway.codec import MeteredRoute
from api.gateway.idempotency.middleware import IdempotencyMiddleware
from api.gateway.messages.call import MessagesReader
from api.gateway.messages.count_tokens import COUNT_PATH, CountTokens
from api.gateway.relay import Relay
from api.gateway.usage_middleware import UsageTrackingMiddleware
from api.http.body_admission import BodyAdmission
from api.http.head import HeadMiddleware
from api.http.problems import answer_with_problem
from api.http.request_context import RequestContextMiddleware
from api.http.turns import TurnsMiddleware
from api.mcp.endpoint import PATH as MCP_PATH
from api.mcp.endpoint import McpEndpoint
from api.observability.tracing import TracingMiddleware
from api.openapi.description import describe
from api.pages import account, members, operator, reference, reports, sign_in
from api.pages import chat as chat_page
from api.pages.sign_in import SIGN_IN_MAX_BYTES
from api.pages.site import answer_in_kind
from api.routes import admin, anthropic, billing, health, metrics, tokens, usage, webhooks
from api.runtime import Runtime
from billing.webhooks.inbox import MAX_BYTES
from core.errors import NakaError
from core.settings import Settings

_TRACE_HEADERS = ("traceparent", "tracestate", "baggage", "sentry-trace")
"""Headers that a tracing frontend adds to every request (W3C Trace Context and Baggage, Sentry)."""
_IDEMPOTENCY_HEADERS = ("idempotency-key", "last-event-id")
_SDK_HEADERS = (
    *("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access", "content-encoding", "x-app"),
    *("x-stainless-lang", "x-stainless-package-version", "x-stainless-os", "x-stainless-arch", "x-stainless-runtime"),
    *("x-stainless-runtime-version", "x-stainless-async", "x-stainless-retry-count", "x-stainless-timeout"),
    *("x-stainless-read-timeout", "x-stainless-helper", "x-stainless-helper-method", "x-stainless-stream-helper"),
    "x-stainless-raw-response",
)
"""Headers that Anthropic's SDKs send from a browser."""
_STATIC = Path(__file__).parent / "pages" / "static"


class Naka(FastAPI):
    """FastAPI inside our middleware, with `/chat` beside it: streamed text does not pass FastAPI's own middleware."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(
            title="Naka",
            summary="Meters, limits and bills an AI chat on Claude.",
            version="0.1.0",
            lifespan=partial(_lifespan, runtime),
            docs_url=None,
            redoc_url=None,
            openapi_url=None,  # `api.pages.reference` serves it
            # FastAPI's own traces would carry paths and exception messages; ours are in api.observability.tracing.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self.state.runtime = runtime
        self._runtime = runtime

    def build_middleware_stack(self) -> ASGIApp:
        """Builds the middleware, from the inside out."""
        runtime, settings = self._runtime, self._runtime.settings
        chat = partial(read_chat, settings=settings, upstream=runtime.upstream)
        ui = partial(read_ui, settings=settings, upstream=runtime.upstream)
        messages = MessagesReader(settings, runtime.upstream, runtime.model_details.window_tokens)
        metered = {
            ("POST", "/chat"): MeteredRoute(chat, settings.request_body_max_bytes),
            ("POST", UI_PATH): MeteredRoute(ui, settings.request_body_max_bytes),
            ("POST", "/v1/messages"): MeteredRoute(messages.read, settings.messages_body_max_bytes),
        }
        relay = Relay(runtime.upstream, settings, runtime.idle_monitor)
        fastapi = super().build_middleware_stack()
        if isinstance(fastapi, ServerErrorMiddleware):  # it would send a plain-text 500 before ours sees the error
            fastapi = fastapi.app
        count_tokens = CountTokens(
            runtime.upstream,
            runtime.identities,
            runtime.allowed_models,
            places=runtime.pools.counts,
            settings=settings,
        )
        direct: dict[tuple[str, str], ASGIApp] = {("POST", COUNT_PATH): count_tokens, **dict.fromkeys(metered, relay)}
        routes = _DirectRoutes(direct, TurnsMiddleware(fastapi))
        usage: ASGIApp = UsageTrackingMiddleware(routes, runtime, metered=metered)
        if runtime.runs is not None:
            usage = IdempotencyMiddleware(usage, runtime, runtime.runs, metered=metered)
        outer: ASGIApp = CORSMiddleware(
            HeadMiddleware(usage),
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=[
                "authorization",
                "content-type",
                "x-api-key",
                "naka-tags",
                *_IDEMPOTENCY_HEADERS,
                *_TRACE_HEADERS,
                *_SDK_HEADERS,
            ],
            expose_headers=[
                *("x-request-id", "ratelimit", "ratelimit-policy", "retry-after"),
                *("request-id", "x-should-retry", "idempotency-replayed"),
            ],
            max_age=600,
        )
        if runtime.tracing is not None:
            outer = TracingMiddleware(outer, runtime.tracing)
        body_admission = BodyAdmission(
            runtime.identities,
            max_body_bytes=settings.request_body_max_bytes,
            max_bytes=settings.request_bodies_max_bytes,
            metered=frozenset(metered),
            keyless={
                ("POST", "/webhooks/razorpay"): MAX_BYTES,
                **dict.fromkeys((("POST", "/sign-in"), ("POST", "/sign-in/oidc")), SIGN_IN_MAX_BYTES),
            },
            bounds=dict.fromkeys((("POST", "/v1/messages"), ("POST", COUNT_PATH)), settings.messages_body_max_bytes),
        )
        http = RequestContextMiddleware(outer, body_admission=body_admission, secure=settings.is_production)
        return ChatSockets(
            http,
            runtime.identities,
            body_admission=body_admission,
            origins=settings.cors_origins,
            deadline_s=settings.store_deadline_s,
            secure=settings.is_production,
        )


class _DirectRoutes:
    """Routes that bypass FastAPI, by (method, path); FastAPI serves every other route."""

    def __init__(self, routes: Mapping[tuple[str, str], ASGIApp], fastapi: ASGIApp) -> None:
        self._routes = routes
        self._fastapi = fastapi

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (app or self._fastapi)(scope, receive, send)


def create_app(settings: Settings) -> Naka:
    """Returns the application; its lifespan starts and stops the runtime."""
    runtime = Runtime(settings)
    app = Naka(runtime)
    for router in (*_ROUTERS, metrics.build_router(runtime)):
        app.router.routes.extend(router.routes)
    app.router.routes.append(Route(MCP_PATH, McpEndpoint(runtime), methods=["POST"], include_in_schema=False))
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    for path in ("/chat", UI_PATH, "/v1/messages", COUNT_PATH):
        app.add_route(path, _post_only, methods=["POST"], include_in_schema=False)
    app.add_route(f"{UI_PATH}/{{chat_id}}/stream", _nothing_to_resume, methods=["GET"], include_in_schema=False)
    for error in (NakaError, RequestValidationError):
        app.add_exception_handler(error, answer_with_problem)
    app.add_exception_handler(HTTPException, answer_in_kind)
    describe(app)
    return app


_ROUTERS = (
    *(usage.router, tokens.router, *admin.routers, *billing.routers, health.router, webhooks.router, anthropic.router),
    *(chat_page.router, sign_in.router, *members.routers, *account.routers, *reports.routers, *operator.routers),
    reference.router,
)
"""The routers that need no runtime, shared by all applications of a process, and by processes forked from it."""


async def _post_only(_: Request) -> Response:
    """Makes any method but POST on a direct route a 405. Never called: the route itself answers a POST."""
    raise NotImplementedError


async def _nothing_to_resume(_: Request) -> Response:
    """Answers `useChat` with `resume: true`, which asks for a running answer: an answer ends with its request."""
    return Response(status_code=HTTPStatus.NO_CONTENT)


@asynccontextmanager
async def _lifespan(runtime: Runtime, _: FastAPI) -> AsyncIterator[None]:
    await runtime.start()
    try:
        yield
    finally:
        await runtime.stop()
