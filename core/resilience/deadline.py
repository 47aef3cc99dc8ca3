"""One deadline for all waits of a request, whatever stores, pools and retries it uses.

`within` bounds a block: it is cancelled shortly before the deadline, and connections still in use are closed at the
deadline. Two steps, because a cancelled statement waits for the server's confirmation: a healthy server (waiting for a
lock) gets to stop the statement, and a hanging one never confirms. Blocks nest; an inner one never outlasts the outer.

A task started in a block inherits its deadline; start one that serves other requests too in `unbounded`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol

import asyncpg

from core.errors import Unavailable

_MARGIN = 0.1
"""The part of a deadline reserved for a cancelled statement's confirmation and rollback; the same again is reserved for
writing the answer."""

_ends_s: ContextVar[float | None] = ContextVar("deadline", default=None)


class _Closable(Protocol):
    def terminate(self) -> None:
        """Closes the connection at once, without telling the server."""


class Deadline:
    """The end of a block, and the connections to close at it."""

    def __init__(self, ends_s: float | None) -> None:
        """`ends_s`: by the loop's clock; None: the block has no end."""
        self._ends_s = ends_s
        self._connections: list[_Closable] = []
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, connection: _Closable) -> None:
        """Closes the connection if the block still runs at the deadline."""
        self._connections.append(connection)
        if self._handle is None and self._ends_s is not None:
            self._handle = asyncio.get_running_loop().call_at(self._ends_s, self._end)

    def pass_on_time(self) -> None:
        """The block ended: closes nothing any more."""
        if self._handle is not None:
            self._handle.cancel()

    def _end(self) -> None:
        """Closes the watched connections, which fails their pending statements."""
        for connection in self._connections:
            with suppress(asyncpg.InterfaceError):  # already back in its pool
                connection.terminate()


@contextmanager
def unbounded() -> Iterator[None]:
    """Tasks started in the block do not inherit the caller's deadline."""
    token = _ends_s.set(None)
    try:
        yield
    finally:
        _ends_s.reset(token)


def margin_s(within_s: float) -> float:
    """Returns the seconds before the deadline at which the block is cancelled."""
    return within_s * _MARGIN


class within:  # noqa: N801 - a context manager, written as a function is called
    """Raises Unavailable when the block takes longer. None: only an outer block's deadline applies."""

    __slots__ = ("_deadline", "_seconds", "_timeout", "_token")
    _deadline: Deadline
    _token: Token[float | None]

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout: asyncio.Timeout | None = None

    async def __aenter__(self) -> Deadline:
        """Starts the block."""
        now_s, ends_s = asyncio.get_running_loop().time(), _ends_s.get()
        if self._seconds is not None:
            own_s = now_s + self._seconds - margin_s(self._seconds)
            ends_s = own_s if ends_s is None else min(own_s, ends_s)
        self._deadline = Deadline(ends_s)
        if ends_s is not None:
            self._token = _ends_s.set(ends_s)
            self._timeout = asyncio.timeout_at(ends_s - margin_s(max(0, ends_s - now_s)))
            await self._timeout.__aenter__()
        return self._deadline

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the block."""
        if self._timeout is None:
            return
        self._deadline.pass_on_time()
        _ends_s.reset(self._token)
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise Unavailable from expired
