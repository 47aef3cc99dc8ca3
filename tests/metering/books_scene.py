"""An example of test_books_machine.py: two tenants, their users, some processes; who asks, and what must be right.

Each verb does a thing to the product and to the model alike, and compares their answers.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import UUID

from core.clock import now_ms
from metering.admission.admission import AdmissionRequest, QuotaExceeded, TooLarge
from metering.admission.breaker import BreakerState
from metering.journal.records import OpenRequest
from metering.quota.limits import LimitSet
from metering.quota.query import Grant, QuotaQuery
from metering.quota.windows import MINUTE_MS, WindowKind, minute_window
from tests.harness import Account
from tests.metering.books_bench import Bench, Post, Reading, check_postgres, check_redis, kill
from tests.metering.books_model import Asked, BooksModel, State, hash_key, judged, latest_spent, room
from tests.metering.model import ModelHash, names_at
from tests.metering.process import principal
from tests.metering.short_calendar import ShortCalendar
from tests.metering.tagged import declare

Answer = tuple[Any, ...]
"""("granted", output tokens, room), or the refusal's code and its limit."""
EDGE_MS = 2


@dataclass
class Scene:
    """What an example has. `posts` are alive; whoever died left requests without an owner."""

    bench: Bench
    calendar: ShortCalendar
    ttls_ms: list[int]
    model: BooksModel = field(default_factory=BooksModel)
    accounts: list[Account] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    owners: dict[UUID, Post] = field(default_factory=dict)
    grants: dict[UUID, Grant] = field(default_factory=dict)
    holders: dict[UUID, Post] = field(default_factory=dict)
    opened_by: dict[UUID, Post] = field(default_factory=dict)
    graves: list[Post] = field(default_factory=list)

    def people(self, limits: list[tuple[LimitSet, LimitSet, LimitSet]]) -> None:
        """A tenant for each of `limits`: its own, and those of its two users."""
        for of_tenant, *of_users in limits:
            tenant_id = None
            for of_user in of_users:
                asked = self.bench.books.account(limits=of_user, tenant_limits=of_tenant, tenant_id=tenant_id)
                made = self.bench.run(asked)
                if tenant_id is None:
                    self.bench.run(declare(self.bench.books, made.tenant_id, "feature", "conversation"))
                tenant_id = made.tenant_id
                self.accounts.append(made)

    @property
    def tenants(self) -> list[UUID]:
        """Both."""
        return list(dict.fromkeys(account.tenant_id for account in self.accounts))

    def users(self, tenant_id: UUID) -> list[UUID]:
        """A tenant's."""
        return [account.user_id for account in self.accounts if account.tenant_id == tenant_id]

    def hire(self) -> Post:
        """One more process."""
        post = self.bench.start(self.calendar, ttl_ms=self.ttls_ms[len(self.posts) % len(self.ttls_ms)])
        self.posts.append(post)
        return post

    def kill(self, post: Post) -> None:
        """It is gone, and nobody runs its requests."""
        self.posts.remove(post)
        self.graves.append(post)
        self.owners = {request_id: owner for request_id, owner in self.owners.items() if owner is not post}
        self.bench.run(kill(post.process, self.bench.connection))

    def read(self, tenant_id: UUID) -> Reading:
        """A tenant as the stores have it."""
        return self.bench.read(tenant_id, self.users(tenant_id))

    def rest(self) -> None:
        """Until nobody looks for lapsed holds: what somebody finds between a reading and an answer, no model knows."""
        for post in self.posts:
            self.bench.run(_idle(post))

    # ------------------------------------------------------------------------------------------ admission

    def admit(self, post: Post, account: Account, ask: AdmissionRequest, *, blind: bool) -> Asked | None:
        """Asks; the answer must be one that the model would have given within that time.

        `blind`: the process cannot see Redis, so Postgres judges, and admits the tenant for a moment longer.
        """
        self.rest()
        before, began = self.read(account.tenant_id), now_ms()
        query = self.bench.run(_query(post, account, ask))
        answer, grant = self.bench.run(_admit(post, account, ask, blind=blind))
        ended = now_ms()
        expected = self._expected(query, None if blind else before, began, ended)
        assert answer in expected, f"{answer}, not {expected}"
        if grant is None:
            return None
        asked = self._opened(post, grant.request, query)
        self.grants[asked.request.id] = grant
        asked.recorder = post.process.settlements.recorder(grant)
        assert began - EDGE_MS <= asked.request.opened_ms <= ended + EDGE_MS
        self._check_limits(query, asked)
        return asked

    def hold(self, post: Post, account: Account, ask: AdmissionRequest) -> Asked | None:
        """Takes a hold in Redis as an admission does, and stops before the row is opened."""
        self.rest()
        before, began = self.read(account.tenant_id), now_ms()
        if not before.fresh(account.user_id):
            return None
        query = self.bench.run(_query(post, account, ask))
        held = self.bench.run(post.process.quota.admit(query, query.terms(began, self.calendar)))
        if not isinstance(held, Grant):
            return None
        answer = ("granted", held.request.held_output_tokens, held.room)
        expected = self._expected(query, before, began, now_ms())
        assert answer in expected, f"{answer}, not {expected}"
        asked = self._opened(post, held.request, query)
        asked.state, asked.lingers = State.HELD, True
        self.holders[asked.request.id] = self.owners.pop(asked.request.id)
        return asked

    def _opened(self, post: Post, request: OpenRequest, query: QuotaQuery) -> Asked:
        at = request.opened_ms
        day, period = self.calendar.day(at).name, self.calendar.month(at).name
        assert (request.day.isoformat(), request.period_id) == (day, period)
        asked = Asked(request, query.book.at(query.model, at))
        assert asked.amounts[:2] <= (query.prompt_bound, query.max_tokens)
        self.model.asked[request.id] = asked
        self.owners[request.id] = self.opened_by[request.id] = post
        return asked

    def _expected(self, query: QuotaQuery, reading: Reading | None, began: int, ended: int) -> set[Answer]:
        """What the model says for all the moments that it can have been.

        The counters of the user and the tenant are read one after the other, and a hold may end in between.
        """
        moments = sorted(self._moments(began, ended))
        return {self._answer(query, reading, *three) for three in product(moments, repeat=3)}

    def _moments(self, began: int, ended: int) -> set[int]:
        """The first and the last, and whatever turns in between."""
        first, last = began - EDGE_MS, ended + EDGE_MS
        turns = [last // MINUTE_MS * MINUTE_MS, self.calendar.day(last).starts_ms]
        turns += [asked.hold_until_ms for asked in self.model.asked.values() if asked.hold_until_ms is not None]
        between = [turn for turn in turns if first < turn <= last]
        return {began, ended} if not between else {first, last, *between, *(turn - 1 for turn in between)}

    def _answer(
        self, query: QuotaQuery, reading: Reading | None, of_tenant_ms: int, of_user_ms: int, judged_ms: int
    ) -> Answer:
        tenant_id, user_id = query.principal.tenant_id, query.principal.user_id
        terms = query.terms(judged_ms, self.calendar)
        names = names_at(terms, judged_ms)
        user = self._hash(reading, tenant_id, user_id, names.values(), of_user_ms)
        tenant = self._hash(reading, tenant_id, None, names.values(), of_tenant_ms)
        if reading is not None and reading.fresh(None) and reading.lost(user_id):
            tenant = self.model.postgres(tenant_id, None, names.values(), of_tenant_ms)
        verdict = judged(query, terms, user, tenant, judged_ms)
        if verdict.cause:
            if verdict.limit is None:
                return ("blocked" if verdict.cause == "never" else "too_many_at_once", None)
            if verdict.cause == "held":
                return ("held", terms.entitlement.limits[verdict.limit])
            spent = latest_spent(query, terms, user, tenant, judged_ms, self._ends(judged_ms))
            return ("never", None) if verdict.cause == "never" else ("limit_reached", spent)
        nano_usd = terms.nano_usd(query.prompt_bound, verdict.granted, query.web_searches)
        amounts = (query.prompt_bound, verdict.granted, query.web_searches, nano_usd)
        for of in (user, tenant):
            of.hold("this", names, amounts)
        return ("granted", verdict.granted, room(terms.entitlement.limits, names, user, tenant))

    def _ends(self, at_ms: int) -> dict[WindowKind, int]:
        """When the windows of a moment turn: here a day ends before its minute."""
        minute, day, month = minute_window(at_ms), self.calendar.day(at_ms), self.calendar.month(at_ms)
        return {window.kind: window.ends_ms for window in (minute, day, month)}

    def _hash(
        self, reading: Reading | None, tenant_id: UUID, user_id: UUID | None, names: Iterable[str], at_ms: int
    ) -> ModelHash:
        """By the hash of Redis if it counts; else it is built from Postgres, or Postgres judges."""
        if reading is None or not reading.fresh(user_id):
            return self.model.postgres(tenant_id, user_id, list(names), at_ms)
        held = set(reading.held(user_id))
        return self.model.redis(tenant_id, user_id, list(names), held, reading.epoch)

    def _check_limits(self, query: QuotaQuery, asked: Asked) -> None:
        """No window is past a limit because of this grant."""
        tenant_id, user_id, names = query.principal.tenant_id, query.principal.user_id, asked.names
        of = [self.model.truth(tenant_id, one, names.values(), asked.request.opened_ms) for one in (user_id, None)]
        limits = query.timeline.at(asked.request.opened_ms).entitlement.limits
        left = room(limits, names, *of)
        assert min(left, default=0) >= 0, f"past a limit: {left} of {limits}"

    # -------------------------------------------------------------------------------------------- checks

    def check(self) -> None:
        """Postgres, the books, and Redis are as the model has them."""
        self.rest()
        check_postgres(self.bench, self.model, self.tenants, now_ms())
        for tenant_id in self.tenants:
            at = now_ms()
            reading = self.read(tenant_id)
            names = [f"m:{at // MINUTE_MS}", f"d:{self.calendar.day(at).name}", f"p:{self.calendar.month(at).name}"]
            check_redis(self.model, reading, self.users(tenant_id), names, now_ms())

    def lapse(self, post: Post, account: Account) -> None:
        """A look for holds that lapsed: Postgres answered for each, and what it did not know is impossible now."""
        keys = [hash_key(account.tenant_id, user_id) for user_id in (None, account.user_id)]
        before, at = self.read(account.tenant_id), now_ms()
        found = {request_id for user_id in (None, account.user_id) for request_id in before.held(user_id)}
        self.bench.run(_look(post, account))
        after = self.read(account.tenant_id)
        for asked in (self.model.asked[request_id] for request_id in found):
            if asked.request.deadline_ms >= at - EDGE_MS or asked.holds(at):
                continue
            if asked.state in {State.HELD, State.GONE}:
                asked.state = State.VOID
            assert not any(f"h:{asked.request.id.hex}".encode() in after.hashes[key] for key in keys)


async def _query(post: Post, account: Account, ask: AdmissionRequest) -> QuotaQuery:
    return await post.process.admission._query(principal(account), ask)


async def _admit(post: Post, account: Account, ask: AdmissionRequest, *, blind: bool) -> tuple[Answer, Grant | None]:
    breaker = post.process.pipeline.breaker
    try:
        breaker.state = BreakerState.OPEN if blind else BreakerState.CLOSED
        grant = await post.process.admission.admit(principal(account), ask)
    except QuotaExceeded as refused:
        return (refused.code, refused.limit), None
    except TooLarge:
        return ("never", None), None
    finally:
        breaker.state = BreakerState.CLOSED
    return ("granted", grant.request.held_output_tokens, grant.room), grant


async def _look(post: Post, account: Account) -> None:
    await _idle(post)
    await post.process.expired_holds.look(account.tenant_id, account.user_id)


async def _idle(post: Post) -> None:
    await asyncio.gather(*post.process.expired_holds._looking.values())
