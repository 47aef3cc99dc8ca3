"""The SDK's HTTP client over aiohttp: what the SDK asks of it, and no more.

The SDK brings an aiohttp transport of its own under httpx2's client. Measured per separately arriving piece, the four
generators that this stacks on aiohttp's reader, and the timer that aiohttp arms for each read, cost as much as the
rest of the relay (docs/decisions/0002). So this client sends with aiohttp directly and hands the reader out in the
response's `extensions`. There are no redirects or cookies here, and one proxy or none for all that it sends.
Silence on a stream is for its reader to watch (`api.gateway.idle_monitor`), not for a timer per read. Bodies that are
read whole (of
errors, and of count-tokens) are bounded in bytes and in time: what is beyond is cut off with the connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
import httpx2
from yarl import URL

READER = "naka.reader"
"""The name of the aiohttp response among the extensions of a streamed httpx2 response."""
ON_SENT: ContextVar[Callable[[], None] | None] = ContextVar("naka.on_sent", default=None)
"""Called when a request's body is handed to its connection; from then on the provider may know of it."""
MAX_WHOLE_BODY_BYTES = 64 * 1024
_WHOLE_BODY_S = 2.0


class AiohttpClient(httpx2.AsyncClient):
    """One per process. `connect_timeout_s` bounds both the wait for a free connection and the making of one."""

    def __init__(
        self, *, max_connections: int, keepalive_s: float, connect_timeout_s: float, proxy: str | None = None
    ) -> None:
        super().__init__(transport=_Unused(), trust_env=False)
        self._max_connections = max_connections
        self._keepalive_s = keepalive_s
        self._proxy = None if proxy is None else URL(proxy)
        self._timeout: Any = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s, sock_read=None
        )
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: httpx2.Request, *, stream: bool = False, **_: Any) -> httpx2.Response:
        """Sends once and answers when the head has arrived; with `stream` the body is left to its reader.

        Raises aiohttp's errors as they are; the SDK makes them its APIConnectionError.
        """
        session = self._session or self._connect()
        answer = await session.request(
            request.method,
            str(request.url),
            headers=request.headers,
            data=_payload(request.content),
            allow_redirects=False,
            timeout=self._timeout,
            proxy=self._proxy,
        )
        if stream:
            return httpx2.Response(
                answer.status,
                headers=answer.raw_headers,
                stream=_Body(answer),
                request=request,
                extensions={READER: answer},
            )
        async with answer:
            return httpx2.Response(
                answer.status, headers=answer.raw_headers, content=await _read_whole(answer), request=request
            )

    async def aclose(self) -> None:
        """Closes every connection."""
        await super().aclose()
        if self._session is not None:
            await self._session.close()

    def _connect(self) -> aiohttp.ClientSession:
        """The session is made where the loop runs, on the first request."""
        connector = aiohttp.TCPConnector(
            limit=self._max_connections, keepalive_timeout=self._keepalive_s, ssl=httpx2.create_ssl_context()
        )
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self._session


class _Body(httpx2.AsyncByteStream):
    """The body as the SDK reads it, which it does for errors only: bounded."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield await _read_whole(self._answer)

    async def aclose(self) -> None:
        self._answer.release()
        await self._answer.wait_for_close()


class _Announced(aiohttp.BytesPayload):
    """A request's body that says when it is handed to the connection."""

    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(body)
        self._on_sent = on_sent

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        """Writes it; what was sent before an error here, nobody knows."""
        self._on_sent()
        await super().write_with_length(writer, content_length)


def _payload(body: bytes) -> bytes | _Announced:
    on_sent = ON_SENT.get()
    return body if on_sent is None else _Announced(body, on_sent)


async def _read_whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body up to the bounds. What is left unread makes the connection useless, and it is closed at its release."""
    body = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_WHOLE_BODY_S):
            while len(body) <= MAX_WHOLE_BODY_BYTES and (chunk := await answer.content.readany()):
                body += chunk
    return bytes(body[:MAX_WHOLE_BODY_BYTES])


class _Unused(httpx2.AsyncBaseTransport):
    """httpx2 wants a transport, and would make one with a TLS context of its own."""
