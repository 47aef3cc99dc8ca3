"""Grants by Redis: one question to its scripts, then one row in Postgres, which has the last word.

What Redis answers may be stale, of another window, or bounced by Postgres; each is mended as far as that can be done
here, and the caller asks again. Redis away: `RedisAway`; Postgres away: `Unavailable`; nothing is admitted.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from uuid import UUID

from core.clock import now_ms
from core.errors import InDoubt, NakaError, Unavailable
from core.spans import span
from core.tenancy.principal import Principal, Unauthenticated
from metering.admission.breaker import Breaker
from metering.admission.expired_holds import ExpiredHolds
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_scripts import OtherTime, Outdated, QuotaScripts, Stale
from metering.journal.in_flight import InFlight
from metering.journal.journal import InFallback, Journal, Opened
from metering.journal.records import OpenRequest
from metering.quota.counters import COUNTS
from metering.quota.query import AdmissionContext, Admitted, Refused, Reservation
from metering.quota.windows import Calendar


@dataclass(frozen=True, slots=True)
class Bounced:
    """What Redis answered is not worth anything: the tenant's epoch is not `epoch` any more, says Postgres."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Mended:
    """Ask again, by an entitlement that was read in `least_epoch` or later."""

    least_epoch: int = 0


class RedisGrants:
    """Asks Redis and opens. One per process."""

    def __init__(
        self,
        quota: QuotaScripts,
        journal: Journal,
        epochs: Rebuilder,
        lapses: ExpiredHolds,
        *,
        running: InFlight,
        calendar: Calendar,
    ) -> None:
        self._quota = quota
        self._journal = journal
        self._epochs = epochs
        self._lapses = lapses
        self._running = running
        self._calendar = calendar
        self._skew_ms = 0
        self._late: set[asyncio.Task[None]] = set()

    @property
    def breaker(self) -> Breaker:
        """Whether it makes sense to ask."""
        return self._quota.lane.breaker

    async def admit(self, wish: AdmissionContext) -> Admitted | Refused | Bounced | Outdated | InFallback | Mended:
        """One try. What is granted runs (`Running`).

        Raises PaymentRequired (by an entitlement that may be old), UnknownModel, Unauthenticated when the key ended
        meanwhile, RedisAway, Unavailable.
        """
        at_ms = now_ms() + self._skew_ms
        question = wish.question(at_ms, self._calendar)
        answer = await self._quota.admit(question, wish.entitlement_at(at_ms))
        match answer:
            case Stale():
                return await self._mend(wish, answer)
            case Outdated():
                return answer
            case OtherTime():
                self._skew_ms = answer.now_ms - now_ms()
                return Mended()
            case Refused():
                self._look_for_lapsed(wish.principal, lapsed=answer.lapsed)
                return await self._confirm(wish.principal.tenant_id, answer)
            case Reservation():
                self._skew_ms = answer.now_ms - now_ms()
                self._look_for_lapsed(wish.principal, lapsed=answer.lapsed)
                request = wish.request(question, answer)
                bounced = await self._open(request)
                return bounced or Admitted(wish, question, answer, request)

    async def _confirm(self, tenant_id: UUID, refused: Refused) -> Refused | Bounced:
        """A refusal by counters that Postgres knows to be old is none: nothing was opened that could have bounced."""
        if refused.epoch is not None and await self.has_moved(tenant_id, refused.epoch):
            return Bounced(refused.epoch)
        return refused

    async def has_moved(self, tenant_id: UUID, seen_epoch: int) -> bool:
        """Whether Postgres knows better than what was seen in an epoch. Away: nobody says so."""
        return await self._epochs.has_moved(tenant_id, seen_epoch)

    async def rebuild(self, tenant_id: UUID, seen_epoch: int) -> InFallback | None:
        """What `Epochs` makes of a tenant whose grants bounced. Raises RedisAway, Unavailable."""
        return await self._epochs.rebuild_tenant(tenant_id, seen_epoch)

    async def _open(self, request: OpenRequest) -> Bounced | InFallback | None:
        """None: Postgres opened it. Raises Unauthenticated, Unavailable.

        The hold of a request that is not open goes back; but where nobody knows whether there is a row (InDoubt), it
        stays until it lapses and Postgres answers for it. Nobody runs such a row. A caller who does not wait for the
        answer (its deadline, or it hung up) is answered for later.
        """
        opened: Opened | InFallback | None = None
        self._running.enter(request.id)
        asked = self._journal.opens.submit(request)
        try:
            with span("open"):
                opened = await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._abandon(request, asked)
            raise
        except InDoubt:
            raise
        except NakaError:
            await self._give_back(request)
            raise
        finally:
            if opened is not Opened.OPEN:
                self._running.leave(request.id)
        if opened is Opened.OPEN:
            return None
        await self._give_back(request)
        if opened is Opened.KEY_ENDED:
            raise Unauthenticated
        if isinstance(opened, InFallback) and opened.remaining_s > 0:
            return opened
        return Bounced(request.epoch)

    def _abandon(self, request: OpenRequest, asked: "asyncio.Future[Opened | InFallback]") -> None:
        """Gives the hold back once it is certain that the row is not open. An open one is an orphan, and recovered."""

        def answered(asked: "asyncio.Future[Opened | InFallback]") -> None:
            if asked.cancelled():
                return
            error = asked.exception()
            if isinstance(error, InDoubt) or (error is None and asked.result() is Opened.OPEN):
                return
            self._keep(asyncio.create_task(self._give_back(request)))

        if self._journal.opens.withdraw(asked):
            self._keep(asyncio.create_task(self._give_back(request)))
        else:
            asked.add_done_callback(answered)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _give_back(self, request: OpenRequest) -> None:
        with contextlib.suppress(Unavailable):
            await self._quota.settle(request.tenant_id, request.user_id, request.id, (0,) * COUNTS)

    async def _mend(self, wish: AdmissionContext, stale: Stale) -> InFallback | Mended:
        principal = wish.principal
        if stale.user_only:
            timeline = wish.timeline
            await self._epochs.build_user(principal.tenant_id, principal.user_id, stale.epoch, timeline=timeline)
            return Mended()
        return await self.rebuild(principal.tenant_id, stale.epoch) or Mended(stale.epoch + 1)

    def _look_for_lapsed(self, principal: Principal, *, lapsed: bool) -> None:
        if lapsed:
            self._lapses.look(principal.tenant_id, principal.user_id)
