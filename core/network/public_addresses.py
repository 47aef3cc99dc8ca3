"""The addresses that a tenant's URL may lead to.

An allow list: IPv4 global unicast, and IPv6 2000::/3 without blocks that embed another address or are unreachable. So
every IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is refused; `ipaddress` alone
calls several of them global. A host that a C library reads as an address (`127.1`, `0x7f000001`, `2130706433`) counts
as one. It is checked for a literal when the URL is set, for every address that a name resolves to, and for the address
of the socket before it connects: that can't be bypassed by a spelling, or by a name that resolves differently later.
Source: IANA's special-purpose registries (RFC 6890 and updates).
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_V4_REFUSED = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by a carrier's customers; some clouds' metadata
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: the metadata of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_V6_ALLOWED = ipaddress.IPv6Network("2000::/3")
_V6_REFUSED = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols: Teredo, benchmarks, ORCHID
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",
            "3fff::/20",
        ),
    )
)
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Upper half of an interface id whose lower half is an IPv4 address."""


class NotPublic(OSError):
    """The address isn't public."""


def is_public(address: str) -> bool:
    """Whether an address may be called. Raises ValueError for anything but an address in its usual spelling."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _V4_REFUSED)
    if ip.scope_id is not None or ip not in _V6_ALLOWED or any(ip in network for network in _V6_REFUSED):
        return False
    return (int(ip) >> 32) & 0xFFFFFFFF not in _ISATAP


def literal(host: str) -> str | None:
    """The address that a URL's host spells, in its usual spelling; None for a name.

    `inet_aton` accepts the C library's forms: one to four parts, each decimal, octal or hexadecimal.
    """
    bare = host.removeprefix("[").removesuffix("]")
    with suppress(ValueError):
        return str(ipaddress.ip_address(bare))
    with suppress(OSError):
        return socket.inet_ntoa(socket.inet_aton(bare.removesuffix(".")))
    return None


def public_socket(addr_info: tuple[Any, ...]) -> socket.socket:
    """Aiohttp's `socket_factory`, which refuses other addresses. Raises NotPublic."""
    family, kind, protocol, _, address = addr_info
    if not is_public(address[0]):
        raise NotPublic("not a public address")
    return socket.socket(family, kind, protocol)


class _Lookups(AbstractResolver):
    """A resolver in threads of its own."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError if the name has no address."""
        look_up = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=proto, flags=numeric
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing to close."""


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only."""

    def __init__(self, threads: Executor | None = None) -> None:
        """`threads`: where lookups run, for names that may hang; by default the loop's threads, which others need."""
        self._inner: AbstractResolver = ThreadedResolver() if threads is None else _Lookups(threads)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises NotPublic if the name has no public address, OSError if it has no address."""
        found = [one for one in await self._inner.resolve(host, port, family) if is_public(one["host"])]
        if not found:
            raise NotPublic("not a public address")
        return found

    async def close(self) -> None:
        """Nothing to close."""
