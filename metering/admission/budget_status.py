"""The status of budgets: used, held, left, and when the window ends. Always read from Postgres, which alone knows it.

Postgres unreachable: `Unavailable`, or the driver's error in a session of the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from core.clock import now_ms
from core.postgres.database import Connections
from core.tenancy.principal import Principal
from metering.budgets.tag_limits import TagLimitCache
from metering.budgets.usage import TagWindow, read_usage, states_of
from metering.journal.epoch import Fetch
from metering.quota.budgets import Budget, BudgetState, BudgetWindow
from metering.quota.decision import measure
from metering.quota.schedule import Schedule, period_at, window_of
from metering.quota.windows import Calendar, WindowKind, minute_window
from metering.tags.resolution import TagResolver
from metering.tags.tags import Tags

_SCHEDULE = "SELECT schedule::text AS schedule FROM entitlements WHERE tenant_id = $1"


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """One budget now. Spend in micro-USD; `used` is rounded up, `remaining` is at least 0."""

    budget: Budget
    used: int
    held: int
    remaining: int
    resets_ms: int

    @property
    def used_percent(self) -> int:
        """The used part of the budget, rounded down; 100 of a budget of 0."""
        return self.budget.used_percent(self.used)


@dataclass(frozen=True, slots=True)
class BudgetStatusReader:
    """Reads the budgets of a caller. One per process."""

    tags: TagResolver
    limits: TagLimitCache
    calendar: Calendar
    pool: Connections

    async def of(self, principal: Principal, tags: Tags) -> tuple[BudgetStatus, ...]:
        """The budgets that a request of the caller would have now with these tags, its own included.

        Raises Unavailable.
        """
        at_ms = now_ms()
        if not tags and not principal.budget:
            return ()
        resolved = await self.tags.resolve(principal, tags, self.calendar.date_of(at_ms))
        budgets = await self.limits.budgets(principal, resolved.added_up)
        if not budgets:
            return ()
        async with self.pool.acquire() as connection:
            return await read_budgets(
                connection.fetch,
                self.calendar,
                principal.tenant_id,
                budgets,
                at_ms=at_ms,
                life_ends_ms=principal.expires_at_ms or at_ms,
            )


async def read_budgets(
    fetch: Fetch, calendar: Calendar, tenant_id: UUID, budgets: Sequence[Budget], *, at_ms: int, life_ends_ms: int = 0
) -> tuple[BudgetStatus, ...]:
    """The status of each budget of a tenant. `life_ends_ms`: when a token ends."""
    windows = await _windows_of(fetch, calendar, tenant_id, budgets, at_ms, life_ends_ms)
    usage = await read_usage(fetch, (TagWindow.of(tenant_id, window) for window in windows))
    return tuple(_status_of(state) for state in states_of(tenant_id, windows, usage))


async def _windows_of(
    fetch: Fetch, calendar: Calendar, tenant_id: UUID, budgets: Sequence[Budget], at_ms: int, life_ends_ms: int
) -> list[BudgetWindow]:
    rows = await fetch(_SCHEDULE, tenant_id)
    periods = msgspec.json.decode(rows[0]["schedule"], type=Schedule).periods if rows else ()
    minute, day, period = minute_window(at_ms), calendar.day(at_ms), period_at(periods, at_ms, calendar)
    at = {
        WindowKind.MINUTE: (minute.name, minute.ends_ms),
        WindowKind.DAY: (day.name, day.ends_ms),
        WindowKind.PERIOD: (window_of(period.name), period.ends_ms),
    }
    return [
        BudgetWindow(budget, *(("", life_ends_ms) if budget.window is None else at[budget.window]))
        for budget in budgets
    ]


def _status_of(one: BudgetState) -> BudgetStatus:
    budget, (used, held) = one.budget, measure(one.budget, one.state)
    return BudgetStatus(
        budget,
        budget.in_unit(used),
        budget.in_unit(held),
        max(0, budget.room_in_unit(budget.bound - used - held)),
        one.window.ends_ms,
    )
