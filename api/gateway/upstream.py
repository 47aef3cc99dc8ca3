"""Anthropic: the only module that knows its SDK. One client for the process, over aiohttp.

A stream is opened before anything is said to our own client, so that its faults become real HTTP statuses. Retried
is only what cannot have been paid for: an answer with a retryable status, or a connection that was never made. A
request that was sent and not answered is not sent again. All tries share one deadline. The SDK's own retries are off,
and so is every environment variable that it reads. Text is counted by the free count-tokens call: a prompt before it is
sent or when it was never answered, an answer that broke off. That call has bounds of its own. Sources: facts on
Anthropic's API, sections 1, 3 and 6.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import anthropic
import httpx2
from anthropic import AsyncAnthropic, omit

from api.gateway.stream_errors import COME_BACK_S, UpstreamFault, fault
from api.gateway.upstream_transport import ON_SENT, READER, AiohttpClient
from api.pools import count_shares
from core.logs import get_logger
from core.resilience.shares import OWNER, FairPool, PoolFull
from core.settings import Settings
from metering.journal.recorder import UsageRecorder

_KEEPALIVE_S = 60
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0
_LINGER_S = 0.5
_COUNT_S = 5.0
_SPARE_CONNECTIONS = 64
"""The transport's own limit lies so far above what the shares let through: nobody ever waits for it."""
_SMALLEST = "a"  # one token to any tokenizer
_OVERHEAD_TTL_S = 3600.0
_MAX_OVERHEAD_TOKENS = 1024
_MAX_MODELS = 64
_MAX_REQUEST_ID_CHARS = 200
_RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504, 529})

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """One question; `system` is sent only if it says something, and is empty if it does not."""

    model: str
    system: str
    message: str


class UpstreamStream:
    """An answer under way: its bytes as they arrive. Close it in any case."""

    def __init__(self, response: httpx2.Response) -> None:
        self._answer: aiohttp.ClientResponse = response.extensions[READER]
        self._content = self._answer.content
        self.request_id = _storable(response.headers.get("request-id"))
        self.gave_up = False
        """Whether the upstream was silent for too long, and `give_up` was called."""

    async def read(self) -> bytes:
        """What has arrived, as soon as something has; nothing at the end. Breaks with one of `BROKEN`."""
        chunk: bytes = await self._content.readany()
        return chunk

    def give_up(self) -> None:
        """Hangs up under the reader's hands: its `read` breaks."""
        self.gave_up = True
        self._answer.close()

    async def finish(self) -> None:
        """Reads past the end, so that the connection serves the next request; gives up on one that lingers."""
        if not self._content.at_eof():
            with contextlib.suppress(*BROKEN, TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while await self._content.readany():
                        pass

    def close(self) -> None:
        """Hangs up at once, unless everything was read."""
        self._answer.release()


BROKEN = (aiohttp.ClientError, OSError)
"""What a stream can break with after its head."""


class Upstream:
    """The client. One per process; close it at the end."""

    def __init__(self, settings: Settings, counts: FairPool | None = None) -> None:
        """`counts`: the places of count-tokens calls. Those of streams are taken by the usage middleware."""
        self._counts = count_shares() if counts is None else counts
        self._retries = settings.upstream_retries
        self._open_timeout_s = settings.upstream_open_timeout_s
        # An explicit key keeps the SDK from reading credentials and profiles from the environment, `base_url` from its
        # own variable, `open_telemetry=False` from five more.
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
        self._client._custom_headers = {}  # noqa: SLF001 - ANTHROPIC_CUSTOM_HEADERS, which no argument turns off
        self._create = self._client.messages.with_streaming_response.create
        self._overheads: dict[str, tuple[float, int]] = {}

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()

    async def open(
        self, prompt: ChatPrompt, recorder: UsageRecorder, is_awaited: Callable[[], bool] = lambda: True
    ) -> UpstreamStream:
        """A stream whose head has arrived with status 200. Raises UpstreamFault.

        `recorder` says how many tokens the answer may have, and learns whether a request is with the provider,
        unanswered. Nothing is sent again once nobody waits for the answer (`is_awaited`).
        """
        announced = ON_SENT.set(recorder.sent)
        try:
            async with asyncio.timeout(self._open_timeout_s) as deadline:
                return await self._open(prompt, recorder, is_awaited, deadline)
        except TimeoutError as error:
            raise _timed_out() from error
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
        """The size of the prompt in tokens, by Anthropic's free count. Bounded; raises UpstreamFault."""
        async with self._turn_to_count():
            return await self._count(prompt)

    @contextlib.asynccontextmanager
    async def _turn_to_count(self) -> AsyncIterator[None]:
        """A turn for a count: within `_COUNT_S`, waiting included; refused when too many of the tenant's wait."""
        try:
            async with asyncio.timeout(_COUNT_S), self._counts.wait(OWNER.get()):
                yield
        except PoolFull as error:
            raise fault("upstream_busy", status=503) from error
        except TimeoutError as error:
            raise _timed_out() from error

    async def count_output(self, model: str, text: str) -> int:
        """The tokens of `text` as output: its count as a message, less what a message of one token counts beyond it.

        Bounded like every count. A difference that cannot be the text's (a token is at least a byte) is a fault:
        Anthropic calls its counts estimates, and a proxy may answer anything. Raises UpstreamFault.
        """
        async with self._turn_to_count():
            overhead = await self._message_overhead(model)
            tokens = await self._count(ChatPrompt(model, "", text)) - overhead
        if not 0 < tokens <= len(text.encode("utf-8", "replace")):
            raise fault("upstream_broken")
        return tokens

    async def _message_overhead(self, model: str) -> int:
        """What the count of a message has on top of its text; measured now and then, by model."""
        now = time.monotonic()
        measured_at, overhead = self._overheads.get(model, (-math.inf, 0))
        if now - measured_at > _OVERHEAD_TTL_S:
            overhead = await self._count(ChatPrompt(model, "", _SMALLEST)) - 1
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
            raise _timed_out() from error
        except (anthropic.APIError, *BROKEN, ValueError) as error:
            raise _fault(error) from error
        tokens = getattr(counted, "input_tokens", None)  # the SDK passes on what is not JSON as it came
        if not isinstance(tokens, int) or tokens < 0:
            raise fault("upstream_broken")
        return tokens


def _storable(word: str | None) -> str | None:
    """A name of the provider's as the books can take it: Postgres has no NUL, and a header may be of any length."""
    return None if word is None else word[:_MAX_REQUEST_ID_CHARS].replace("\0", "")


def _wait_before_retry(error: anthropic.APIError, tries: int) -> float | None:
    """Seconds to wait before the next try; None when there must be none."""
    backoff = min(_FIRST_WAIT_S * 2**tries, _LONGEST_WAIT_S) * random.uniform(0.75, 1)  # noqa: S311 - jitter
    if isinstance(error, anthropic.APIStatusError):
        told = error.response.headers.get("x-should-retry")
        if told == "false" or (told != "true" and error.status_code not in _RETRYABLE):
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
    """Whether the connection was never made, so that nothing was sent.

    The transport maps a dropped connection to a ConnectError too; only the original tells them apart.
    """
    while error is not None:
        if isinstance(error, _NEVER_CONNECTED):
            return True
        error = error.__cause__
    return False


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds that the provider asks to wait; None when it says nothing we can read."""
    for name, scale in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


_BY_STATUS = {
    401: (502, "upstream_credentials"),
    402: (502, "upstream_account"),
    403: (502, "upstream_credentials"),
    404: (502, "upstream_model"),
    408: (504, "upstream_timeout"),
    409: (503, "upstream_busy"),
    413: (413, "input_too_large"),
    429: (503, "upstream_rate_limited"),
    503: (503, "upstream_overloaded"),
    504: (504, "upstream_timeout"),
    529: (503, "upstream_overloaded"),
}


def _fault(error: BaseException) -> UpstreamFault:
    """What our client is told of an SDK error. The details go to the log, without its words."""
    if isinstance(error, anthropic.APIStatusError):
        rejected = (502, "upstream_broken" if error.response.is_server_error else "upstream_rejected")
        status, code = _BY_STATUS.get(error.status_code, rejected)
        retry_after = _retry_after_s(error.response.headers)
        log.warning(
            "upstream_status",
            status=error.status_code,
            type=error.type,
            upstream_request_id=error.response.headers.get("request-id"),
        )
        wait_s = COME_BACK_S if retry_after is None else max(1, math.ceil(retry_after))
        return fault(code, status=status, retry_after_s=wait_s)
    if isinstance(error, anthropic.APITimeoutError | TimeoutError):
        return _timed_out()
    log.warning("upstream_unreachable", error=type(error).__name__)
    return fault("upstream_unreachable", sent=not _never_connected(error))


def _timed_out() -> UpstreamFault:
    return fault("upstream_timeout", status=504)
