"""The usage middleware: authentication, admission and settlement of metered routes. Pure ASGI.

A request is settled once: at its last write, or in the `finally` if the answer broke off. The last write of a complete
answer waits for the commit, so usage is committed before the client receives `done`. The last write of an interrupted
answer does not wait, because its text or prompt may have to be counted first. An invalid body gets its 422 before
admission. A user whose requests fail too often is refused first. Redis down: Postgres admits.
Postgres down: 503, and settlements of running requests go to the spool.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.credentials import PRINCIPAL
from api.gateway.codec import CALL, Call, MeteredRoute
from api.gateway.ratelimit_headers import rate_limit_headers
from api.gateway.relay import RECORDER, SETTLED
from api.gateway.stream_errors import UpstreamFault
from api.gateway.tags import tags_of
from api.http.body import ClientLeft, InvalidBody, read_body
from api.http.problems import REQUEST_ID, code_of, problem_response
from api.observability.tracing import TENANT
from api.runtime import Runtime
from core.errors import Invalid, NakaError
from core.logs import get_logger
from core.resilience.deadline import within
from core.spans import span
from core.tenancy.principal import Principal, Unauthenticated, UserDisabled
from core.tenancy.principal import Scope as KeyScope
from metering.admission.admission import AdmissionRequest
from metering.admission.failure_rate import FailingRequests
from metering.journal.recorder import UsageRecorder
from metering.journal.records import Outcome, Settlement
from metering.quota.query import Grant

_COMPLETE = frozenset({Outcome.COMPLETED, Outcome.REFUSED})

log = get_logger(__name__)


class UsageTrackingMiddleware:
    """`metered`: the metered routes by (method, path)."""

    def __init__(self, app: ASGIApp, runtime: Runtime, *, metered: Mapping[tuple[str, str], MeteredRoute]) -> None:
        self._app = app
        self._metered = metered
        self._identities = runtime.identities
        self._admission = runtime.metering.admission
        self._settlements = runtime.metering.settlements
        self._refusals = runtime.metering.refusals
        self._metrics = runtime.metrics
        self._failing = FailingRequests(per_minute=runtime.settings.failing_requests_per_minute)
        self._connections = runtime.pools.upstream
        self._deadline_s = runtime.settings.store_deadline_s
        self._shows_spend = runtime.settings.show_provider_cost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admits, runs and settles a metered request; passes any other on."""
        route = self._metered.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        with ExitStack() as held:
            try:
                async with within(self._deadline_s):
                    principal = await self._authenticate(scope)
                self._failing.check(principal.user_id)
                left_s = self._deadline_s - (time.monotonic() - began_s)
                call = scope[CALL] = await route.read(scope, await read_body(scope, receive, max_bytes=route.max_bytes))
                tags = tags_of(scope, principal, call)
                principal = await self._acting_for(scope, principal, call, left_s)
                # Before admission, so that a full pool answers at once and takes no hold.
                held.enter_context(self._connections.take(principal.tenant_id))
                asked = replace(call.admission, tags=tags) if tags else call.admission
                grant = await self._admit(principal, asked, left_s)
            except ClientLeft:
                return
            except (Invalid, InvalidBody) as error:  # not a refusal: not counted
                await problem_response(error, scope)(scope, receive, send)
                return
            except NakaError as error:
                self._count_refusal(error, scope.get(PRINCIPAL))
                await problem_response(error, scope)(scope, receive, send)
                return
            recorder = self._settlements.recorder(
                grant,
                call.admission.count,
                prompt_once=call.prompt_once,
                thinking_budget=call.thinking_budget,
            )
            recorder.began_s = began_s
            del call, asked  # the relay lets go of a large prompt when the answer begins
            await self._run(grant, recorder, scope, receive, send)

    def _count_refusal(self, error: NakaError, principal: Principal | None) -> None:
        """Counts a refusal, for its tenant too if the key is known; only refused requests come here."""
        self._metrics.refused(error)
        tenant_id = error.tenant_id if isinstance(error, Unauthenticated | UserDisabled) else None
        if principal is not None:
            tenant_id = principal.tenant_id
        if tenant_id is not None:
            self._refusals.note(tenant_id, code_of(error))

    async def _authenticate(self, scope: Scope) -> Principal:
        with span("authenticate"):
            principal = await self._identities.principal_of(scope)
            scope[TENANT] = str(principal.tenant_id)
            principal.require_any(KeyScope.CHAT, KeyScope.CHAT_AS_USER)
            return principal

    async def _acting_for(self, scope: Scope, principal: Principal, call: Call, within_s: float) -> Principal:
        """Returns the principal of the user that the request names; after the body was read: a bad one makes none."""
        acting = await self._identities.acting_for(scope, principal, call.user, within_s=within_s)
        if acting is not principal:
            self._failing.check(acting.user_id)
        return acting

    async def _admit(self, principal: Principal, request: AdmissionRequest, within_s: float) -> Grant:
        try:
            with span("admit"):
                return await self._admission.admit(principal, request, within_s=within_s)
        except (Unauthenticated, UserDisabled):
            self._identities.forget(principal.tenant_id)  # the cached key or user is outdated
            raise

    async def _run(self, grant: Grant, recorder: UsageRecorder, scope: Scope, receive: Receive, send: Send) -> None:
        scope[RECORDER] = recorder
        scope[REQUEST_ID] = str(grant.request.id)
        structlog.contextvars.bind_contextvars(request_id=scope[REQUEST_ID])
        settlement = _SettleOnce(lambda: self._settlements.begin(grant, recorder))
        scope[SETTLED] = settlement.committed

        async def send_settled(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rate_limit_headers(grant, with_spend=self._shows_spend))
            elif not message.get("more_body"):
                settlement.begin()
                if recorder.outcome in _COMPLETE or (recorder.started is None and not recorder.unanswered):
                    await settlement.committed()
            await send(message)

        is_cut = False
        try:
            await self._app(scope, receive, send_settled)
        except UpstreamFault:
            is_cut = True  # by the server, and as soon as other forms say that they failed
            raise
        finally:
            if recorder.started is None:
                self._failing.note(grant.request.user_id)
            begun = settlement.begin()
            if not is_cut:
                await asyncio.shield(begun)


class _SettleOnce:
    """The settlement of one request, in a task that outlives its waiters."""

    def __init__(self, begin: Callable[[], "asyncio.Task[Settlement]"]) -> None:
        self._begin = begin
        self._task: asyncio.Task[Settlement] | None = None

    def begin(self) -> "asyncio.Task[Settlement]":
        """Starts settling the recorder's present state, unless it was started before."""
        if self._task is None:
            self._task = self._begin()
        return self._task

    def committed(self) -> Awaitable[Settlement]:
        """Resolves once the settlement is committed or spooled. Cancelling the wait does not cancel it."""
        return asyncio.shield(self.begin())
