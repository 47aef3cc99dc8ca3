"""The requests that this process runs: what its heartbeat lists, and what a stop waits for. In memory, no I/O.

A request enters before it is opened and leaves once its settlement is in Postgres (or was never opened). So an open
row of this process that is not listed here, read after the row was, is an orphan: nobody is going to settle it.
"""

import asyncio
from collections.abc import Iterator
from uuid import UUID

from metering.journal.recorder import UsageRecorder


class InFlight:
    """One per process. The recorder of a request that is not admitted yet is None."""

    def __init__(self) -> None:
        self._recorders: dict[UUID, UsageRecorder | None] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self, request_id: UUID) -> None:
        """Before the journal is asked to open it."""
        self._recorders[request_id] = None
        self._empty.clear()

    def record(self, request_id: UUID, recorder: UsageRecorder) -> None:
        """It is admitted; this is where what is learnt of it stands."""
        self._recorders[request_id] = recorder
        self._empty.clear()

    def leave(self, request_id: UUID) -> None:
        """It was not opened, or is settled in Postgres. Leaving twice is no harm."""
        self._recorders.pop(request_id, None)
        if not self._recorders:
            self._empty.set()

    async def emptied(self) -> None:
        """Returns once nothing runs."""
        await self._empty.wait()

    def __contains__(self, request_id: UUID) -> bool:
        return request_id in self._recorders

    def __len__(self) -> int:
        return len(self._recorders)

    def __iter__(self) -> Iterator[tuple[UUID, UsageRecorder | None]]:
        return iter(list(self._recorders.items()))
