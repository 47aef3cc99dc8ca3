"""One deadline for every wait on a request's path, however many stores, pools and retries are in it.

`within` bounds a block: what runs in it is cancelled shortly before the deadline, and a connection that does not end
with that is closed at the deadline. Blocks nest: an inner one never outlasts the outer one, so the caller's deadline
holds for each session and connection below. Two steps, because a cancelled statement waits for the server to confirm,
and a server that hangs never does; but a healthy one (a lock was waited for) should get to stop the statement.

A task that is started inside a block inherits its deadline; one that serves other requests as well is started in
`unbounded`, and has bounds of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

import asyncpg

from core.errors import Unavailable

_MARGIN = 0.1
"""The share of a deadline that is left for a cancelled statement to be confirmed and rolled back; as much again is left
for the answer to be written on a busy machine."""

_ends_s: ContextVar[float | None] = ContextVar("deadline", default=None)


class _Closable(Protocol):
    def terminate(self) -> None:
        """Closes the connection at once, without a word to the server."""


class Deadline:
    """The connections of a block that end with it."""

    def __init__(self) -> None:
        self._connections: list[_Closable] = []

    def watch(self, connection: _Closable) -> None:
        """Closes the connection if the block is still in progress at the deadline."""
        self._connections.append(connection)

    def end(self) -> None:
        """Closes what is watched: whoever waits for it hears at once."""
        for connection in self._connections:
            with suppress(asyncpg.InterfaceError):  # given back to its pool already
                connection.terminate()


@contextmanager
def unbounded() -> Iterator[None]:
    """Tasks that are started in the block do not have the caller's deadline."""
    token = _ends_s.set(None)
    try:
        yield
    finally:
        _ends_s.reset(token)


def margin_s(within_s: float) -> float:
    """How long before the deadline waits are cancelled."""
    return within_s * _MARGIN


@asynccontextmanager
async def within(seconds: float | None) -> AsyncIterator[Deadline]:
    """Raises Unavailable when the block is not done in time. None: only the outer block's deadline counts, if any."""
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
            raise Unavailable("the database does not answer in time") from error
        raise
    finally:
        handle.cancel()
        _ends_s.reset(token)
