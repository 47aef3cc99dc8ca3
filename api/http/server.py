"""uvicorn as Naka runs it: it starts, serves, and stops without losing what it admitted.

The stop, on SIGTERM or Ctrl-C: *draining* (`/readyz` is red, everything is served, each answer ends its connection),
then *closing* (the listener is gone, running answers go on for the grace), then *ending* (they are cancelled, and
waited for, so that each settles itself), then the lifespan's own shutdown. A second signal goes to the ending at
once. No signal makes the exit code anything but 0; only a shutdown that failed does.

Workers that replace each other share one listening socket (`inherit`) rather than each having its own with
SO_REUSEPORT: there, what waits in the queue of the socket that closes is reset by the kernel; here, the queue belongs
to both, and also outlives a moment without any worker.
"""

import asyncio
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
from core.descriptors import is_exhausted
from core.errors import NakaError
from core.logs import get_logger
from core.settings import Settings

_KEEP_ALIVE_S = 75  # longer than the usual 60 s of a load balancer, which must be the one to close
_BACKLOG = 2048
_TICK_S = 0.05
_PATIENCE_S = 1  # a connection that was accepted last may have its first request on the way; and a last write, too
_TELL_EVERY_S = 10
_END_S = 5  # how long cancelled requests may take to settle, before the runtime's own stop waits for the settlements

log = get_logger(__name__)


class AddressTaken(Exception):
    """Something else listens there, or it is not an address of this machine."""


class NotAListener(NakaError):
    """What was passed in is not a listening TCP socket."""


class _Server(uvicorn.Server):
    """uvicorn's server with a stop of our own; see the module."""

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
        self._descriptors_told_s = float("-inf")
        self._app = app
        self._announce = announce
        self._drain_s = drain_s
        self._grace_s = grace_s
        self._drain_ends = 0.0
        self._hurried = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours until the process ends, and not raised again: a stop that was asked for is no failure."""
        heard = [*HANDLED_SIGNALS]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup`
            heard.append(signal.SIGHUP)
        for number in heard:
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            for number in heard:
                signal.signal(number, signal.SIG_IGN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the stop, another one hurries it."""
        del sig, frame
        self._hurried = self.should_exit
        self.should_exit = True
        if not self._hurried:
            self._drain_ends = time.monotonic() + self._drain_s
            self.server_state.phase = Phase.DRAINING
            self._app.state.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the runtime, then accepts; says so then and not before."""
        await super().startup(sockets)
        self._announce()

    async def on_tick(self, counter: int) -> bool:
        """Whether the listener is to be closed: signalled, and drained. Meanwhile, keeps the clients' clocks."""
        if self._sweeper.sweep(self._connections(), asyncio.get_running_loop().time()):
            self._look_at_descriptors()
        if not await super().on_tick(counter):
            return False
        for connection in self._connections():
            connection.end_keep_alive()
        return self._is_over(self._drain_ends)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """After the drain: no new connections, the grace, the end of what still runs, and the lifespan's."""
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
        await asyncio.sleep(_TICK_S)  # whoever was accepted in the last moment has become a connection by then
        self._end_idle(closed_at)
        while (state.connections or state.tasks) and not self._is_over(closed_at + self._grace_s):
            await asyncio.sleep(_TICK_S)
            self._end_idle(closed_at)

    async def _end_running(self, closed_at: float) -> None:
        """Cancels, and waits until the cancelled have ended: each settles in its own `finally`."""
        state = self.server_state
        state.phase = Phase.ENDING
        await asyncio.sleep(0)  # what was started in this moment has begun by then, and can answer for itself
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

    def _look_at_descriptors(self) -> None:
        """Without a descriptor left the kernel's new connections are reset, and nothing else says so."""
        now_s = time.monotonic()
        if now_s < self._descriptors_told_s + _TELL_EVERY_S:
            return
        if any(is_exhausted(listener.fileno()) for server in self.servers for listener in server.sockets):
            self._descriptors_told_s = now_s
            log.error("file_descriptors_exhausted", connections=len(self.server_state.connections))

    def _connections(self) -> Sequence[NakaProtocol]:
        return [connection for connection in self.server_state.connections if isinstance(connection, NakaProtocol)]

    def _is_over(self, ends_at: float) -> bool:
        return self._hurried or time.monotonic() >= ends_at


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 takes a free one. Raises AddressTaken."""
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
    """The listening socket that whoever started us left open, shared with whom we replace. Raises NotAListener."""
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
    """Serves until it is told to stop, and then stops as the module says. `announce` is called once it serves."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=NakaProtocol,
        ws="none",
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
