"""Makes the call of a `POST /v1/messages`: what to admit it for, what to send, and how its answer goes back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
from starlette.datastructures import Headers
from starlette.types import Scope

from api.auth.credentials import PRINCIPAL
from api.gateway.codec import Call
from api.gateway.messages.body import MessagesBody, read_body, splice
from api.gateway.messages.codecs import StreamCodec, WholeCodec
from api.gateway.messages.encoding import decode, read_large
from api.gateway.messages.features import asked
from api.gateway.messages.headers import forwarded, target
from api.gateway.messages.prompt_bound import prompt_bound
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.pool import Header, UpstreamRequest
from api.http.body_admission import HOLD
from core.settings import Settings
from core.tenancy.principal import Principal
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
        values = msgspec.json.decode(self.body.raw, type=dict[str, msgspec.Raw])
        counted = msgspec.json.encode({name: value for name, value in values.items() if name in _COUNTED})
        return UpstreamRequest(self.headers, [counted], self.target.replace(b"/messages", b"/messages/count_tokens", 1))


@dataclass(frozen=True, slots=True)
class MessagesReader:
    """Makes calls of bodies. One per process."""

    settings: Settings
    upstream: Upstream
    window_tokens: Callable[[str], int]
    """The most tokens of a prompt of a model."""

    async def read(self, scope: Scope, raw: bytes) -> Call:
        """Returns the call of a body. Raises BadEncoding, InvalidRequest, Forbidden."""
        principal: Principal = scope[PRINCIPAL]
        headers, max_bytes = Headers(scope=scope), self.settings.messages_body_max_bytes
        encoding = headers.get("content-encoding", "")
        raw = await decode(raw, encoding, max_bytes=max_bytes, hold=scope[HOLD])
        body = await read_large(read_body, raw)
        ask = asked(body)
        ask.require_models(principal)
        prompt = MessagesPrompt(body, forwarded(scope), target(b"/v1/messages", scope))
        bound = prompt_bound(
            body,
            ask,
            window_tokens=self.window_tokens(body.fields.model),
            betas=",".join(headers.getlist("anthropic-beta")).replace(" ", "").split(","),
            min_grant_tokens=self.settings.min_grant_tokens,
            min_tool_grant_tokens=self.settings.min_tool_grant_tokens,
        )
        admission = AdmissionRequest(
            model=body.fields.model,
            max_tokens=body.max_tokens,
            prompt_bound=bound.most,
            prompt_likely=min(bound.likely, bound.most),
            count=partial(self._count, prompt) if bound.is_countable else None,
            smallest_output=bound.smallest_output,
            web_searches=bound.web_searches,
            modifiers=ask.modifiers,
            features=ask.features,
            further_models=ask.models,
            may_choose_model=ask.may_choose_model,
            further_output=bound.further_output,
            prompt_once=bound.once,
            of_count=bound.of_count,
        )
        thinking = body.fields.thinking
        budget = None if thinking is None else thinking.budget_tokens
        return Call(prompt, admission, StreamCodec if body.stream else WholeCodec, budget)

    async def _count(self, prompt: MessagesPrompt) -> int:
        return await self.upstream.count(prompt.count_request())
