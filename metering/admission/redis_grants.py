"""Grants by Redis: one call of its script takes the hold, then Postgres opens the row, and has the last word.

A request that Postgres does not open runs nothing, and its hold is released. Redis unreachable: `RedisUnavailable`;
Postgres unreachable: `Unavailable`; nothing is admitted.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from core.clock import now_ms
from core.errors import InDoubt, NakaError, Unavailable
from core.spans import span
from core.tenancy.principal import Unauthenticated
from metering.admission.expired_holds import ExpiredHolds
from metering.admission.redis_scripts import QuotaScripts
from metering.journal.in_flight import InFlight
from metering.journal.journal import InFallback, Journal, Opened
from metering.journal.records import OpenRequest
from metering.quota.counters import NO_COUNTS
from metering.quota.query import Answer, Mend, QuotaQuery, Refused, Retry
from metering.quota.windows import Calendar


@dataclass(slots=True)
class RedisGrants:
    """Asks Redis and opens. One per process."""

    quota: QuotaScripts
    journal: Journal
    expired_holds: ExpiredHolds
    running: InFlight
    calendar: Calendar
    skew_ms: int = field(default=0, init=False)
    """The lead of Redis's clock over ours, from its last answer."""
    late: "set[asyncio.Task[None]]" = field(default_factory=set, init=False)

    async def admit(self, query: QuotaQuery) -> Answer:
        """One try. A granted request is in flight (`InFlight`) and open.

        Raises PaymentRequired and Forbidden (by an entitlement that may be old), UnknownModel, Unauthenticated when the
        key was revoked meanwhile, RedisUnavailable, Unavailable.
        """
        terms = query.terms(now_ms() + self.skew_ms, self.calendar)
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
        return await self._open(answer.request) or answer

    async def _open(self, request: OpenRequest) -> Retry | None:
        """Opens the row; None when Postgres did. Raises Unauthenticated, Unavailable.

        The hold of a request that is not open is released. When nobody knows whether there is a row (InDoubt), it stays
        until its deadline, and Postgres answers for it then; nobody runs such a row. When the caller leaves first (its
        deadline, or the client), the hold is released once the answer is known.
        """
        opened: Opened | InFallback | None = None
        self.running.enter(request.id)
        asked = self.journal.opens.submit(request)
        try:
            with span("open"):
                opened = await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._abandon(request, asked)
            raise
        except InDoubt:
            raise
        except NakaError:
            await self._release(request)
            raise
        finally:
            if opened is not Opened.OPEN:
                self.running.leave(request.id)
        if opened is Opened.OPEN:
            return None
        await self._release(request)
        if opened is Opened.KEY_ENDED:
            raise Unauthenticated
        if isinstance(opened, InFallback) and opened.remaining_s > 0:
            return Retry(fallback_s=opened.remaining_s)
        return Retry(request.epoch + 1, Mend.BOUNCE)

    def _abandon(self, request: OpenRequest, asked: "asyncio.Future[Opened | InFallback]") -> None:
        """Releases the hold once the row is certainly not open. An open one is an orphan, and recovery settles it."""

        def answered(asked: "asyncio.Future[Opened | InFallback]") -> None:
            if asked.cancelled():
                return
            error = asked.exception()
            if isinstance(error, InDoubt) or (error is None and asked.result() is Opened.OPEN):
                return
            self._release_later(request)

        if self.journal.opens.withdraw(asked):
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
