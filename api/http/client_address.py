"""Client addresses, normalised, and the network that counts as one customer. Pure.

A dual-stack socket reports an IPv4 client as an IPv6 address, and transition networks embed one in the other; the inner
IPv4 address counts. An IPv6 customer has at least a /64, so its addresses count together.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

UNKNOWN = "unknown"
_NAT64 = IPv6Network("64:ff9b::/96")
_PREFIX = 64


def client_address(scope: Scope) -> str:
    """Returns the client's address, normalised; UNKNOWN when the server reports none."""
    client = scope.get("client")
    parsed = None if client is None else _parsed(client[0])
    return UNKNOWN if parsed is None else str(parsed)


def network_of(address: str) -> str:
    """Returns the network of a customer: an IPv4 address itself, an IPv6 one's /64; UNKNOWN for anything else."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((int(parsed) >> _PREFIX << _PREFIX, _PREFIX)))
    return UNKNOWN if parsed is None else str(parsed)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return (_inner(parsed) or parsed) if isinstance(parsed, IPv6Address) else parsed


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Returns the IPv4 address inside a mapped, 6to4, Teredo or NAT64 one."""
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
