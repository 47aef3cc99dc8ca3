"""The connections to the provider: made when needed, kept for the next request, through at most one proxy.

How many there may be is bounded by the shared pools (`api.pools`), which are taken before a request gets here. No
redirects, no cookies.
"""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from api.gateway.upstream.answer import Answer, ConnectionFault
from api.gateway.upstream.connection import Part, UpstreamConnection

_OK = 200
_CLOSE_S = 1.0
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to the provider, without credentials. `target`: path and query; `parts`: the body, in order."""

    headers: Sequence[Header]
    parts: Sequence[Part] = ()
    target: bytes = b"/v1/messages"
    method: bytes = b"POST"


class UpstreamPool:
    """The connections to one base URL. `tls` is needed for https."""

    def __init__(
        self,
        base_url: str,
        *,
        keepalive_s: float,
        connect_timeout_s: float,
        proxy: str | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        url = urlsplit(base_url)
        self._host, self._port, self._is_tls = _address(url)
        self._host_header = url.netloc.rpartition("@")[2].encode()
        self._prefix = url.path.rstrip("/").encode()
        self._proxy = None if proxy is None else urlsplit(proxy)
        if self._proxy is not None and not self._is_tls:
            self._prefix = b"http://" + self._host_header + self._prefix
        self._keepalive_s = keepalive_s
        self._connect_timeout_s = connect_timeout_s
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._sweep: asyncio.TimerHandle | None = None

    async def ask(self, request: UpstreamRequest, on_sent: Callable[[], None] | None = None) -> Answer:
        """Sends a request; returns when the head has arrived. Raises ConnectionFault.

        `on_sent` is called when the end of the body is handed to the connection: from then on the provider may have it.
        """
        connection = self._kept() or await self._connect()
        return await connection.send(self._head(request), request.parts, on_sent)

    async def close(self) -> None:
        """Closes every connection."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._empty.wait()  # a closed transport tells its protocol in the next turn of the loop

    def _head(self, request: UpstreamRequest) -> bytes:
        length = sum(len(part) for part in request.parts)
        lines = [
            request.method + b" " + self._prefix + request.target + b" HTTP/1.1",
            b"host: " + self._host_header,
            *(name + b": " + value for name, value in request.headers),
            b"accept-encoding: identity",
        ]
        if request.parts:
            lines.append(b"content-length: %d" % length)
        if self._proxy is not None and not self._is_tls:
            lines.extend(_proxy_credentials(self._proxy))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _kept(self) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.loop.time() - connection.idle_since_s < self._keepalive_s and connection.is_quiet:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: UpstreamConnection) -> None:
        connection.idle_since_s = connection.loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(self._keepalive_s, self._close_idle)

    def _close_idle(self) -> None:
        """Closes what was not used for `keepalive_s`; the oldest are first in the list."""
        self._sweep, loop = None, asyncio.get_running_loop()
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.is_open and loop.time() - connection.idle_since_s < self._keepalive_s:
                self._idle.append(connection)
            else:
                connection.abort()
        if self._idle:
            self._sweep = loop.call_later(self._keepalive_s, self._close_idle)

    async def _connect(self) -> UpstreamConnection:
        """A new connection. Raises ConnectionFault: nothing was sent."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await (self._direct() if self._proxy is None else self._through(self._proxy))
        except (OSError, TimeoutError, ssl.SSLError) as error:
            raise ConnectionFault(f"no connection: {type(error).__name__}", sent=False) from error
        if connection.is_open:
            self._all.add(connection)
            self._empty.clear()
        return connection

    async def _direct(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            self._new,
            self._host,
            self._port,
            ssl=self._context() if self._is_tls else None,
            server_hostname=self._host if self._is_tls else None,
        )
        return connection

    async def _through(self, proxy: SplitResult) -> UpstreamConnection:
        """A connection through a proxy; to an https provider by a tunnel."""
        loop = asyncio.get_running_loop()
        host, port, is_tls = _address(proxy)
        transport, connection = await loop.create_connection(
            self._new, host, port, ssl=self._context() if is_tls else None, server_hostname=host if is_tls else None
        )
        if not self._is_tls:
            return connection
        try:
            await _tunnel(transport, connection, proxy, f"{self._host}:{self._port}")
            encrypted = await loop.start_tls(transport, connection, self._context(), server_hostname=self._host)
        except BaseException:
            transport.abort()
            raise
        if encrypted is None:
            raise ConnectionError
        connection.connection_made(encrypted)
        return connection

    def _new(self) -> UpstreamConnection:
        return UpstreamConnection(self._keep, self._forget)

    def _forget(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)
        if not self._all:
            self._empty.set()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls


async def _tunnel(
    transport: asyncio.Transport, connection: UpstreamConnection, proxy: SplitResult, target: str
) -> None:
    """Asks a proxy for a tunnel. Raises ConnectionError when it refuses."""
    lines = [f"CONNECT {target} HTTP/1.1".encode(), f"host: {target}".encode(), *_proxy_credentials(proxy)]
    reader = _TunnelReader(connection.loop)
    transport.set_protocol(reader)
    transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
    status = await reader.status
    if status != _OK:
        raise ConnectionError
    transport.set_protocol(connection)


class _TunnelReader(asyncio.Protocol):
    """Reads the proxy's answer to CONNECT. An https provider says nothing before we do, so no byte of it is lost."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status: asyncio.Future[int] = loop.create_future()
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        if b"\r\n\r\n" in self._read and not self.status.done():
            words = self._read.split(b"\r\n", 1)[0].split(b" ")
            self.status.set_result(int(words[1]) if len(words) > 1 and words[1].isdigit() else 0)
        elif len(self._read) > 64 * 1024 and not self.status.done():
            self.status.set_result(0)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(exc or ConnectionResetError())


def _address(url: SplitResult) -> tuple[str, int, bool]:
    """(host, port, whether it is https)."""
    is_tls = url.scheme == "https"
    return url.hostname or "", url.port or (443 if is_tls else 80), is_tls


def _proxy_credentials(proxy: SplitResult) -> list[bytes]:
    if proxy.username is None:
        return []
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return [b"proxy-authorization: Basic " + base64.b64encode(pair.encode())]
