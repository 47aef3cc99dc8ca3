"""The HTTP client that the SDK uses, over the relay's own connections (`api.gateway.upstream.pool`).

Everything sent by the SDK is small and not hot: count-tokens calls. Bodies read whole are bounded in bytes and time;
beyond that the connection is closed.
"""

import asyncio
import contextlib
from typing import Any

import httpx2

from api.gateway.upstream.answer import Answer
from api.gateway.upstream.pool import UpstreamPool, UpstreamRequest

MAX_WHOLE_BODY_BYTES = 64 * 1024
_WHOLE_BODY_S = 2.0
_SET_BY_THE_POOL = frozenset({"host", "content-length", "connection", "accept-encoding"})


class SdkClient(httpx2.AsyncClient):
    """The client. It waits for no time-out of the SDK: its callers have deadlines."""

    def __init__(self, pool: UpstreamPool) -> None:
        super().__init__(transport=_Unused(), trust_env=False)
        self._pool = pool

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """Sends once and reads the answer. Raises ConnectionFault, which the SDK wraps in APIConnectionError."""
        answer = await self._pool.ask(
            UpstreamRequest(
                headers=[
                    (name.encode(), value.encode())
                    for name, value in request.headers.items()
                    if name.lower() not in _SET_BY_THE_POOL
                ],
                parts=[request.content],
                target=request.url.raw_path,
            )
        )
        try:
            content = await read_whole(answer)
        finally:
            answer.close()
        return httpx2.Response(answer.status, headers=answer.headers, content=content, request=request)


async def read_whole(answer: Answer) -> bytes:
    """Returns the body up to the bounds. The caller closes the answer. Raises ConnectionFault."""
    body = bytearray()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_WHOLE_BODY_S):
            while len(body) <= MAX_WHOLE_BODY_BYTES and (piece := await answer.read()):
                body += piece
    return bytes(body[:MAX_WHOLE_BODY_BYTES])


class _Unused(httpx2.AsyncBaseTransport):
    """A placeholder: httpx2 would otherwise build a transport with its own TLS context."""
