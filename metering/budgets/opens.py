"""Opens requests that have budgets, and never beyond one: under the locks of the budgets, in group commits.

Requests of one budget may be in one batch: each sees the holds of those before it. They have a committer of their own,
so that a busy budget delays no request without one. Lock order: the budgets, then those of `open.sql` (epochs, keys).
Grants by Postgres take them in the same order, and settlements, rebuilds and projections take no lock of a budget.
Postgres down, or a lock that is not free within `_PATIENCE_MS` (`metering.budgets.usage`): `Unavailable`, nothing is
opened.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from core.postgres.batched_reads import BatchedReads
from core.postgres.connection import Connection
from core.postgres.database import Database
from core.postgres.url import PostgresUrl
from core.resilience.outage import STORE_ERRORS
from metering.budgets.usage import TagWindow, lock_budgets, read_usage, states_of
from metering.journal.group_commit import GroupCommitter
from metering.journal.journal import InFallback, Opened, open_or_explain, void_unknown
from metering.journal.records import OpenRequest
from metering.quota.budgets import BudgetState, BudgetWindow
from metering.quota.counters import WindowState
from metering.quota.decision import fits_budget

_IDLE_S = 60
"""The committer's connection is closed after this long without a request that has a budget."""


@dataclass(frozen=True, slots=True)
class BudgetedRequest:
    """A granted request to be opened, and the windows of its budgets."""

    request: OpenRequest
    budgets: tuple[BudgetWindow, ...]

    @property
    def windows(self) -> list[TagWindow]:
        """What usage is read for."""
        return [TagWindow.of(self.request.tenant_id, window) for window in self.budgets]

    @property
    def amounts(self) -> tuple[int, ...]:
        """What it holds (`metering.quota.counters.HELD`)."""
        request = self.request
        return (
            1,
            request.held_prompt_tokens,
            request.held_output_tokens,
            request.held_web_searches,
            request.held_nano_usd,
        )


@dataclass(frozen=True, slots=True)
class OverBudget:
    """Not opened: some budget has too little room. `budgets`: as they were under the locks, at the request's turn."""

    budgets: tuple[BudgetState, ...]


@dataclass(frozen=True, slots=True)
class WithinBudget:
    """Opened. `budgets`: with the request's hold."""

    budgets: tuple[BudgetState, ...]


BudgetedAnswer = WithinBudget | OverBudget | Opened | InFallback


class BudgetedOpens:
    """Reads the room of budgets, and opens requests that have some. One per process."""

    def __init__(
        self, database: Database, url: str | PostgresUrl, *, process_id: UUID, timeout_s: float, idle_s: float = _IDLE_S
    ) -> None:
        self._process_id = process_id
        self._reads: BatchedReads[TagWindow, WindowState] = BatchedReads("budgets", database, _read_usage)
        self.committer: GroupCommitter[BudgetedRequest, BudgetedAnswer] = GroupCommitter(
            "open-budget", url, self._open, self._in_doubt, timeout_s=timeout_s, retry_s=None, idle_s=idle_s
        )

    def start(self) -> None:
        """Starts the committer; it connects when it is needed."""
        self.committer.start()

    async def stop(self) -> None:
        """Commits the queue, and stops."""
        await self.committer.stop()

    async def states(self, tenant_id: UUID, budgets: Sequence[BudgetWindow]) -> tuple[BudgetState, ...]:
        """The budgets now, without a lock. Raises Unavailable."""
        windows = list(dict.fromkeys(TagWindow.of(tenant_id, window) for window in budgets))
        usage = await asyncio.gather(*(self._reads.get(window) for window in windows))
        known = {window: found or WindowState() for window, found in zip(windows, usage, strict=True)}
        return states_of(tenant_id, budgets, known)

    async def _open(self, connection: Connection, batch: list[BudgetedRequest]) -> list[BudgetedAnswer]:
        transaction = connection.transaction()
        await transaction.start()
        try:
            answers = await self._open_locked(connection, batch)
        except BaseException:
            with contextlib.suppress(*STORE_ERRORS):
                await transaction.rollback()
            raise
        await transaction.commit()
        return answers

    async def _open_locked(self, connection: Connection, batch: list[BudgetedRequest]) -> list[BudgetedAnswer]:
        windows = {window for one in batch for window in one.windows}
        await lock_budgets(connection, {window.tag for window in windows})
        usage = await read_usage(connection.fetch, windows)
        answers: dict[UUID, BudgetedAnswer] = {}
        waiting = batch
        while waiting:
            fitting = self._fit(waiting, usage, answers)
            requests = [one.request for one in fitting]
            opened = await open_or_explain(connection, requests, self._process_id) if requests else []
            refused = [one for one, found in zip(fitting, opened, strict=True) if found is not Opened.OPEN]
            for one, found in zip(fitting, opened, strict=True):
                if found is not Opened.OPEN:
                    answers[one.request.id] = found
                    _add(usage, one, -1)
            # What the refused ones had taken is free again, for those that did not fit beside them.
            waiting = [one for one in waiting if isinstance(answers[one.request.id], OverBudget)] if refused else []
        return [answers[one.request.id] for one in batch]

    @staticmethod
    def _fit(
        batch: list[BudgetedRequest], usage: dict[TagWindow, WindowState], answers: dict[UUID, BudgetedAnswer]
    ) -> list[BudgetedRequest]:
        """The requests that fit, each beside those before it, whose holds are added to `usage`."""
        fitting = []
        for one in batch:
            tenant_id, amounts = one.request.tenant_id, one.amounts
            before = states_of(tenant_id, one.budgets, usage)
            if all(fits_budget(state, amounts) for state in before):
                _add(usage, one, 1)
                fitting.append(one)
                answers[one.request.id] = WithinBudget(states_of(tenant_id, one.budgets, usage))
            else:
                answers[one.request.id] = OverBudget(before)
        return fitting

    async def _in_doubt(self, connection: Connection, batch: list[BudgetedRequest]) -> list[BudgetedAnswer]:
        """The answers of a batch whose connection broke: rows that were not committed become void, and ask again."""
        requests = [one.request for one in batch]
        known = await void_unknown(
            connection, [(request.tenant_id, request.id, request.user_id) for request in requests]
        )
        return [Opened.OPEN if known[request.id].state == "open" else Opened.EPOCH_MOVED for request in requests]


async def _read_usage(connection: Connection, windows: list[TagWindow]) -> dict[TagWindow, WindowState]:
    return await read_usage(connection.fetch, windows)


def _add(usage: dict[TagWindow, WindowState], one: BudgetedRequest, sign: int) -> None:
    """Adds the hold of a request to its windows, or removes it."""
    amounts = [sign * amount for amount in one.amounts]
    for window in set(one.windows):
        usage[window] = usage[window].with_hold(amounts)
