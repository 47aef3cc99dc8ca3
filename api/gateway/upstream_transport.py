"""The HTTP client that the SDK uses, over aiohttp.

The SDK's own aiohttp transport costs as much per piece of text as the rest of the relay (docs/decisions/0002). This one
exposes the reader in the response's `extensions`; `api.gateway.idle_monitor` replaces the timer. No redirects, no
cookies, at most one proxy. Bodies read whole are bounded in bytes and time; beyond that the connection is closed.
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
"""The extension of a streamed httpx2 response that holds the aiohttp response."""
ON_SENT: ContextVar[Callable[[], None] | None] = ContextVar("naka.on_sent", default=None)
"""Called when a request's body is handed to its connection: from then on the provider may have received it."""
MAX_WHOLE_BODY_BYTES = 64 * 1024
_WHOLE_BODY_S = 2.0


class AiohttpClient(httpx2.AsyncClient):
    """The client. `connect_timeout_s` bounds the wait for a free connection and the connecting."""

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
        """Sends once and returns when the head has arrived; with `stream` the body is not read.

        Raises aiohttp's errors, which the SDK wraps in APIConnectionError.
        """
        session, body, on_sent = self._session or self._connect(), request.content, ON_SENT.get()
        answer = await session.request(
            request.method,
            str(request.url),
            headers=request.headers,
            data=body if on_sent is None else _Announced(body, on_sent),
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
        """Creates the session, inside the running event loop."""
        connector = aiohttp.TCPConnector(
            limit=self._max_connections, keepalive_timeout=self._keepalive_s, ssl=httpx2.create_ssl_context()
        )
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self._session


class _Body(httpx2.AsyncByteStream):
    """The bounded body of an error response; the SDK reads no other."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield await _read_whole(self._answer)

    async def aclose(self) -> None:
        self._answer.release()
        await self._answer.wait_for_close()


class _Announced(aiohttp.BytesPayload):
    """A request body that calls `on_sent` when it is handed to the connection."""

    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(body)
        self._on_sent = on_sent

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        self._on_sent()  # before the write: after a failed one it is unknown what was sent
        await super().write_with_length(writer, content_length)


async def _read_whole(answer: aiohttp.ClientResponse) -> bytes:
    """Returns the body up to the bounds. A connection with unread data is closed at its release."""
    body = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_WHOLE_BODY_S):
            while len(body) <= MAX_WHOLE_BODY_BYTES and (chunk := await answer.content.readany()):
                body += chunk
    return bytes(body[:MAX_WHOLE_BODY_BYTES])


class _Unused(httpx2.AsyncBaseTransport):
    """A placeholder: httpx2 would otherwise build a transport with its own TLS context."""
