"""Limits on client connections: in total and per address (`api.http.client_address.network_of`).

A connection over a limit gets a prepared 503 and is closed; it never reaches the application.
"""

import time
from collections import Counter
from dataclasses import dataclass

from uvicorn.middleware.proxy_headers import _TrustedHosts

from api.http.client_address import network_of
from core.logs import get_logger

_MAX_LINGERING = 100
_LOG_EVERY_S = 10

_TOO_MANY = (
    b'{"type":"urn:naka:problem:too_many_connections","title":"Service Unavailable","status":503,'
    b'"detail":"Too many connections. Try again later.","code":"too_many_connections","request_id":null}'
)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_TOO_MANY), _TOO_MANY)
)
"""The answer to a connection over a limit."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits; `.env.example` describes each. `trusted` are proxies, exempt from the limit per address."""

    head_s: float
    body_s: float
    stall_s: float
    min_bytes_per_s: int
    max_connections: int
    max_per_address: int
    trusted: str | list[str]

    @property
    def sweep_s(self) -> float:
        """Seconds between checks: a quarter of the shortest timeout, at most a second."""
        return min(1.0, self.head_s / 4, self.body_s / 4, self.stall_s / 4)


class ConnectionLimits:
    """The connection counts of one process."""

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._trusted = _TrustedHosts(limits.trusted)
        self._by_address: Counter[str] = Counter()
        self._count = 0
        self._refused = 0
        self._lingering = 0
        self._logged_s = float("-inf")

    def admit(self, host: str) -> str | None:
        """Counts a connection and returns the address it counts for; None when it is over a limit."""
        address = network_of(host)
        is_over = self._count >= self.limits.max_connections
        if not is_over and host not in self._trusted:
            is_over = self._by_address[address] >= self.limits.max_per_address
        if is_over:
            self._refused += 1
            self._log_refusals()
            return None
        self._count += 1
        self._by_address[address] += 1
        return address

    def release(self, address: str) -> None:
        """Uncounts an admitted connection."""
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def may_linger(self) -> bool:
        """Whether a refused connection may still be read; call `end_linger` afterwards."""
        if self._lingering >= _MAX_LINGERING:
            return False
        self._lingering += 1
        return True

    def end_linger(self) -> None:
        """Uncounts a lingering connection."""
        self._lingering -= 1

    def _log_refusals(self) -> None:
        now_s = time.monotonic()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            log.warning("connections_refused", connections=self._count, refused=self._refused)
            self._logged_s, self._refused = now_s, 0
