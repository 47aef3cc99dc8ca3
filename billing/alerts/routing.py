"""How an alert reaches its endpoint: directly, or through the proxy of the environment.

The tenant chooses the URL, so in production only public addresses are called. A proxy resolves names itself, and could
be led to an address that nobody checked. So the name is resolved here, the proxy is told the address that was found to
be public, and TLS is still made with the name: the proxy cannot be used to reach what is private. It must allow
CONNECT to addresses. A name that this host cannot resolve is not delivered to.
"""

import socket
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
from yarl import URL

from billing.alerts.public_addresses import PublicResolver, public_socket
from core.network.proxies import Proxies

_HTTPS = 443


class Routes:
    """The clients of one delivery run: one for what is reached directly, one for what the proxy reaches."""

    def __init__(self, proxies: Proxies, timeout_s: float, *, limit: int, confined: bool) -> None:
        """At most `limit` calls at once on each way. `confined`: only public addresses are called.

        In development every address may be.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._proxies = proxies
        self._resolver = PublicResolver() if confined else None
        options: dict[str, Any] = {"resolver": self._resolver, "socket_factory": public_socket} if confined else {}
        direct = aiohttp.TCPConnector(limit=limit, **options)
        self._direct = aiohttp.ClientSession(connector=direct, timeout=timeout, trust_env=False)
        # The proxy itself may well be at a private address.
        proxied = aiohttp.TCPConnector(limit=limit)
        self._proxied = aiohttp.ClientSession(connector=proxied, timeout=timeout, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._direct.close()
        await self._proxied.close()

    async def post(self, url: str, data: str, headers: Mapping[str, str]) -> int:
        """The status of the answer. No redirect is followed. Raises aiohttp.ClientError, OSError or TimeoutError."""
        proxy = self._proxies.of(url)
        options: dict[str, Any] = {"data": data, "headers": dict(headers), "allow_redirects": False}
        client: aiohttp.ClientSession = self._direct
        target = URL(url)
        if proxy is not None:
            client, options["proxy"] = self._proxied, proxy
            host = target.raw_host
            if self._resolver is not None and host is not None:
                found = await self._resolver.resolve(host, target.port or _HTTPS, socket.AF_UNSPEC)
                options["headers"]["host"] = target.raw_authority
                options["server_hostname"] = host
                target = target.with_host(found[0]["host"])
        async with client.post(target, **options) as response:
            return response.status
