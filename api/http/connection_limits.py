"""How many connections this process takes: in all, and of one address.

A connection over a bound gets a 503 that was built before it came, and is closed: it never reaches the application.
"""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from uvicorn.middleware.proxy_headers import _TrustedHosts

from core.logs import get_logger

_MOST_LINGERING = 100
_LOG_EVERY_S = 10

_TOO_MANY = (
    b'{"type":"urn:naka:problem:too_many_connections","title":"Service Unavailable","status":503,'
    b'"detail":"too many connections; come back later","code":"too_many_connections","request_id":null}'
)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_TOO_MANY), _TOO_MANY)
)
"""The whole answer to a connection over a bound."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """See `.env.example` for each. `trusted` are proxies, exempt from the bound per address."""

    head_s: float
    body_s: float
    stall_s: float
    min_bytes_per_s: int
    max_connections: int
    max_per_address: int
    trusted: str | list[str]

    @property
    def sweep_s(self) -> float:
        """How often to look: four times in the shortest time limit, and at least once a second."""
        return min(1.0, self.head_s / 4, self.body_s / 4, self.stall_s / 4)


class ConnectionLimits:
    """Counts a process's connections, and those that it refused."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._trusted = _TrustedHosts(limits.trusted)
        self._by_address: Counter[str] = Counter()
        self._count = 0
        self._refused = 0
        self._lingering = 0
        self._told_s = float("-inf")

    def admit(self, host: str) -> str | None:
        """The address that the connection counts for; None when it is over a bound."""
        address = _address(host)
        is_over = self._count >= self.limits.max_connections
        if not is_over and host not in self._trusted:
            is_over = self._by_address[address] >= self.limits.max_per_address
        if is_over:
            self._refused += 1
            self._tell()
            return None
        self._count += 1
        self._by_address[address] += 1
        return address

    def release(self, address: str) -> None:
        """An admitted connection ended."""
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def may_linger(self) -> bool:
        """Whether a refused connection may be read for a moment; `end_linger` afterwards."""
        if self._lingering >= _MOST_LINGERING:
            return False
        self._lingering += 1
        return True

    def end_linger(self) -> None:
        """A refused connection ended."""
        self._lingering -= 1

    def _tell(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _LOG_EVERY_S:
            log.warning("connections_refused", connections=self._count, refused=self._refused)
            self._told_s, self._refused = now_s, 0


def _address(host: str) -> str:
    """The unit that a bound per address counts: an IPv4 address, or the /64 of an IPv6 address."""
    with suppress(ValueError):
        parsed = ip_address(host)
        if isinstance(parsed, IPv6Address):
            return str(parsed.ipv4_mapped or parsed.exploded[:19])
    return host
