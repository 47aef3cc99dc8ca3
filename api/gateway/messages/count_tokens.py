"""`POST /v1/messages/count_tokens`: the provider's own count of a prompt, free and unmetered. Pure ASGI.

The body goes on as it came, and the provider's answer comes back as it is. No limit of usage blocks a count, because
clients count before they decide what to send. Bounded by a rate per user, and by the tenant's share of the places for
counts (Claude Code asks for 36 at once; those beyond the share wait). The provider down: an error in Anthropic's form.
"""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.auth.identities import Identities
from api.gateway.messages.body import read_count_body
from api.gateway.messages.call import read_request
from api.gateway.messages.headers import forwarded, target
from api.gateway.messages.models import AllowedModels, Provider
from api.gateway.stream_errors import WholeAnswer, fault
from api.gateway.upstream.pool import UpstreamRequest
from api.http.body import ClientLeft, read_body
from api.http.problems import problem_response
from core.errors import NakaError
from core.resilience.deadline import within
from core.resilience.rates import Rate
from core.resilience.shares import FairPool
from core.settings import Settings
from core.tenancy.principal import Scope as KeyScope

COUNT_PATH = "/v1/messages/count_tokens"
_ANSWER_S = 15.0
"""The longest that one count may keep its place: the largest prompt takes a few seconds."""


class CountTokens:
    """The ASGI application of the route. One per process."""

    def __init__(
        self,
        provider: Provider,
        identities: Identities,
        models: AllowedModels,
        *,
        places: FairPool,
        settings: Settings,
    ) -> None:
        self._provider = provider
        self._identities = identities
        self._models = models
        self._places = places
        self._rate = Rate(settings.messages_counts_per_minute)
        self._max_bytes = settings.messages_body_max_bytes
        self._deadline_s = settings.store_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one count."""
        try:
            answer = await self._count(scope, receive)
        except ClientLeft:
            return
        except NakaError as error:
            response = problem_response(error, scope)
        else:
            response = Response(answer.body, media_type="application/json")
        await response(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive) -> WholeAnswer:
        async with within(self._deadline_s):
            principal = await self._identities.principal_of(scope, fresh=True)
            principal = await self._identities.acting_for(scope, principal, fresh=True)
        principal.require(KeyScope.CHAT)
        self._rate.spend(principal.user_id, "Too many token counts.")
        raw = await read_body(scope, receive, max_bytes=self._max_bytes)
        body, _ = await read_request(scope, raw, read_count_body, max_bytes=self._max_bytes)
        async with within(self._deadline_s):
            await self._models.require(principal, body.fields.model)
        path = target(COUNT_PATH.encode(), scope)
        async with self._places.wait(principal.tenant_id):
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return await self._provider.fetch(UpstreamRequest(forwarded(scope), [body.raw], target=path))
            except TimeoutError as error:
                raise fault("upstream_timeout") from error
