"""Grants by Postgres while Redis is unreachable: its own rows under the tenant's lock, with the same limits.

One transaction per tenant of a batch: take the lock, read what is used and held, decide each query by what is left
after the one before, open what was granted. Nobody else can open for the tenant meanwhile, so limits hold exactly. A
tenant that Redis admitted until now gets a new epoch, so an unopened grant by Redis bounces.

A process that cannot reach Redis makes Postgres admit the tenant for a few seconds, again and again. Processes that
reach Redis learn that when Postgres refuses their opens, ask here as well, and return to Redis once that time has
passed (`Rebuilder.rebuild_tenant`). Postgres unreachable: `Unavailable`, nothing is admitted.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from uuid import UUID

from core.clock import offset_ms, to_ms
from core.errors import NakaError, Unavailable
from core.ids import uuid7
from core.logs import get_logger
from core.postgres.connection import Connection
from core.postgres.url import PostgresUrl
from core.resilience.outage import COLLISIONS, STORE_ERRORS, is_outage, is_undone
from core.tenancy.principal import Unauthenticated, UserDisabled
from metering.admission.snapshot import names_at, read_snapshot
from metering.budgets.usage import TagWindow, lock_budgets, read_usage, states_of
from metering.journal.group_commit import GroupCommitter, Poisoned
from metering.journal.in_flight import InFlight
from metering.journal.journal import Opened, open_batch, refusal_reasons, void_unknown
from metering.quota.budgets import BudgetState, BudgetWindow
from metering.quota.counters import ScopeCounters, WindowState
from metering.quota.decision import decide, fit_budgets, room
from metering.quota.query import Answer, Grant, QuotaQuery, QuotaTerms, Refused, Retry
from metering.quota.schedule import Period
from metering.quota.windows import Calendar
from metering.sql import load

DWELL_S = 5.0
"""The least time that Postgres admits a tenant after the last request of a process that cannot reach Redis."""
_COMMITTERS = 4
"""A tenant always uses the same one, so that a tenant whose lock is taken delays few others."""

log = get_logger(__name__)


@dataclass(slots=True)
class _Pending:
    """A query in a batch. `granted`: grants that may have been opened for it, if the commit was in doubt."""

    query: QuotaQuery
    granted: list[Grant] = field(default_factory=list)
    answer: Answer | NakaError | None = None
    abandoned: bool = False

    @property
    def tenant_id(self) -> UUID:
        return self.query.principal.tenant_id


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
        """`idle_s`: connections, which only an outage of Redis opens, are closed after this long without use."""
        self._process_id = process_id
        self._running = running
        self._calendar = calendar
        self._dwell_s = dwell_s
        self._until_s: dict[UUID, float] = {}
        self._committers: list[GroupCommitter[_Pending, Answer | NakaError]] = [
            GroupCommitter(
                f"fallback-{number}", url, self._admit, self._in_doubt, timeout_s=timeout_s, retry_s=None, idle_s=idle_s
            )
            for number in range(_COMMITTERS)
        ]

    def start(self) -> None:
        """Starts the committers; they connect when they are needed."""
        for committer in self._committers:
            committer.start()

    async def stop(self) -> None:
        """Finishes what is queued."""
        for committer in self._committers:
            await committer.stop()

    @property
    def depth(self) -> int:
        """The number of queries that wait for Postgres."""
        return sum(committer.depth for committer in self._committers)

    @property
    def tenants(self) -> int:
        """The number of tenants that Postgres admits, as far as this process knows."""
        now_s = time.monotonic()
        return sum(now_s < until_s for until_s in self._until_s.values())

    def serves(self, tenant_id: UUID) -> bool:
        """Whether Postgres admits the tenant, as far as this process knows."""
        until_s = self._until_s.get(tenant_id)
        if until_s is None:
            return False
        if time.monotonic() < until_s:
            return True
        del self._until_s[tenant_id]
        return False

    def note_fallback(self, tenant_id: UUID, remaining_s: float | None) -> None:
        """Remembers that Postgres admits the tenant for `remaining_s` seconds; None: Redis does."""
        if remaining_s is None or remaining_s <= 0:
            self._until_s.pop(tenant_id, None)
        else:
            self._until_s[tenant_id] = time.monotonic() + remaining_s

    async def admit(self, query: QuotaQuery) -> Answer:
        """One try. A granted request is in flight (`InFlight`) and open; if the caller leaves first, nobody runs it.

        Raises PaymentRequired, Forbidden, UnknownModel, Unauthenticated when the key was revoked meanwhile,
        UserDisabled, Unavailable.
        """
        pending = _Pending(query)
        try:
            answer = await self._committers[pending.tenant_id.int % _COMMITTERS].submit(pending)
        except BaseException:
            pending.abandoned = True
            self._forget(pending)
            raise
        if isinstance(answer, NakaError):
            raise answer
        return answer

    async def _admit(self, connection: Connection, batch: list[_Pending]) -> list[Answer | NakaError]:
        wanted = sorted((one for one in batch if not one.abandoned), key=lambda one: one.tenant_id.int)
        for _, group in groupby(wanted, key=lambda one: one.tenant_id):
            await self._admit_tenant(connection, list(group))
        return [one.answer or Retry() for one in batch]

    async def _admit_tenant(self, connection: Connection, group: list[_Pending]) -> None:
        """One transaction. What Postgres refuses of it is tried one by one, so that only the faulty row fails.

        An outage of this tenant alone (its lock is held too long) fails its queries, and no others.
        """
        try:
            while group and not await self._transaction(connection, group):
                group = [one for one in group if not isinstance(one.answer, Unauthenticated | UserDisabled)]
        except STORE_ERRORS as error:
            collided = isinstance(error, COLLISIONS)
            if is_outage(error) and not is_undone(error):
                raise
            self._forget(*group)
            log.warning("postgres_grants_failed", queries=len(group), error=type(error).__name__)
            if is_outage(error) and not collided:
                for one in group:
                    one.answer = Unavailable("the journal does not answer")
            elif len(group) > 1:
                for one in group:
                    await self._admit_tenant(connection, [one])
            elif collided:
                group[0].answer = Retry()
            else:
                log.critical("row_poisoned", lane="fallback", error=type(error).__name__, item=repr(group[0].query))
                group[0].answer = Poisoned("the journal refuses this row")

    async def _transaction(self, connection: Connection, group: list[_Pending]) -> bool:
        """Answers the queries of one tenant. False: rolled back, since a key or user ended whose grant took room."""
        transaction = connection.transaction()
        await transaction.start()
        try:
            granted = await self._decide(connection, group)
            requests = [grant.request for _, grant in granted]
            opened = await open_batch(connection, requests, self._process_id) if requests else set()
        except BaseException:
            with contextlib.suppress(*STORE_ERRORS):
                await transaction.rollback()
            raise
        ended = [(one, grant.request) for one, grant in granted if grant.request.id not in opened]
        if not ended:
            await transaction.commit()
            return True
        await transaction.rollback()
        self._forget(*group)
        reasons = await refusal_reasons(connection, [request for _, request in ended])
        for one, request in ended:
            is_disabled = reasons[request.key_id, request.user_id] is Opened.USER_DISABLED
            one.answer = UserDisabled(request.tenant_id) if is_disabled else Unauthenticated()
        return False

    async def _decide(self, connection: Connection, group: list[_Pending]) -> list[tuple[_Pending, Grant]]:
        """Answers each query under the tenant's lock; returns the grants.

        The locks of budgets come first, as where Redis grants (`metering.budgets.opens`).
        """
        await _lock_budgets(connection, group)
        tenant_id, take_over = group[0].tenant_id, any(one.query.redis_unreachable for one in group)
        (row,) = await connection.fetch(load("fallback_enter"), tenant_id, take_over, self._dwell_s)
        self.note_fallback(tenant_id, row["fallback_s"])
        if row["fallback_s"] is None:  # Redis admits the tenant, and this process can reach it
            for one in group:
                one.answer = Retry()
            return []
        tenant = _LockedTenant(connection, self._calendar, tenant_id, row["epoch"], to_ms(row["at"]) + offset_ms())
        granted = []
        for one in group:
            read_epoch = one.query.timeline.read_epoch
            if read_epoch < row["epoch"]:
                one.answer = Retry(read_epoch + 1)
                continue
            try:
                one.answer = await tenant.answer(one.query)
            except NakaError as error:
                one.answer = error
            if isinstance(one.answer, Grant) and not one.abandoned:
                granted.append((one, one.answer))
                one.granted.append(one.answer)
                self._running.enter(one.answer.request.id)
        return granted

    async def _in_doubt(self, connection: Connection, batch: list[_Pending]) -> list[Answer | NakaError]:
        """After the connection broke: opened requests are granted; the others are made void, and ask again."""
        requests = [grant.request for one in batch for grant in one.granted]
        known = (
            await void_unknown(connection, [(request.tenant_id, request.id, request.user_id) for request in requests])
            if requests
            else {}
        )
        answers: list[Answer | NakaError] = []
        for one in batch:
            opened = [grant for grant in one.granted if known[grant.request.id].state == "open"]
            if not opened:
                self._forget(one)
            answers.append(opened[0] if opened else Retry())
        return answers

    def _forget(self, *group: _Pending) -> None:
        """Their grants are not going to run."""
        for one in group:
            for grant in one.granted:
                self._running.leave(grant.request.id)
            one.granted.clear()


async def _lock_budgets(connection: Connection, group: list[_Pending]) -> None:
    """Locks the budgets of all queries; a tag has one lock, whatever the window."""
    tags = {(one.tenant_id, budget.key, budget.value) for one in group for budget in one.query.budgets}
    if tags:
        await lock_budgets(connection, tags)


class _LockedTenant:
    """One tenant under its lock: its counters, and each grant on top of them."""

    def __init__(self, connection: Connection, calendar: Calendar, tenant_id: UUID, epoch: int, now_ms: int) -> None:
        self._connection = connection
        self._calendar = calendar
        self._tenant_id = tenant_id
        self._epoch = epoch
        self._now_ms = now_ms
        self._counters: dict[UUID | None, ScopeCounters] = {}
        self._usage: dict[TagWindow, WindowState] = {}

    async def answer(self, query: QuotaQuery) -> Grant | Refused:
        """The grant, which counts from now on, or the refusal. Raises PaymentRequired, Forbidden, UnknownModel.

        The entitlement was read in this epoch: all queries here have the same periods.
        """
        terms = query.terms(self._now_ms, self._calendar)
        user_id, periods = query.principal.user_id, query.timeline.periods
        user, tenant = await self._read(user_id, periods), await self._read(None, periods)
        budgets = query.budget_windows(terms, self._now_ms)
        granted = await self._decide(query, terms, user, tenant, budgets)
        if isinstance(granted, Refused):
            return granted
        held_output = granted + query.further_output
        held_nano_usd = terms.nano_usd(query.prompt_bound, held_output, query.web_searches)
        amounts = (query.prompt_bound, held_output, query.web_searches, held_nano_usd)
        user, tenant = user.with_hold(*amounts), tenant.with_hold(*amounts)
        self._counters[user_id], self._counters[None] = user, tenant
        for window in {TagWindow.of(self._tenant_id, one) for one in budgets}:
            self._usage[window] = self._usage[window].with_hold((1, *amounts))
        grant = query.grant(
            terms,
            id=uuid7(self._now_ms),
            epoch=self._epoch,
            now_ms=self._now_ms,
            output_tokens=granted,
            room=room(terms.entitlement, user, tenant),
        )
        return replace(grant, budgets=states_of(self._tenant_id, budgets, self._usage))

    async def _decide(
        self,
        query: QuotaQuery,
        terms: QuotaTerms,
        user: ScopeCounters,
        tenant: ScopeCounters,
        budgets: tuple[BudgetWindow, ...],
    ) -> int | Refused:
        """The output tokens to grant under the budgets and all limits, or the refusal."""
        if budgets:
            most = fit_budgets(query, terms, await self._states(budgets), self._now_ms)
            if isinstance(most, Refused):
                return most
            query = replace(query, max_tokens=most)
        return decide(query, terms, user, tenant, self._now_ms)

    async def _states(self, budgets: tuple[BudgetWindow, ...]) -> tuple[BudgetState, ...]:
        """The budgets with all grants before; their locks are held."""
        missing = {TagWindow.of(self._tenant_id, one) for one in budgets} - self._usage.keys()
        if missing:
            self._usage |= await read_usage(self._connection.fetch, missing)
        return states_of(self._tenant_id, budgets, self._usage)

    async def _read(self, user_id: UUID | None, periods: Sequence[Period]) -> ScopeCounters:
        if user_id not in self._counters:
            whose = self._tenant_id, user_id
            snapshot = await read_snapshot(self._connection, self._calendar, *whose, self._now_ms, periods=periods)
            self._counters[user_id] = snapshot.counters(names_at(self._calendar, self._now_ms, periods))
        return self._counters[user_id]
