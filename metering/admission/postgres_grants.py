"""Admission without Redis: Postgres judges by its own rows, under the tenant's lock, with the same limits.

One transaction for each tenant of a batch: take the lock, read what is used and held, judge each ask in turn by what
is left after the one before, open what was granted. Nobody else can open for the tenant meanwhile, so limits hold
exactly; where the tenant was Redis's until now, its epoch moves, so what Redis granted and nobody opened yet bounces.
An entitlement that was read in an older epoch is read again first.

A process that cannot see Redis puts the tenant into Postgres's hands for a few seconds, again and again. Processes that
do see it hear of that when their opens bounce, ask here as well, and go back once that time has passed
(`Epochs.rebuild_tenant`). Postgres away: `Unavailable`, nothing is admitted.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from uuid import UUID

from core.clock import offset_ms, to_ms
from core.errors import NakaError, Unavailable
from core.ids import uuid7
from core.logs import get_logger
from core.postgres.connection import Connection
from core.postgres.url import PostgresUrl
from core.resilience.outage import COLLISIONS, STORE_ERRORS, is_outage, is_undone
from metering.admission.snapshot import names_at, read_snapshot
from metering.journal.group_commit import GroupCommitter, Poisoned
from metering.journal.in_flight import InFlight
from metering.journal.journal import open_batch, void_unknown
from metering.quota.counters import ScopeCounters
from metering.quota.decision import decide, room
from metering.quota.query import AdmissionContext, Admitted, Refused, Reservation
from metering.quota.schedule import Period
from metering.quota.windows import Calendar
from metering.sql import load

DWELL_S = 5.0
"""For how long Postgres admits a tenant at least, from the last request of a process that cannot see Redis."""
_LANES = 4
"""A tenant has one of them, so that a tenant whose lock is taken keeps few others waiting."""

log = get_logger(__name__)


class Undecided(Enum):
    """Neither granted nor refused."""

    ASK_REDIS = "redis"  # Redis admits this tenant, and this process can see it
    ASK_AGAIN = "again"  # nobody knows what became of the try, and it was made void
    READ_AGAIN = "read"  # the epoch has moved since the entitlement was read
    KEY_ENDED = "key"


Answer = Admitted | Refused | Undecided


@dataclass(slots=True)
class _Ask:
    """A wish on its way through the lane. `minted`: what may have been opened for it, if the commit was in doubt."""

    wish: AdmissionContext
    blind: bool
    minted: list[Admitted] = field(default_factory=list)
    answer: Answer | NakaError | None = None
    abandoned: bool = False

    @property
    def tenant_id(self) -> UUID:
        return self.wish.principal.tenant_id


class PostgresGrants:
    """Grants by Postgres. One per process."""

    def __init__(
        self,
        url: str | PostgresUrl,
        *,
        process_id: UUID,
        running: InFlight,
        calendar: Calendar,
        timeout_s: float,
        dwell_s: float = DWELL_S,
        idle_s: float = 60,
    ) -> None:
        """`idle_s`: the lanes' connections, which an outage of Redis opens, are closed after this long without use."""
        self._process_id = process_id
        self._running = running
        self._calendar = calendar
        self._dwell_s = dwell_s
        self._until_s: dict[UUID, float] = {}
        self._lanes: list[GroupCommitter[_Ask, Answer | NakaError]] = [
            GroupCommitter(
                f"fallback-{number}", url, self._admit, self._in_doubt, timeout_s=timeout_s, retry_s=None, idle_s=idle_s
            )
            for number in range(_LANES)
        ]

    def start(self) -> None:
        """Starts the lanes; they connect when they are needed."""
        for lane in self._lanes:
            lane.start()

    async def stop(self) -> None:
        """Finishes what is queued."""
        for lane in self._lanes:
            await lane.stop()

    @property
    def depth(self) -> int:
        """How many asks wait for Postgres."""
        return sum(lane.depth for lane in self._lanes)

    @property
    def tenants(self) -> int:
        """How many tenants Postgres admits, as far as this process has heard."""
        now_s = time.monotonic()
        return sum(now_s < until_s for until_s in self._until_s.values())

    def serves(self, tenant_id: UUID) -> bool:
        """Whether Postgres admits the tenant, as far as this process has heard."""
        until_s = self._until_s.get(tenant_id)
        if until_s is None:
            return False
        if time.monotonic() < until_s:
            return True
        del self._until_s[tenant_id]
        return False

    def heard(self, tenant_id: UUID, remaining_s: float | None) -> None:
        """What Postgres said of the tenant: it is in its hands for so long; or is not (None)."""
        if remaining_s is None or remaining_s <= 0:
            self._until_s.pop(tenant_id, None)
        else:
            self._until_s[tenant_id] = time.monotonic() + remaining_s

    async def admit(self, wish: AdmissionContext, *, blind: bool) -> Answer:
        """Grants or refuses. `blind`: this process cannot see Redis, so Postgres takes the tenant if it must.

        What is granted runs (`Running`); if the caller leaves first, nobody runs it. Raises PaymentRequired,
        UnknownModel, Unavailable.
        """
        ask = _Ask(wish, blind)
        try:
            answer = await self._lanes[ask.tenant_id.int % _LANES].submit(ask)
        except BaseException:
            ask.abandoned = True
            self._forget(ask)
            raise
        if isinstance(answer, NakaError):
            raise answer
        return answer

    async def _admit(self, connection: Connection, batch: list[_Ask]) -> list[Answer | NakaError]:
        wanted = sorted((ask for ask in batch if not ask.abandoned), key=lambda ask: ask.tenant_id.int)
        for _, asks in groupby(wanted, key=lambda ask: ask.tenant_id):
            await self._of_tenant(connection, list(asks))
        return [ask.answer or Undecided.ASK_AGAIN for ask in batch]

    async def _of_tenant(self, connection: Connection, asks: list[_Ask]) -> None:
        """One transaction; what Postgres refuses of it is tried one by one, so that only the poisoned one fails.

        An outage of this tenant alone (its lock is held too long) fails its asks, and those of no other.
        """
        try:
            while asks and not await self._transaction(connection, asks):
                asks = [ask for ask in asks if ask.answer is not Undecided.KEY_ENDED]
        except STORE_ERRORS as error:
            collided = isinstance(error, COLLISIONS)
            if is_outage(error) and not is_undone(error):
                raise
            self._forget(*asks)
            log.warning("fallback_refused", asks=len(asks), error=type(error).__name__)
            if is_outage(error) and not collided:
                for ask in asks:
                    ask.answer = Unavailable("the journal does not answer")
            elif len(asks) > 1:
                for ask in asks:
                    await self._of_tenant(connection, [ask])
            elif collided:
                asks[0].answer = Undecided.ASK_AGAIN
            else:
                log.critical("row_poisoned", lane="fallback", error=type(error).__name__, item=repr(asks[0].wish))
                asks[0].answer = Poisoned("the journal refuses this row")

    async def _transaction(self, connection: Connection, asks: list[_Ask]) -> bool:
        """Answers all asks of one tenant. False: nothing is done: a key had ended, and its grant took room."""
        transaction = connection.transaction()
        await transaction.start()
        try:
            granted = await self._judge(connection, asks)
            requests = [given.request for given in granted.values()]
            opened = await open_batch(connection, requests, self._process_id) if requests else set()
        except BaseException:
            with contextlib.suppress(*STORE_ERRORS):
                await transaction.rollback()
            raise
        ended = [number for number, given in granted.items() if given.request.id not in opened]
        if not ended:
            await transaction.commit()
            return True
        await transaction.rollback()
        self._forget(*asks)
        for number in ended:
            asks[number].answer = Undecided.KEY_ENDED
        return False

    async def _judge(self, connection: Connection, asks: list[_Ask]) -> dict[int, Admitted]:
        """Under the tenant's lock: an answer for each ask; those that are granted, by their number."""
        tenant_id, blind = asks[0].tenant_id, any(ask.blind for ask in asks)
        (row,) = await connection.fetch(load("fallback_enter"), tenant_id, blind, self._dwell_s)
        self.heard(tenant_id, row["fallback_s"])
        if row["fallback_s"] is None:
            for ask in asks:
                ask.answer = Undecided.ASK_REDIS
            return {}
        desk = _LockedTenant(connection, self._calendar, tenant_id, row["epoch"], to_ms(row["at"]) + offset_ms())
        granted = {}
        for number, ask in enumerate(asks):
            if ask.wish.timeline.read_epoch < row["epoch"]:
                ask.answer = Undecided.READ_AGAIN
                continue
            try:
                ask.answer = await desk.answer(ask.wish)
            except NakaError as error:
                ask.answer = error
            if isinstance(ask.answer, Admitted) and not ask.abandoned:
                granted[number] = ask.answer
                ask.minted.append(ask.answer)
                self._running.enter(ask.answer.request.id)
        return granted

    async def _in_doubt(self, connection: Connection, batch: list[_Ask]) -> list[Answer | NakaError]:
        """The connection broke: what was opened is granted; what was not is made void, and asks again."""
        minted = [given.request for ask in batch for given in ask.minted]
        known = (
            await void_unknown(connection, [(request.tenant_id, request.id, request.user_id) for request in minted])
            if minted
            else {}
        )
        answers: list[Answer | NakaError] = []
        for ask in batch:
            opened = [given for given in ask.minted if known[given.request.id].state == "open"]
            if opened:
                answers.append(opened[0])
            else:
                self._forget(ask)
                answers.append(Undecided.ASK_AGAIN)
        return answers

    def _forget(self, *asks: _Ask) -> None:
        """What was minted for them is not going to run."""
        for ask in asks:
            for given in ask.minted:
                self._running.leave(given.request.id)
            ask.minted.clear()


class _LockedTenant:
    """One tenant under its lock: what is used and held, and each grant on top of it."""

    def __init__(self, connection: Connection, calendar: Calendar, tenant_id: UUID, epoch: int, now_ms: int) -> None:
        self._connection = connection
        self._calendar = calendar
        self._tenant_id = tenant_id
        self._epoch = epoch
        self._now_ms = now_ms
        self._states: dict[UUID | None, ScopeCounters] = {}

    async def answer(self, wish: AdmissionContext) -> Admitted | Refused:
        """The grant, which counts from now on; or why not. Raises PaymentRequired, UnknownModel.

        The wish's entitlement was read in this epoch: all wishes here have the same periods.
        """
        question, entitlement = wish.question(self._now_ms, self._calendar), wish.entitlement_at(self._now_ms)
        user_id, periods = wish.principal.user_id, wish.timeline.periods
        user, tenant = await self._state(user_id, periods), await self._state(None, periods)
        granted = decide(question, entitlement, user, tenant, self._now_ms)
        if isinstance(granted, Refused):
            return granted
        amounts = (question.prompt_bound, granted, question.nano_usd(granted))
        user, tenant = user.with_hold(*amounts), tenant.with_hold(*amounts)
        self._states[user_id], self._states[None] = user, tenant
        left = room(entitlement, user, tenant)
        held = Reservation(self._now_ms, uuid7(self._now_ms), self._epoch, granted, lapsed=False, room=left)
        return Admitted(wish, question, held, wish.request(question, held))

    async def _state(self, user_id: UUID | None, periods: Sequence[Period]) -> ScopeCounters:
        if user_id not in self._states:
            whose = self._tenant_id, user_id
            shadow = await read_snapshot(self._connection, self._calendar, *whose, self._now_ms, periods=periods)
            self._states[user_id] = shadow.state(names_at(self._calendar, self._now_ms, periods))
        return self._states[user_id]
