"""Alerts through a proxy, which gets the checked address instead of the name."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from core.network.proxies import Proxies
from core.network.routes import Routes


class Book(AbstractResolver):
    """A resolver of two names."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """One address."""
        address = {"hooks.example": "93.184.216.34", "inside.example": "10.0.0.7"}[host]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
        ]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def refusing_proxy() -> AsyncIterator[tuple[str, list[bytes]]]:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def routes_by(proxies: Proxies) -> Routes:
    """Routes to public addresses only, as in production."""
    return Routes(proxies, 5, limit=1, confined=True)


async def test_the_proxy_is_told_the_checked_address_and_never_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.network.public_addresses.ThreadedResolver", Book)
    async with refusing_proxy() as (url, asked), routes_by(Proxies(https=url)) as routes:
        with pytest.raises(aiohttp.ClientHttpProxyError):
            await routes.post("https://hooks.example/x", "{}", {})
        with pytest.raises(OSError, match="not a public address"):
            await routes.post("https://inside.example/x", "{}", {})
    assert [line.split(b"\r\n")[0] for line in asked] == [b"CONNECT 93.184.216.34:443 HTTP/1.1"]


async def test_what_no_proxy_names_is_reached_directly_and_still_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.network.public_addresses.ThreadedResolver", Book)
    async with refusing_proxy() as (url, asked), routes_by(Proxies(https=url, bypassed="example")) as routes:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await routes.post("https://inside.example/x", "{}", {})
    assert asked == []
