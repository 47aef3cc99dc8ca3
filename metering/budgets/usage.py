"""What the requests with a tag used and hold in a window, as Postgres knows it, and the locks of budgets.

Without the lock the answer may be outdated at once: it serves to size a request
and to show a status, never to open one. Postgres down: the driver's error.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from core.ids import uuid7_floor
from metering.counts import counts_in
from metering.journal.epoch import Fetch
from metering.quota.budgets import BudgetState, BudgetWindow
from metering.quota.counters import HELD, WindowState
from metering.quota.windows import MINUTE_MS, WindowKind
from metering.sql import load

_LOCK = (
    "SELECT set_config('idle_in_transaction_session_timeout', $2, true), set_config('lock_timeout', $3, true),"
    " pg_advisory_xact_lock(lock) FROM unnest($1::bigint[]) AS lock"
)
_IDLE_MS = 1_500
"""A process that is suspended while it holds a lock must not keep others from the budget. A statement takes
milliseconds."""
_PATIENCE_MS = 2_000
"""Longer than `_IDLE_MS`, and shorter than a committer waits: Postgres itself says that nothing was opened. Otherwise
the whole batch, of any tenant, would be in doubt."""
_FIRST = date.min
Tag = tuple[UUID, str, str]
"""A tenant, a key and a value."""
_LAST_ID = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class TagWindow:
    """A tag of a tenant, and one of its windows: what usage is read for. Several budgets may share one."""

    tenant_id: UUID
    key: str
    value: str
    kind: str
    name: str

    @classmethod
    def of(cls, tenant_id: UUID, window: BudgetWindow) -> "TagWindow":
        """The tag and the window of a budget."""
        return cls(tenant_id, window.budget.key, window.budget.value, window.budget.window_name, window.name)

    @property
    def tag(self) -> Tag:
        """The tag, whose lock all of its windows and limits share."""
        return self.tenant_id, self.key, self.value

    @property
    def from_id(self) -> UUID:
        """The first id of a minute's requests; for another window, later than any."""
        return uuid7_floor(int(self.name) * MINUTE_MS) if self.kind == WindowKind.MINUTE else _LAST_ID

    @property
    def from_day(self) -> date:
        """The first day that the window may have usage on. A period's name begins with the month of its start."""
        if self.kind == WindowKind.DAY:
            return date.fromisoformat(self.name)
        if self.kind == WindowKind.PERIOD:
            return date.fromisoformat(f"{self.name[:7]}-01") - timedelta(days=1)
        return _FIRST


async def lock_budgets(connection: Any, tags: Iterable[Tag]) -> None:
    """Locks the tags until the end of the transaction, in one order, before any other lock of an open.

    A statement after this one sees what every earlier holder of the locks has committed. Raises
    asyncpg.LockNotAvailableError.
    """
    await connection.execute(_LOCK, sorted({_lock_of(tag) for tag in tags}), str(_IDLE_MS), str(_PATIENCE_MS))


def _lock_of(tag: Tag) -> int:
    """The number of a tag's advisory lock, the same in every process."""
    named = "naka budget {} {} {}".format(*tag).encode()
    return int.from_bytes(hashlib.blake2b(named, digest_size=8).digest(), signed=True)


async def read_usage(fetch: Fetch, windows: Iterable[TagWindow]) -> dict[TagWindow, WindowState]:
    """What is used and held in each window, in one statement."""
    asked = list(dict.fromkeys(windows))
    rows = await fetch(
        load("budget_usage"),
        [one.tenant_id for one in asked],
        [one.key for one in asked],
        [one.value for one in asked],
        [one.kind for one in asked],
        [one.name for one in asked],
        [one.from_id for one in asked],
        [one.from_day for one in asked],
    )
    return {
        asked[row["number"] - 1]: WindowState(counts_in(row), tuple(int(row[name]) for name in HELD)) for row in rows
    }


def states_of(
    tenant_id: UUID, windows: Sequence[BudgetWindow], usage: Mapping[TagWindow, WindowState]
) -> tuple[BudgetState, ...]:
    """Each budget's window with what was read for it."""
    return tuple(BudgetState(window, usage[TagWindow.of(tenant_id, window)]) for window in windows)
