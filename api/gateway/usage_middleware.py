"""`UsageTrackingMiddleware`: who asks, may they, and what did it come to? Pure ASGI, around the metered routes.

It authenticates, reads the body, takes one of the tenant's upstream connections, asks for a grant, puts a recorder on
the scope, calls the application, and settles in its own `finally`, whatever happened inside: the only place that runs
exactly once per request. The last write of a whole answer waits for the commit, so whoever saw its `done` is in the
books. That of an answer that broke off does not: its text may have to be counted first, or its prompt. A body that the
route would refuse goes through unmetered, to get its 422; nothing is stored for it. A user whose requests fail too
often is refused before anything else is done.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.credentials import authenticate
from api.gateway.ratelimit_headers import rate_limit_headers
from api.gateway.relay import RECORDER
from api.http.body import ClientLeft, InvalidBody, read_body, replay
from api.http.problems import REQUEST_ID, problem_response
from api.observability.metrics import Instruments
from api.observability.tracing import TENANT
from core.errors import NakaError
from core.logs import get_logger
from core.resilience.deadline import within
from core.resilience.shares import FairPool
from core.settings import Settings
from core.spans import span
from core.tenancy.directory import Directory
from core.tenancy.principal import Principal, Unauthenticated
from core.tenancy.principal import Scope as KeyScope
from metering.admission.admission import Admission, AdmissionRequest, Grant
from metering.admission.failure_rate import FailingRequests
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement
from metering.settlement.settlement import Settlements

AskOf = Callable[[bytes], AdmissionRequest]
_WHOLE = frozenset({Outcome.COMPLETED, Outcome.REFUSED})

log = get_logger(__name__)


class UsageTrackingMiddleware:
    """`metered` maps (method, path) to the function that reads an `Ask` out of a body (raising InvalidBody)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metered: Mapping[tuple[str, str], AskOf],
        directory: Directory,
        admission: Admission,
        settlements: Settlements,
        instruments: Instruments,
        connections: FairPool,
        settings: Settings,
    ) -> None:
        self._app = app
        self._metered = metered
        self._directory = directory
        self._admission = admission
        self._settlements = settlements
        self._instruments = instruments
        self._failing = FailingRequests(per_minute=settings.failing_requests_per_minute)
        self._connections = connections
        self._max_body_bytes = settings.request_body_max_bytes
        self._deadline_s = settings.store_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes what is not metered; else admits, runs, settles."""
        ask_of = self._metered.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if ask_of is None:
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        with ExitStack() as places:
            try:
                async with within(self._deadline_s):
                    principal = await self._authenticate(scope)
                self._failing.check(principal.user_id)
                left_s = self._deadline_s - (time.monotonic() - began_s)
                body = await read_body(scope, receive, max_bytes=self._max_body_bytes)
                receive = replay(body, receive)
                ask = _ask(ask_of, body)
                grant = None
                if ask is not None:
                    # Before admission: a full pool answers at once, and no hold is taken that nothing runs for.
                    places.enter_context(self._connections.take(principal.tenant_id))
                    grant = await self._admit(principal, ask, left_s)
            except ClientLeft:
                return
            except NakaError as error:
                self._instruments.refused(error)
                await problem_response(error, scope)(scope, receive, send)
                return
            if ask is None or grant is None:
                await self._app(scope, receive, send)
                return
            recorder = self._settlements.recorder(grant, ask.count)
            recorder.began_s = began_s
            await self._run(grant, recorder, scope, receive, send)

    async def _authenticate(self, scope: Scope) -> Principal:
        with span("authenticate"):
            principal = await authenticate(self._directory, scope)
            scope[TENANT] = str(principal.tenant_id)
            principal.require(KeyScope.CHAT)
            return principal

    async def _admit(self, principal: Principal, ask: AdmissionRequest, within_s: float) -> Grant:
        try:
            with span("admit"):
                return await self._admission.admit(principal, ask, within_s=within_s)
        except Unauthenticated:
            self._directory.forget(principal.tenant_id)  # Postgres knew better than our cache
            raise

    async def _run(self, grant: Grant, recorder: UsageRecorder, scope: Scope, receive: Receive, send: Send) -> None:
        scope[RECORDER] = recorder
        scope[REQUEST_ID] = str(grant.request.id)
        structlog.contextvars.bind_contextvars(request_id=scope[REQUEST_ID])
        books = _Books(lambda: self._settlements.begin(grant, recorder))

        async def send_settled(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rate_limit_headers(grant))
            elif not message.get("more_body"):
                books.begin()
                if recorder.outcome in _WHOLE or (recorder.started is None and not recorder.unanswered):
                    await books.closed()
            await send(message)

        try:
            await self._app(scope, receive, send_settled)
        finally:
            if recorder.started is None:
                self._failing.note(grant.request.user_id)
            await books.closed()


class _Books:
    """Settles once, and whoever waits is not what decides whether it happens."""

    def __init__(self, begin: Callable[[], "asyncio.Task[Settlement]"]) -> None:
        self._begin = begin
        self._task: asyncio.Task[Settlement] | None = None

    def begin(self) -> "asyncio.Task[Settlement]":
        """What stands in the recorder now is settled, unless it was begun before."""
        if self._task is None:
            self._task = self._begin()
        return self._task

    def closed(self) -> Awaitable[Settlement]:
        """Resolves once the settlement is safe. Cancelling the wait does not cancel the settlement."""
        return asyncio.shield(self.begin())


def _ask(ask_of: AskOf, body: bytes) -> AdmissionRequest | None:
    try:
        return ask_of(body)
    except InvalidBody:
        return None
