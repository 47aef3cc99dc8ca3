"""Grants by Redis: one call of its script takes the hold, then Postgres opens the row, and has the last word.

A request that Postgres does not open runs nothing, and its hold is released. Redis unreachable: `RedisUnavailable`;
Postgres unreachable: `Unavailable`; nothing is admitted.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from core.clock import now_ms
from core.errors import InDoubt, NakaError, Unavailable
from core.spans import span
from core.tenancy.principal import Unauthenticated, UserDisabled
from metering.admission.expired_holds import ExpiredHolds
from metering.admission.redis_scripts import QuotaScripts
from metering.budgets.opens import BudgetedAnswer, BudgetedOpens, BudgetedRequest, OverBudget, WithinBudget
from metering.journal.group_commit import GroupCommitter
from metering.journal.in_flight import InFlight
from metering.journal.journal import InFallback, Journal, Opened
from metering.journal.records import OpenRequest
from metering.quota.budgets import BudgetWindow
from metering.quota.counters import NO_COUNTS
from metering.quota.decision import fit_budgets
from metering.quota.query import Answer, Mend, QuotaQuery, QuotaTerms, Refused, Retry
from metering.quota.windows import Calendar, Window


@dataclass(slots=True)
class RedisGrants:
    """Asks Redis and opens. One per process."""

    quota: QuotaScripts
    journal: Journal
    expired_holds: ExpiredHolds
    running: InFlight
    calendar: Calendar
    budgeted: BudgetedOpens
    skew_ms: int = field(default=0, init=False)
    """The lead of Redis's clock over ours, from its last answer."""
    late: "set[asyncio.Task[None]]" = field(default_factory=set, init=False)

    @property
    def today(self) -> Window:
        """The operator's day, by the clock of Redis."""
        return self.calendar.day(now_ms() + self.skew_ms)

    async def admit(self, query: QuotaQuery) -> Answer:
        """One try. A granted request is in flight (`InFlight`) and open.

        Raises PaymentRequired and Forbidden (by an entitlement that may be old), UnknownModel, Unauthenticated when the
        key was revoked meanwhile, UserDisabled, RedisUnavailable, Unavailable.
        """
        at_ms = now_ms() + self.skew_ms
        terms = query.terms(at_ms, self.calendar)
        if query.budgets:
            fitted = await self._fitted(query, terms, at_ms)
            if isinstance(fitted, Refused):
                return fitted
            query = fitted
        answer = await self.quota.admit(query, terms)
        if isinstance(answer, Retry):
            if answer.now_ms is not None:
                self.skew_ms = answer.now_ms - now_ms()
            return answer
        if answer.holds_expired:
            self.expired_holds.look(query.principal.tenant_id, query.principal.user_id)
        if isinstance(answer, Refused):
            return answer
        self.skew_ms = answer.request.opened_ms - now_ms()
        opened = await self._open(answer.request, query.budget_windows(terms, answer.request.opened_ms))
        if isinstance(opened, WithinBudget):
            return replace(answer, budgets=opened.budgets) if opened.budgets else answer
        if isinstance(opened, OverBudget):
            # Others took the room since it was read. What the locks showed is final, unless less output would fit.
            most = fit_budgets(query, terms, opened.budgets, answer.request.opened_ms)
            return most if isinstance(most, Refused) else Retry()
        return opened

    async def _fitted(self, query: QuotaQuery, terms: QuotaTerms, at_ms: int) -> QuotaQuery | Refused:
        """The query for no more output than its budgets have room for, so that a grant by Redis probably fits them."""
        budgets = query.budget_windows(terms, at_ms)
        states = await self.budgeted.states(query.principal.tenant_id, budgets)
        most = fit_budgets(query, terms, states, at_ms)
        return most if isinstance(most, Refused) else replace(query, max_tokens=most)

    async def _open(
        self, request: OpenRequest, budgets: tuple[BudgetWindow, ...] = ()
    ) -> WithinBudget | OverBudget | Retry:
        """Opens the row, within its budgets. Raises Unauthenticated, UserDisabled, Unavailable.

        The hold of a request that is not open is released. When nobody knows whether there is a row (InDoubt), it stays
        until its deadline, and Postgres answers for it then; nobody runs such a row. When the caller leaves first (its
        deadline, or the client), the hold is released once the answer is known.
        """
        opened = await self._opened(request, budgets)
        if isinstance(opened, WithinBudget):
            return opened
        if opened is Opened.OPEN:
            return WithinBudget(())
        await self._release(request)
        if isinstance(opened, OverBudget):
            return opened
        if opened is Opened.KEY_ENDED:
            raise Unauthenticated
        if opened is Opened.USER_DISABLED:
            raise UserDisabled(request.tenant_id)
        if isinstance(opened, InFallback) and opened.remaining_s > 0:
            return Retry(fallback_s=opened.remaining_s)
        return Retry(request.epoch + 1, Mend.BOUNCE)

    async def _opened(self, request: OpenRequest, budgets: tuple[BudgetWindow, ...]) -> BudgetedAnswer:
        """The journal's answer. The request is in flight while it may be open."""
        opened: BudgetedAnswer | None = None
        self.running.enter(request.id)
        committer, asked = self._submit(request, budgets)
        try:
            with span("open"):
                answer: BudgetedAnswer = await asyncio.shield(asked)
            opened = answer
            return answer  # noqa: TRY300 - the finally needs it
        except asyncio.CancelledError:
            self._abandon(request, committer, asked)
            raise
        except InDoubt:
            raise
        except NakaError:
            await self._release(request)
            raise
        finally:
            if not _is_open(opened):
                self.running.leave(request.id)

    def _submit(
        self, request: OpenRequest, budgets: tuple[BudgetWindow, ...]
    ) -> "tuple[GroupCommitter[Any, Any], asyncio.Future[Any]]":
        """Queues the row; one with budgets has a committer of its own."""
        if budgets:
            return self.budgeted.committer, self.budgeted.committer.submit(BudgetedRequest(request, budgets))
        return self.journal.opens, self.journal.opens.submit(request)

    def _abandon(
        self, request: OpenRequest, committer: "GroupCommitter[Any, Any]", asked: "asyncio.Future[BudgetedAnswer]"
    ) -> None:
        """Releases the hold once the row is certainly not open. An open one is an orphan, and recovery settles it."""

        def answered(asked: "asyncio.Future[BudgetedAnswer]") -> None:
            if asked.cancelled():
                return
            error = asked.exception()
            if isinstance(error, InDoubt) or (error is None and _is_open(asked.result())):
                return
            self._release_later(request)

        if committer.withdraw(asked):
            self._release_later(request)
        else:
            asked.add_done_callback(answered)

    def _release_later(self, request: OpenRequest) -> None:
        task = asyncio.create_task(self._release(request))
        self.late.add(task)
        task.add_done_callback(self.late.discard)

    async def _release(self, request: OpenRequest) -> None:
        with contextlib.suppress(Unavailable):
            await self.quota.settle(request.tenant_id, request.user_id, request.id, NO_COUNTS)


def _is_open(opened: BudgetedAnswer | None) -> bool:
    """Whether the row is open, and may run."""
    return opened is Opened.OPEN or isinstance(opened, WithinBudget)
