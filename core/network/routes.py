"""The HTTP client for URLs that tenants choose: direct, or through the environment's proxy. It follows no redirect.

In production only public addresses are called, since tenants choose the URLs. A proxy would resolve a name itself, to
an unchecked address. So the name is resolved here, the proxy gets the checked address, and TLS still verifies the name.
The proxy must allow CONNECT to addresses. A name that this host can't resolve is not called.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
from yarl import URL

from core.network.proxies import Proxies
from core.network.public_addresses import PublicResolver, public_socket

_HTTPS = 443


class TooLong(Exception):
    """The answer is longer than the caller reads."""


class Routes:
    """The HTTP clients of one run of calls: one direct, one for the proxy."""

    def __init__(
        self, proxies: Proxies, timeout_s: float, *, limit: int, confined: bool, threads: Executor | None = None
    ) -> None:
        """`limit`: concurrent calls of each client. `confined`: only public addresses, as in production.

        `threads`: as of `PublicResolver`.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._proxies = proxies
        self._resolver = PublicResolver(threads) if confined else None
        options: dict[str, Any] = {"resolver": self._resolver, "socket_factory": public_socket} if confined else {}
        direct = aiohttp.TCPConnector(limit=limit, **options)
        self._direct = aiohttp.ClientSession(connector=direct, timeout=timeout, trust_env=False)
        # The proxy itself may have a private address.
        proxied = aiohttp.TCPConnector(limit=limit)
        self._proxied = aiohttp.ClientSession(connector=proxied, timeout=timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._direct.close()
        await self._proxied.close()

    async def post(self, url: str, data: str, headers: Mapping[str, str]) -> int:
        """Posts and returns the status. Raises aiohttp.ClientError, OSError, TimeoutError."""
        async with self._call("POST", url, dict(headers), data=data) as response:
            return response.status

    async def get(self, url: str, headers: Mapping[str, str], *, max_bytes: int) -> tuple[int, bytes]:
        """Returns the status and the body as it was sent. Raises TooLong, aiohttp.ClientError, OSError, TimeoutError.

        A compressed body stays compressed, so that a small one cannot become a large one.
        """
        sent = {**headers, "accept-encoding": "identity"}
        async with self._call("GET", url, sent, auto_decompress=False) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > max_bytes:
                    response.close()
                    raise TooLong
            return response.status, bytes(body)

    @asynccontextmanager
    async def _call(
        self, method: str, url: str, headers: dict[str, str], **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Calls without following redirects."""
        proxy = self._proxies.of(url)
        client: aiohttp.ClientSession = self._direct
        target = URL(url)
        if proxy is not None:
            client, options["proxy"] = self._proxied, proxy
            host = target.raw_host
            if self._resolver is not None and host is not None:
                found = await self._resolver.resolve(host, target.port or _HTTPS, socket.AF_UNSPEC)
                headers["host"] = target.raw_authority
                options["server_hostname"] = host
                target = target.with_host(found[0]["host"])
        async with client.request(method, target, headers=headers, allow_redirects=False, **options) as response:
            yield response
