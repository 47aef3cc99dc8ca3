"""HTTP clients for alerts: direct, or through the environment's proxy.

In production only public addresses are called, since tenants choose the URLs. A proxy would resolve a name itself, to
an unchecked address. So the name is resolved here, the proxy gets the checked address, and TLS still verifies the name.
The proxy must allow CONNECT to addresses. A name that this host can't resolve gets no deliveries.
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
    """The HTTP clients of one delivery run: one direct, one for the proxy."""

    def __init__(self, proxies: Proxies, timeout_s: float, *, limit: int, confined: bool) -> None:
        """`limit`: concurrent calls of each client. `confined`: only public addresses, as in production."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._proxies = proxies
        self._resolver = PublicResolver() if confined else None
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
        """Posts without following redirects; returns the status. Raises aiohttp.ClientError, OSError, TimeoutError."""
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
