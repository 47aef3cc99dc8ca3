"""Makes the call of a `POST /v1/messages`: what to admit it for, what to send, and how its answer goes back.

A large body is read, classified and bounded outside the event loop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.datastructures import Headers
from starlette.types import Scope

from api.auth.credentials import PRINCIPAL
from api.gateway.codec import Call
from api.gateway.messages.body import MessagesBody, only, read_body, splice
from api.gateway.messages.codecs import StreamCodec, WholeCodec
from api.gateway.messages.encoding import decode, read_large
from api.gateway.messages.features import Asked, asked
from api.gateway.messages.headers import forwarded, target
from api.gateway.messages.prompt_bound import prompt_bound
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.pool import Header, UpstreamRequest
from api.http.body_admission import HOLD
from core.settings import Settings
from metering.admission.admission import AdmissionRequest

_COUNTED = frozenset(
    {
        *("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format"),
        *("cache_control", "context_management", "speed"),
    }
)
"""The fields of a count. Count-tokens refuses others (source: the types of Anthropic's SDK)."""


@dataclass(frozen=True, slots=True)
class MessagesPrompt:
    """A body to send on as it came, but for `max_tokens` and `stream`."""

    body: MessagesBody
    headers: list[Header]
    target: bytes

    def request(self, max_tokens: int) -> UpstreamRequest:
        """The request for a streamed answer of at most `max_tokens`."""
        return UpstreamRequest(self.headers, splice(self.body, max_tokens=max_tokens), self.target)

    def count_request(self) -> UpstreamRequest:
        """The request for the number of its input tokens."""
        counts = self.target.replace(b"/messages", b"/messages/count_tokens", 1)
        return UpstreamRequest(self.headers, only(self.body, _COUNTED), counts)


async def read_request(
    scope: Scope, raw: bytes, read: Callable[[bytes], MessagesBody], *, max_bytes: int
) -> tuple[MessagesBody, Asked]:
    """Returns the body of an authenticated request as `read` reads it, and what it asks for.

    Raises BadEncoding, InvalidRequest, and Forbidden for a further model that the key may not use.
    """

    def read_and_classify(raw: bytes) -> tuple[MessagesBody, Asked]:
        body = read(raw)
        return body, asked(body)

    encoding = Headers(scope=scope).get("content-encoding", "")
    raw = await decode(raw, encoding, max_bytes=max_bytes, hold=scope[HOLD])
    body, ask = await read_large(read_and_classify, raw)
    ask.require_models(scope[PRINCIPAL])
    return body, ask


@dataclass(frozen=True, slots=True)
class MessagesReader:
    """Makes calls of bodies. One per process."""

    settings: Settings
    upstream: Upstream
    window_tokens: Callable[[str], int]
    """The most tokens of a prompt of a model."""

    async def read(self, scope: Scope, raw: bytes) -> Call:
        """Returns the call of a body. Raises BadEncoding, InvalidRequest, Forbidden."""
        body, ask = await read_request(scope, raw, read_body, max_bytes=self.settings.messages_body_max_bytes)
        prompt = MessagesPrompt(body, forwarded(scope), target(b"/v1/messages", scope))
        window_tokens = self.window_tokens(body.fields.model)  # starts a fetch, so not in a thread
        bound = await read_large(
            lambda _: prompt_bound(
                body,
                ask,
                window_tokens=window_tokens,
                betas=",".join(Headers(scope=scope).getlist("anthropic-beta")).replace(" ", "").split(","),
                min_grant_tokens=self.settings.min_grant_tokens,
                min_tool_grant_tokens=self.settings.min_tool_grant_tokens,
            ),
            body.raw,
        )
        admission = AdmissionRequest(
            model=body.fields.model,
            max_tokens=body.max_tokens,
            prompt_bound=bound.most,
            prompt_likely=bound.likely,
            count=partial(self._count, prompt) if bound.is_countable else None,
            smallest_output=bound.smallest_output,
            web_searches=bound.web_searches,
            modifiers=ask.modifiers,
            features=ask.features,
            further_models=ask.models,
            may_choose_model=ask.may_choose_model,
            further_output=bound.further_output,
            of_count=bound.of_count,
        )
        thinking = body.fields.thinking
        budget = None if thinking is None else thinking.budget_tokens
        return Call(prompt, admission, StreamCodec if body.stream else WholeCodec, budget, bound.once)

    async def _count(self, prompt: MessagesPrompt) -> int:
        return await self.upstream.count(prompt.count_request())
