"""The client of Anthropic: the only module that imports its SDK. One per process.

Answers are streamed by plain HTTP over connections of our own, since the SDK's call costs as much as the rest of a
request; the SDK counts tokens. Only a request that cannot have been charged is retried: a retryable status, or a
connection that was never made. All tries share one deadline; the SDK's own retries and environment variables are off.
The free count-tokens call counts prompts and interrupted answers, within bounds of its own. Anthropic down:
`UpstreamFault`.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, cast

import anthropic
import httpx2
import msgspec
from anthropic import AsyncAnthropic, omit
from anthropic.types import MessageParam

from api.gateway.stream_errors import UpstreamFault, WholeAnswer, fault
from api.gateway.upstream.answer import Answer, ConnectionFault
from api.gateway.upstream.pool import UpstreamPool, UpstreamRequest
from api.gateway.upstream.prompts import ChatPrompt, Prompt
from api.gateway.upstream.refusals import BACKOFF, fault_of_connection, fault_of_status, wait_before_retry
from api.gateway.upstream.sdk_client import SdkClient, read_whole
from api.pools import count_shares
from core.logs import get_logger
from core.resilience.shares import OWNER, FairPool, PoolFull
from core.settings import Settings
from metering.journal.recorder import UsageRecorder

_KEEPALIVE_S = 60
_LINGER_S = 0.5
_COUNT_S = 5.0
_SHORTEST_TEXT = "a"  # one token to any tokenizer
_OVERHEAD_TTL_S = 3600.0
_MAX_OVERHEAD_TOKENS = 1024
_MAX_MODELS = 64
_MAX_REQUEST_ID_CHARS = 200

log = get_logger(__name__)


class UpstreamStream:
    """An answer being streamed, as bytes. The caller must close it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.request_id = _storable(answer.headers.get("request-id"))
        self.headers = answer.headers
        self.gave_up = False
        """Whether `give_up` ended the stream."""
        self.read, self.pipe = answer.read, answer.pipe
        self.pause, self.resume = answer.pause, answer.resume

    @property
    def is_paused(self) -> bool:
        """Whether the answer is not being read: the client does not keep up."""
        return self._answer.is_paused

    @property
    def error(self) -> ConnectionFault | None:
        """The error that ended the stream; None without one."""
        return self._answer.error

    def give_up(self) -> None:
        """Closes the connection; the stream ends with an `error`."""
        self.gave_up = True
        self._answer.close()

    async def finish(self) -> None:
        """Reads to the end so that the connection can be reused, for at most `_LINGER_S`."""
        await self._answer.ended(within_s=_LINGER_S)

    def close(self) -> None:
        """Closes the connection, unless everything was read."""
        self._answer.close()


STREAM_ERRORS = (ConnectionFault, OSError)
"""The errors of a stream after its head."""


class Upstream:
    """The client. One per process; call `close` when done."""

    def __init__(self, settings: Settings, counts: FairPool | None = None) -> None:
        """`counts`: the pool of count-tokens calls. The usage middleware takes the places of streams."""
        self._counts = count_shares() if counts is None else counts
        self._retries = settings.upstream_retries
        self._open_timeout_s = settings.upstream_open_timeout_s
        key = settings.anthropic_api_key.get_secret_value()
        self._pool = UpstreamPool(
            settings.anthropic_base_url,
            keepalive_s=_KEEPALIVE_S,
            connect_timeout_s=settings.upstream_connect_timeout_s,
            proxy=settings.proxies.of(settings.anthropic_base_url),
            tls=httpx2.create_ssl_context,
        )
        # Without explicit arguments the SDK reads credentials, profiles, the URL and telemetry from the environment.
        self._client = AsyncAnthropic(
            api_key=key,
            base_url=settings.anthropic_base_url,
            max_retries=0,
            open_telemetry=False,
            http_client=SdkClient(self._pool),
        )
        self._client._custom_headers = {}  # noqa: SLF001 - no argument turns off ANTHROPIC_CUSTOM_HEADERS
        self._credentials = (b"authorization", f"Bearer {key}".encode()), (b"x-api-key", key.encode())
        self._overheads: dict[str, tuple[float, int]] = {}

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()
        await self._pool.close()

    async def open(
        self, prompt: Prompt, recorder: UsageRecorder, is_awaited: Callable[[], bool] = lambda: True
    ) -> UpstreamStream:
        """Returns a stream whose head has arrived with status 200. Raises UpstreamFault.

        `recorder` gives the granted output tokens, and records whether a sent request is unanswered. Retries stop once
        `is_awaited` is false.
        """
        request = self._authorised(prompt.request(recorder.granted_output_tokens))
        try:
            async with asyncio.timeout(self._open_timeout_s) as deadline:
                return await self._open(request, recorder, is_awaited, deadline)
        except TimeoutError as error:
            raise fault("upstream_timeout") from error

    async def fetch(self, request: UpstreamRequest) -> WholeAnswer:
        """Returns the whole answer of a small call. Raises UpstreamFault, also for any status but 200."""
        try:
            async with asyncio.timeout(self._open_timeout_s):
                answer = await _whole(await self._pool.ask(self._authorised(request)))
        except TimeoutError as error:
            raise fault("upstream_timeout") from error
        except ConnectionFault as error:
            raise fault_of_connection(error) from error
        if answer.status != HTTPStatus.OK:
            raise fault_of_status(answer)
        return answer

    def _authorised(self, request: UpstreamRequest) -> UpstreamRequest:
        """The request with our credentials, in the form of its API version."""
        bearer, api_key = self._credentials
        credentials = api_key if (b"anthropic-version", b"2023-06-01") in request.headers else bearer
        return replace(request, headers=[*request.headers, credentials])

    async def _open(
        self,
        request: UpstreamRequest,
        recorder: UsageRecorder,
        is_awaited: Callable[[], bool],
        deadline: asyncio.Timeout,
    ) -> UpstreamStream:
        tries = 0
        while True:
            refusal: WholeAnswer | None = None
            try:
                answer = await self._pool.ask(request, recorder.sent)
                if answer.status == HTTPStatus.OK:
                    return UpstreamStream(answer)
                recorder.refused()
                refusal = await _whole(answer)
                error = fault_of_status(refusal)
                wait_s = wait_before_retry(refusal, tries)
            except ConnectionFault as broken:
                error = fault_of_connection(broken)
                wait_s = None if broken.sent else BACKOFF.wait_s(tries)
            left_s = (deadline.when() or 0) - asyncio.get_running_loop().time()
            if wait_s is None or tries >= self._retries or wait_s >= left_s or not is_awaited():
                raise error
            tries += 1
            log.warning("upstream_retry", tries=tries, wait_s=round(wait_s, 2), error=error.code)
            await asyncio.sleep(wait_s)

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        """Returns the prompt's input tokens, by Anthropic's free count-tokens call. Bounded; raises UpstreamFault."""
        async with self._count_slot():
            return await self._count(prompt)

    @contextlib.asynccontextmanager
    async def _count_slot(self) -> AsyncIterator[None]:
        """Bounds a count to `_COUNT_S`, waiting included. Raises UpstreamFault when too many of the tenant's wait."""
        try:
            async with asyncio.timeout(_COUNT_S), self._counts.wait(OWNER.get()):
                yield
        except PoolFull as error:
            raise fault("upstream_busy") from error
        except TimeoutError as error:
            raise fault("upstream_timeout") from error

    async def count(self, request: UpstreamRequest) -> int:
        """Returns the input tokens by a count-tokens request of the caller's. Bounded; raises UpstreamFault."""
        async with self._count_slot():
            answer = await self.fetch(request)
        try:
            return msgspec.json.decode(answer.body, type=_Counted).input_tokens
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise fault("upstream_broken") from error

    async def count_output(self, model: str, text: str) -> int:
        """Returns the tokens of `text` as output: its count as a message, less the overhead of a message.

        Raises UpstreamFault, also for an implausible count (a token is at least a byte): Anthropic calls its counts
        estimates, and a proxy may answer anything.
        """
        async with self._count_slot():
            overhead = await self._message_overhead(model)
            tokens = await self._count(ChatPrompt(model, "", text)) - overhead
        if not 0 < tokens <= len(text.encode("utf-8", "replace")):
            raise fault("upstream_broken")
        return tokens

    async def _message_overhead(self, model: str) -> int:
        """Returns the tokens that a message counts beyond its text; measured per model and cached."""
        now = time.monotonic()
        measured_at, overhead = self._overheads.get(model, (-math.inf, 0))
        if now - measured_at > _OVERHEAD_TTL_S:
            overhead = await self._count(ChatPrompt(model, "", _SHORTEST_TEXT)) - 1
            if not 0 <= overhead <= _MAX_OVERHEAD_TOKENS:
                raise fault("upstream_broken")
            if len(self._overheads) >= _MAX_MODELS:
                self._overheads.clear()
            self._overheads[model] = (now, overhead)
        return overhead

    async def _count(self, prompt: ChatPrompt) -> int:
        try:
            counted = await self._client.messages.count_tokens(
                model=prompt.model, system=prompt.system or omit, messages=cast("list[MessageParam]", prompt.messages)
            )
        except TimeoutError as error:
            raise fault("upstream_timeout") from error
        except (anthropic.APIError, *STREAM_ERRORS, ValueError) as error:
            raise _fault_of_sdk(error) from error
        tokens = getattr(counted, "input_tokens", None)  # the SDK returns a non-JSON body unparsed
        if not isinstance(tokens, int) or tokens < 0:
            raise fault("upstream_broken")
        return tokens


def _storable(request_id: str | None) -> str | None:
    """Returns a request id that fits its column: Postgres text has no NUL, and a header may have any length."""
    return None if request_id is None else request_id[:_MAX_REQUEST_ID_CHARS].replace("\0", "")


async def _whole(answer: Answer) -> WholeAnswer:
    """Reads a bounded body; a status is believed whatever happens to its body."""
    try:
        with contextlib.suppress(ConnectionFault):
            return WholeAnswer(answer.status, answer.headers, await read_whole(answer))
        return WholeAnswer(answer.status, answer.headers, b"")
    finally:
        answer.close()


class _Counted(msgspec.Struct):
    input_tokens: Annotated[int, msgspec.Meta(ge=0)]


def _fault_of_sdk(error: BaseException) -> UpstreamFault:
    """Returns the fault of an SDK error."""
    if isinstance(error, anthropic.APIStatusError):
        return fault_of_status(WholeAnswer(error.status_code, error.response.headers, error.response.content))
    if isinstance(error, anthropic.APITimeoutError | TimeoutError):
        return fault("upstream_timeout")
    cause = error.__cause__
    return fault_of_connection(cause if isinstance(cause, ConnectionFault) else ConnectionFault(type(error).__name__))
