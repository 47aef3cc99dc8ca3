"""One deadline for all waits of a request, whatever stores, pools and retries it uses.

`within` bounds a block: it is cancelled shortly before the deadline, and connections still in use are closed at the
deadline. Two steps, because a cancelled statement waits for the server's confirmation: a healthy server (waiting for a
lock) gets to stop the statement, and a hanging one never confirms. Blocks nest; an inner one never outlasts the outer.

A task started in a block inherits its deadline; start one that serves other requests too in `unbounded`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
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
    """The connections to close at a block's deadline."""

    def __init__(self) -> None:
        self._connections: list[_Closable] = []

    def watch(self, connection: _Closable) -> None:
        """Closes the connection if the block still runs at the deadline."""
        self._connections.append(connection)

    def end(self) -> None:
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


@asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[Deadline]:
    """Raises Unavailable when the block takes longer. None: only an outer block's deadline applies."""
    deadline, outer_s = Deadline(), _ends_s.get()
    loop = asyncio.get_running_loop()
    own_s = None if seconds is None else loop.time() + seconds - margin_s(seconds)
    known_s = [ends_s for ends_s in (own_s, outer_s) if ends_s is not None]
    if not known_s:
        yield deadline
        return
    ends_s = min(known_s)
    token = _ends_s.set(ends_s)
    handle = loop.call_at(ends_s, deadline.end)
    try:
        async with asyncio.timeout_at(ends_s - margin_s(max(0, ends_s - loop.time()))) as timeout:
            yield deadline
    except TimeoutError as error:
        if timeout.expired():
            raise Unavailable from error
        raise
    finally:
        handle.cancel()
        _ends_s.reset(token)
