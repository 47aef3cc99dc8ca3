"""The requests that this process runs, in memory: its heartbeat lists them.

A request enters before it is opened, and leaves once its settlement is in Postgres (or it was not opened). So a row of
this process that was read as open, and is not listed here afterwards, is an orphan: nobody is going to settle it.
"""

from collections.abc import Iterator
from uuid import UUID

from metering.journal.recorder import UsageRecorder


class InFlight:
    """The recorders of running requests, None until they are admitted. One per process."""

    def __init__(self) -> None:
        self._recorders: dict[UUID, UsageRecorder | None] = {}

    def enter(self, request_id: UUID) -> None:
        """Adds a request, before the journal opens it."""
        self._recorders[request_id] = None

    def record(self, request_id: UUID, recorder: UsageRecorder) -> None:
        """Sets the recorder of an admitted request."""
        self._recorders[request_id] = recorder

    def leave(self, request_id: UUID) -> None:
        """Removes a request that was not opened, or is settled in Postgres. Idempotent."""
        self._recorders.pop(request_id, None)

    def __contains__(self, request_id: UUID) -> bool:
        return request_id in self._recorders

    def __len__(self) -> int:
        return len(self._recorders)

    def __iter__(self) -> Iterator[tuple[UUID, UsageRecorder | None]]:
        return iter(list(self._recorders.items()))
