"""The uvicorn server, with a graceful shutdown that settles every admitted request.

Shutdown, on SIGTERM or Ctrl-C: *draining* (`/readyz` fails, requests are served, each answer closes its connection),
*closing* (the listener is closed, running answers continue for the grace period), *ending* (they are cancelled and
awaited, so that each settles), then the lifespan's shutdown. A second signal skips to ending. The exit code is 0
unless the shutdown failed.

Processes that replace each other share one listening socket (`inherit`) instead of SO_REUSEPORT: the kernel resets the
connections queued on a closed socket, and a shared queue survives a moment without any process.
"""

import asyncio
import gc
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.server import HANDLED_SIGNALS

from api.http.client_timeouts import Sweeper
from api.http.connection_limits import ClientLimits, ConnectionLimits
from api.http.protocol import NakaProtocol, Phase, State
from api.http.websocket import NakaWebSocket
from core.descriptors import is_exhausted
from core.errors import NakaError
from core.logs import get_logger
from core.settings import Settings

_KEEP_ALIVE_S = 75  # longer than a load balancer's usual 60 s, so that the load balancer closes first
_BACKLOG = 2048
_PING_S = 20.0
"""Seconds between pings of a WebSocket, and for the answer to one."""
_TICK_S = 0.05
_PATIENCE_S = 1  # a connection accepted last may still have a request or a last write under way
_LOG_EVERY_S = 10
_COLLECTED_EVERY = (10_000, 20, 20)
"""Thresholds of the garbage collector. Few objects of a request are in cycles, while Python's default of 700 spends 7 %
of a request's CPU on looking for them."""
_END_S = 5  # for cancelled requests to settle; the runtime's stop then waits for the settlements

log = get_logger(__name__)


class AddressTaken(NakaError):
    """Another process listens there, or the address is not of this machine."""


class NotAListener(NakaError):
    """The file descriptor is not a listening TCP socket."""


class _Server(uvicorn.Server):
    """uvicorn's server with the module's shutdown."""

    server_state: State

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        announce: Callable[[], None],
        *,
        limits: ClientLimits,
        drain_s: float,
        grace_s: float,
    ) -> None:
        super().__init__(config)
        self.server_state = State(ConnectionLimits(limits))
        self._sweeper = Sweeper(limits)
        self._descriptors_logged_s = float("-inf")
        self._app = app
        self._announce = announce
        self._drain_s = drain_s
        self._grace_s = grace_s
        self._drain_ends = 0.0
        self._hurried = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals until the process ends. uvicorn would raise them again, which is no exit code 0."""
        signals = [*HANDLED_SIGNALS]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup`
            signals.append(signal.SIGHUP)
        for number in signals:
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number in signals:
                signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts the shutdown; a second signal skips to its end."""
        del sig, frame
        self._hurried = self.should_exit
        self.should_exit = True
        if not self._hurried:
            self._drain_ends = time.monotonic() + self._drain_s
            self.server_state.phase = Phase.DRAINING
            self._app.state.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the runtime, then the listener, then announces it."""
        await super().startup(sockets)
        gc.freeze()  # what the start created stays
        gc.set_threshold(*_COLLECTED_EVERY)
        self._announce()

    async def on_tick(self, counter: int) -> bool:
        """Checks client timeouts; returns whether a signal came and the drain is over."""
        if self._sweeper.sweep(self._connections, asyncio.get_running_loop().time()):
            self._check_descriptors()
        if not await super().on_tick(counter):
            return False
        for connection in self._connections():
            connection.end_keep_alive()
        return self._is_over(self._drain_ends)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the listener, waits for the grace period, cancels what still runs, and stops the lifespan."""
        self.server_state.phase = Phase.CLOSING
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        closed_at = time.monotonic()
        await self._let_finish(closed_at)
        await self._end_running(closed_at)
        await self.lifespan.shutdown()

    async def _let_finish(self, closed_at: float) -> None:
        state = self.server_state
        await asyncio.sleep(_TICK_S)  # lets a socket accepted last become a connection
        self._end_idle(closed_at)
        while (state.connections or state.tasks) and not self._is_over(closed_at + self._grace_s):
            await asyncio.sleep(_TICK_S)
            self._end_idle(closed_at)

    async def _end_running(self, closed_at: float) -> None:
        """Cancels the running requests and waits for them: each settles in its own `finally`."""
        state = self.server_state
        state.phase = Phase.ENDING
        await asyncio.sleep(0)  # lets a task created last start, so that it can answer its cancellation
        if state.tasks:
            log.warning("requests_cut_short", requests=len(state.tasks))
        for task in list(state.tasks):
            task.cancel()
        began = time.monotonic()
        while time.monotonic() - began < (_END_S if state.tasks else _PATIENCE_S):
            if not state.tasks and not state.connections:
                return
            self._end_idle(closed_at)
            await asyncio.sleep(_TICK_S)
        if state.tasks:
            log.error("requests_do_not_end", requests=len(state.tasks))

    def _end_idle(self, closed_at: float) -> None:
        patient = time.monotonic() < closed_at + _PATIENCE_S
        for connection in self._connections():
            connection.end_if_idle(patient=patient)

    def _check_descriptors(self) -> None:
        """Logs exhausted file descriptors: new connections are reset then, and nothing else reports it."""
        now_s = time.monotonic()
        if now_s < self._descriptors_logged_s + _LOG_EVERY_S:
            return
        if any(is_exhausted(listener.fileno()) for server in self.servers for listener in server.sockets):
            self._descriptors_logged_s = now_s
            log.error("file_descriptors_exhausted", connections=len(self.server_state.connections))

    def _connections(self) -> Sequence[NakaProtocol | NakaWebSocket]:
        ours = (NakaProtocol, NakaWebSocket)
        return [connection for connection in self.server_state.connections if isinstance(connection, ours)]

    def _is_over(self, ends_at: float) -> bool:
        return self._hurried or time.monotonic() >= ends_at


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket listening on the address; port 0 takes a free one. Raises AddressTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise AddressTaken(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return listener


def inherit(fd: int) -> socket.socket:
    """Returns the listening socket inherited from the parent process. Raises NotAListener."""
    try:
        listener = socket.socket(fileno=fd)
        is_tcp = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
        if is_tcp and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return listener
    except OSError as error:
        raise NotAListener(f"file descriptor {fd}: {error.strerror}") from error
    listener.detach()  # not ours to close
    raise NotAListener(f"file descriptor {fd} is not a listening TCP socket")


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    settings: Settings,
    max_connections: int,
    announce: Callable[[], None],
) -> None:
    """Serves until a signal, then shuts down as the module describes. Calls `announce` once it serves."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=NakaProtocol,
        ws=NakaWebSocket,
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    limits = ClientLimits(
        head_s=settings.client_head_timeout_s,
        body_s=settings.client_body_timeout_s,
        stall_s=settings.client_stall_timeout_s,
        min_bytes_per_s=settings.client_min_bytes_per_s,
        max_connections=max_connections,
        max_per_address=settings.client_max_connections_per_address,
        trusted=config.forwarded_allow_ips,
    )
    server = _Server(
        config,
        app,
        announce,
        limits=limits,
        drain_s=settings.shutdown_drain_s,
        grace_s=settings.shutdown_grace_s,
    )
    server.run(sockets=[listener])
    if server.lifespan.shutdown_failed:
        sys.exit(1)
