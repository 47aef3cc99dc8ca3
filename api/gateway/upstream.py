"""The client of Anthropic: the only module that imports its SDK. One per process, over aiohttp.

Only a request that cannot have been charged is retried: a retryable status, or a connection that was never made. All
tries share one deadline; the SDK's own retries and environment variables are off. The free count-tokens call counts
prompts and interrupted answers, within bounds of its own. Anthropic down: `UpstreamFault`.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import anthropic
import httpx2
from anthropic import AsyncAnthropic, omit

from api.gateway.stream_errors import RETRY_AFTER_S, UpstreamFault, fault
from api.gateway.upstream_transport import ON_SENT, READER, AiohttpClient
from api.pools import count_shares
from core.logs import get_logger
from core.resilience.backoff import Backoff
from core.resilience.shares import OWNER, FairPool, PoolFull
from core.settings import Settings
from metering.journal.recorder import UsageRecorder

_KEEPALIVE_S = 60
_BACKOFF = Backoff(0.5, 8.0, jitter=0.25)
_LINGER_S = 0.5
_COUNT_S = 5.0
_SPARE_CONNECTIONS = 64
"""Margin of the transport's own limit above the shared pools, so that no request waits for it."""
_SHORTEST_TEXT = "a"  # one token to any tokenizer
_OVERHEAD_TTL_S = 3600.0
_MAX_OVERHEAD_TOKENS = 1024
_MAX_MODELS = 64
_MAX_REQUEST_ID_CHARS = 200
_RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504, 529})

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A prompt; an empty `system` is not sent."""

    model: str
    system: str
    message: str


class UpstreamStream:
    """An answer being streamed, as bytes. The caller must close it."""

    def __init__(self, response: httpx2.Response) -> None:
        self._answer: aiohttp.ClientResponse = response.extensions[READER]
        self._content = self._answer.content
        self.request_id = _storable(response.headers.get("request-id"))
        self.gave_up = False
        """Whether `give_up` ended the stream."""

    async def read(self) -> bytes:
        """Returns the bytes that have arrived, at least one; none at the end. Raises one of `STREAM_ERRORS`."""
        chunk: bytes = await self._content.readany()
        return chunk

    def give_up(self) -> None:
        """Closes the connection; a pending `read` raises."""
        self.gave_up = True
        self._answer.close()

    async def finish(self) -> None:
        """Reads to the end so that the connection can be reused, for at most `_LINGER_S`."""
        if not self._content.at_eof():
            with contextlib.suppress(*STREAM_ERRORS, TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while await self._content.readany():
                        pass

    def close(self) -> None:
        """Closes the connection, unless everything was read."""
        self._answer.release()


STREAM_ERRORS = (aiohttp.ClientError, OSError)
"""The errors of a stream after its head."""


class Upstream:
    """The client. One per process; call `close` when done."""

    def __init__(self, settings: Settings, counts: FairPool | None = None) -> None:
        """`counts`: the pool of count-tokens calls. The usage middleware takes the places of streams."""
        self._counts = count_shares() if counts is None else counts
        self._retries = settings.upstream_retries
        self._open_timeout_s = settings.upstream_open_timeout_s
        # Without explicit arguments the SDK reads credentials, profiles, the URL and telemetry from the environment.
        self._client = AsyncAnthropic(
            api_key=settings.anthropic_api_key.get_secret_value(),
            base_url=settings.anthropic_base_url,
            max_retries=0,
            open_telemetry=False,
            http_client=AiohttpClient(
                max_connections=settings.upstream_max_connections + self._counts.places + _SPARE_CONNECTIONS,
                keepalive_s=_KEEPALIVE_S,
                connect_timeout_s=settings.upstream_connect_timeout_s,
                proxy=settings.proxies.of(settings.anthropic_base_url),
            ),
        )
        self._client._custom_headers = {}  # noqa: SLF001 - no argument turns off ANTHROPIC_CUSTOM_HEADERS
        self._create = self._client.messages.with_streaming_response.create
        self._overheads: dict[str, tuple[float, int]] = {}

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()

    async def open(
        self, prompt: ChatPrompt, recorder: UsageRecorder, is_awaited: Callable[[], bool] = lambda: True
    ) -> UpstreamStream:
        """Returns a stream whose head has arrived with status 200. Raises UpstreamFault.

        `recorder` gives the granted output tokens, and records whether a sent request is unanswered. Retries stop once
        `is_awaited` is false.
        """
        announced = ON_SENT.set(recorder.sent)
        try:
            async with asyncio.timeout(self._open_timeout_s) as deadline:
                return await self._open(prompt, recorder, is_awaited, deadline)
        except TimeoutError as error:
            raise fault("upstream_timeout") from error
        finally:
            ON_SENT.reset(announced)

    async def _open(
        self, prompt: ChatPrompt, recorder: UsageRecorder, is_awaited: Callable[[], bool], deadline: asyncio.Timeout
    ) -> UpstreamStream:
        tries = 0
        while True:
            manager = self._create(
                model=prompt.model,
                max_tokens=recorder.granted_output_tokens,
                system=prompt.system or omit,
                messages=[{"role": "user", "content": prompt.message}],
                stream=True,
                extra_headers={"accept-encoding": "identity"},
            )
            try:
                response = await manager.__aenter__()
            except anthropic.APIError as error:
                if isinstance(error, anthropic.APIStatusError):
                    recorder.refused()
                wait_s = _wait_before_retry(error, tries)
                left_s = (deadline.when() or 0) - asyncio.get_running_loop().time()
                if wait_s is None or tries >= self._retries or wait_s >= left_s or not is_awaited():
                    raise _fault(error) from error
                tries += 1
                log.warning("upstream_retry", tries=tries, wait_s=round(wait_s, 2), error=type(error).__name__)
                await asyncio.sleep(wait_s)
            else:
                return UpstreamStream(response.http_response)

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
                model=prompt.model,
                system=prompt.system or omit,
                messages=[{"role": "user", "content": prompt.message}],
            )
        except TimeoutError as error:
            raise fault("upstream_timeout") from error
        except (anthropic.APIError, *STREAM_ERRORS, ValueError) as error:
            raise _fault(error) from error
        tokens = getattr(counted, "input_tokens", None)  # the SDK returns a non-JSON body unparsed
        if not isinstance(tokens, int) or tokens < 0:
            raise fault("upstream_broken")
        return tokens


def _storable(request_id: str | None) -> str | None:
    """Returns a request id that fits its column: Postgres text has no NUL, and a header may have any length."""
    return None if request_id is None else request_id[:_MAX_REQUEST_ID_CHARS].replace("\0", "")


def _wait_before_retry(error: anthropic.APIError, tries: int) -> float | None:
    """Returns seconds to wait before the next try; None when there must be none."""
    backoff = _BACKOFF.wait_s(tries)
    if isinstance(error, anthropic.APIStatusError):
        should_retry = error.response.headers.get("x-should-retry")
        if should_retry == "false" or (should_retry != "true" and error.status_code not in _RETRYABLE):
            return None
        retry_after = _retry_after_s(error.response.headers)
        if retry_after is None:
            return None if error.status_code == httpx2.codes.TOO_MANY_REQUESTS else backoff
        return max(retry_after, 0.05)
    return backoff if _never_connected(error) else None


_NEVER_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,  # the proxy refused the tunnel
)


def _never_connected(error: BaseException | None) -> bool:
    """Whether no connection was made, so nothing was sent. Only the causes of the SDK's error distinguish this."""
    while error is not None:
        if isinstance(error, _NEVER_CONNECTED):
            return True
        error = error.__cause__
    return False


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """Returns the seconds of the provider's `Retry-After`; None without a valid one."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


_BY_STATUS = {
    401: "upstream_credentials",
    402: "upstream_account",
    403: "upstream_credentials",
    404: "upstream_model",
    408: "upstream_timeout",
    409: "upstream_busy",
    413: "input_too_large",
    429: "upstream_rate_limited",
    503: "upstream_overloaded",
    504: "upstream_timeout",
    529: "upstream_overloaded",
}


def _fault(error: BaseException) -> UpstreamFault:
    """Returns the fault of an SDK error, and logs its details without its text."""
    if isinstance(error, anthropic.APIStatusError):
        rejected = "upstream_broken" if error.response.is_server_error else "upstream_rejected"
        retry_after = _retry_after_s(error.response.headers)
        log.warning(
            "upstream_status",
            status=error.status_code,
            type=error.type,
            upstream_request_id=error.response.headers.get("request-id"),
        )
        wait_s = RETRY_AFTER_S if retry_after is None else max(1, math.ceil(retry_after))
        return fault(_BY_STATUS.get(error.status_code, rejected), retry_after_s=wait_s)
    if isinstance(error, anthropic.APITimeoutError | TimeoutError):
        return fault("upstream_timeout")
    log.warning("upstream_unreachable", error=type(error).__name__)
    return fault("upstream_unreachable", sent=not _never_connected(error))
