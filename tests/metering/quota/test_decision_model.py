"""admit.lua and settle.lua against the small model: any limits, any history, any order, the same reasons and numbers.

And decision.py, which decides while Redis is unreachable, against both: every field of every answer.
"""

import random
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.admission.redis_scripts import QuotaScripts
from metering.quota.counters import ScopeCounters, WindowState
from metering.quota.decision import decide, room
from metering.quota.limits import (
    METERS,
    PRICED_CLASSES,
    WINDOWS,
    Ceiling,
    Entitlement,
    Limit,
    LimitSet,
    Meter,
    PlanLimits,
    PricedMeter,
    resolve,
)
from metering.quota.query import LARGE_OUTPUT, Grant, QuotaQuery, QuotaTerms, Refused
from metering.quota.windows import Window, WindowKind, minute_window
from tests.metering.model import ModelHash, QuotaModel, Verdict, left, names_at, query_of

HOUR_MS = 3_600_000
TOKENS = st.integers(0, 40)
BOUNDS = st.integers(0, 20) | st.integers(40, 160) | st.integers(100, 300)
LIMITS = st.lists(st.builds(Limit, st.sampled_from(METERS), st.sampled_from(WINDOWS), BOUNDS), max_size=4).map(tuple)
SETS = st.builds(LimitSet, LIMITS, st.sampled_from([None, None, None, 0, 1, 3]))
RATES = st.sampled_from([0, 7_919, 40_000, 100_003, 250_000])
PRICES = st.tuples(*[st.tuples(st.booleans(), st.integers(0, 50), RATES)] * len(PRICED_CLASSES))
CEILINGS = st.builds(
    lambda paise, prices: Ceiling(
        paise,
        tuple(
            PricedMeter(meter, allowance, rate)
            for meter, (priced, allowance, rate) in zip(PRICED_CLASSES, prices, strict=True)
            if priced
        ),
    ),
    st.integers(0, 12),
    PRICES,
)
PLANS = st.builds(PlanLimits, bounds=LIMITS, ceiling=st.none() | CEILINGS)
USED = st.just((0,) * 9) | st.tuples(*[st.integers(0, 20)] * 7, st.integers(0, 8), st.integers(0, 60_000))
HISTORY = st.tuples(*[USED] * 3)
COUNTS = st.tuples(st.integers(0, 1), *[st.integers(0, 60)] * 6, st.integers(0, 5), st.integers(0, 90_000))
SMALLEST = st.integers(1, 8) | st.integers(1, 60)
LARGE = st.sampled_from([LARGE_OUTPUT, 0, 4, 12, 30])
SIZES = (
    *(TOKENS, TOKENS, st.integers(0, 60), SMALLEST, st.integers(0, 2_000), st.integers(0, 4), LARGE),
    st.sampled_from([0, 0, 1, 15, 60]),
)
"""Of a query: prompt, its likely size, output asked and least, output rate, searches, when the output is large,
and the output of other models."""
ADMIT = st.tuples(st.just("admit"), st.integers(0, 1), *SIZES)
SETTLE = st.tuples(st.just("settle"), st.integers(0, 10), COUNTS)


class Trial:
    """One tenant with two users, in Redis and in the model; both are compared after each step."""

    def __init__(self, quota: QuotaScripts, entitlement: Entitlement) -> None:
        self.quota = quota
        self.tenant, self.users = uuid4(), (uuid4(), uuid4())
        self.entitlement = entitlement
        self.model = QuotaModel(
            entitlement.limits, entitlement.user_concurrency, entitlement.tenant_concurrency, ModelHash(), {}
        )
        self.held: list[tuple[UUID, int]] = []
        self.settled: list[tuple[UUID, int]] = []
        self.day = self.period = Window(WindowKind.DAY, "", 0, 0)

    async def build(self, histories: list[tuple[tuple[int, ...], ...]]) -> None:
        """Writes earlier usage; the first history is the tenant's."""
        now = await self.quota.now_ms()
        self.day = Window(WindowKind.DAY, "2026-11-22", now - HOUR_MS, now + HOUR_MS)
        self.period = Window(WindowKind.PERIOD, "2026-11", now - HOUR_MS, now + 2 * HOUR_MS)
        names = [f"m:{minute_window(now).name}", f"d:{self.day.name}", f"p:{self.period.name}"]
        run = await self.quota.pipeline.connect()
        hashes = [
            ModelHash({name: WindowState(used) for name, used in zip(names, history, strict=True)})
            for history in histories
        ]
        fields = [
            {name: state.pack() for name, state in made.windows.items()} | {"k": " ".join(names)} for made in hashes
        ]
        assert await self.quota.build_tenant(self.tenant, 7, run, fields[0])
        self.model.tenant = hashes[0]
        for index, user in enumerate(self.users):
            assert await self.quota.build_user(self.tenant, user, 7, run, fields[index + 1])
            self.model.users[index] = hashes[index + 1]

    async def admit(self, user: int, *sizes: int) -> None:
        """Asks both and compares the reasons, the grant and the room."""
        prompt, likely, asked, smallest, rate, searches, large, further = sizes
        likely = min(prompt, likely)
        query = query_of(
            self.tenant,
            self.users[user],
            prompt=prompt,
            likely=likely,
            asked=asked,
            smallest=smallest,
            read_epoch=7,
            ttl_ms=60_000,
            searches=searches,
            large=large,
            further=further,
        )
        terms = QuotaTerms(
            self.entitlement,
            self.day,
            self.period,
            self.period.name,
            from_ms=self.day.starts_ms,
            until_ms=self.day.ends_ms,
            prompt_rate=700,
            output_rate=rate,
            search_rate=3_000,
        )
        answer = await self.quota.admit(query, terms)
        assert isinstance(answer, Grant | Refused)
        self.decide(user, query, terms, answer)
        if isinstance(answer, Refused):
            found = Verdict(-1, answer.cause, answer.limit, answer.of_user, answer.worth_counting)
            assert found == self.model.admit(user, query, terms, answer.now_ms)
            return
        request = answer.request
        assert self.model.admit(user, query, terms, request.opened_ms) == Verdict(answer.output_tokens)
        assert request.id.int >> 80 == request.opened_ms
        names = names_at(terms, request.opened_ms)
        output = request.held_output_tokens
        assert output == answer.output_tokens + further
        amounts = (prompt, output, searches, prompt * 700 + rate * output + searches * 3_000)
        for of in (self.model.tenant, self.model.users[user]):
            of.hold(request.id.hex, names, amounts)
        self.held.append((request.id, user))
        for limit, rest in zip(self.entitlement.limits, answer.room, strict=True):
            of = self.model.users[user] if limit.scope.value == "user" else self.model.tenant
            assert rest == left(limit, of.window(names[limit.window]))
            takes_none = limit.meter is Meter.WEB_SEARCHES and searches == 0  # of a limit that is overdrawn already
            assert rest >= 0 or takes_none, "no grant ever passes a limit"

    def decide(self, user: int, query: QuotaQuery, terms: QuotaTerms, answer: Grant | Refused) -> None:
        """Compares the decision in Python with the script's."""
        names = list(names_at(terms, time_of(answer)).values())
        of_user, of_tenant = (
            ScopeCounters(len(of.holds), tuple(of.window(name) for name in names))
            for of in (self.model.users[user], self.model.tenant)
        )
        assert_decided_alike(query, terms, of_user, of_tenant, answer)

    async def settle(self, which: int, counts: tuple[int, ...]) -> None:
        """Settles a running request, or repeats a settlement."""
        if which < len(self.held):
            request, user = self.held.pop(which)
            for of in (self.model.tenant, self.model.users[user]):
                of.settle(request.hex, counts)
            self.settled.append((request, user))
            assert await self.quota.settle(self.tenant, self.users[user], request, counts) == 2
        elif self.settled:
            request, user = self.settled[which % len(self.settled)]
            assert await self.quota.settle(self.tenant, self.users[user], request, counts) == 0

    async def compare(self) -> None:
        """Every window, hold and running count of the three hashes."""
        for index, user in enumerate(self.users):
            of_user, of_tenant = self.model.users[index], self.model.tenant
            names = sorted(of_user.windows.keys() | of_tenant.windows.keys())
            answer = await self.quota.read(self.tenant, user, names)
            assert isinstance(answer, tuple)
            for state, model in zip(answer, (of_user, of_tenant), strict=True):
                assert state == ScopeCounters(len(model.holds), tuple(model.window(name) for name in names))


def time_of(answer: Grant | Refused) -> int:
    """Redis's clock when it answered."""
    return answer.now_ms if isinstance(answer, Refused) else answer.request.opened_ms


def assert_decided_alike(
    query: QuotaQuery, terms: QuotaTerms, user: ScopeCounters, tenant: ScopeCounters, answer: Grant | Refused
) -> None:
    """Every field of the script's answer is what decision.py answers on the same counters at the same time."""
    verdict = decide(query, terms, user, tenant, time_of(answer))
    if isinstance(verdict, Refused):
        assert verdict == answer
        return
    searches, held = query.web_searches, verdict + query.further_output
    amounts = (query.prompt_bound, held, searches, terms.nano_usd(query.prompt_bound, held, searches))
    left = room(terms.entitlement, user.with_hold(*amounts), tenant.with_hold(*amounts))
    assert isinstance(answer, Grant)
    assert (verdict, held, left) == (answer.output_tokens, answer.request.held_output_tokens, answer.room)


HELD = st.tuples(*[st.integers(0, 60)] * 3, st.integers(0, 8), st.integers(0, 60_000))
STATES = st.builds(
    ScopeCounters,
    st.sampled_from([0, 0, 1, 3]),
    st.tuples(*[st.builds(WindowState, USED, HELD)] * 3),
)


@pytest.mark.slow
@given(
    plan=PLANS,
    limits=st.tuples(SETS, SETS),
    states=st.tuples(STATES, STATES),
    sizes=st.tuples(*SIZES),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_python_decides_as_the_script_does_on_any_counters(
    quota: QuotaScripts,
    plan: PlanLimits,
    limits: tuple[LimitSet, LimitSet],
    states: tuple[ScopeCounters, ScopeCounters],
    sizes: tuple[int, int, int, int, int, int, int, int],
) -> None:
    trial = Trial(quota, resolve(plan, user=limits[0], tenant=limits[1], plan_version=None))
    user_id, run_id, now = trial.users[0], await quota.pipeline.connect(), await quota.now_ms()
    prompt, likely, asked, smallest, rate, searches, large, further = sizes
    day, period = (
        Window(WindowKind.DAY, "2026-11-22", now - HOUR_MS, now + HOUR_MS),
        Window(WindowKind.PERIOD, "p", 0, 2 * now),
    )
    likely = min(prompt, likely)
    query = query_of(
        trial.tenant,
        user_id,
        prompt=prompt,
        likely=likely,
        asked=asked,
        smallest=smallest,
        read_epoch=1,
        ttl_ms=1_000,
        searches=searches,
        large=large,
        further=further,
    )
    terms = QuotaTerms(
        trial.entitlement,
        day,
        period,
        period.name,
        from_ms=0,
        until_ms=2 * now,
        prompt_rate=700,
        output_rate=rate,
        search_rate=3_000,
    )
    names = names_at(terms, now)
    of_user, of_tenant = (
        {"c": state.active} | {name: window.pack() for name, window in zip(names.values(), state.windows, strict=True)}
        for state in states
    )
    assert await quota.build_tenant(trial.tenant, 1, run_id, of_tenant)
    assert await quota.build_user(trial.tenant, user_id, 1, run_id, of_user)
    answer = await quota.admit(query, terms)
    assert isinstance(answer, Grant | Refused)
    if minute_window(time_of(answer)) == minute_window(now):
        assert_decided_alike(query, terms, *states, answer)


@pytest.mark.slow
@given(
    plan=PLANS,
    user=SETS,
    tenant=SETS,
    histories=st.tuples(*[HISTORY] * 3),
    steps=st.lists(ADMIT | ADMIT | SETTLE, min_size=4, max_size=16),
)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_scripts_decide_as_the_model_does(
    quota: QuotaScripts,
    plan: PlanLimits,
    user: LimitSet,
    tenant: LimitSet,
    histories: tuple[tuple[tuple[int, ...], ...], ...],
    steps: list[tuple[object, ...]],
) -> None:
    trial = Trial(quota, resolve(plan, user=user, tenant=tenant, plan_version=None))
    await trial.build(list(histories))
    for kind, *arguments in steps:
        await getattr(trial, str(kind))(*arguments)
        await trial.compare()
    while trial.held:
        await trial.settle(0, (1, 2, 3, 4, 5, 6, 7, 8, 9))
    await trial.compare()
    windows = [state for of in (trial.model.tenant, *trial.model.users.values()) for state in of.windows.values()]
    assert {state.held for state in windows} == {(0, 0, 0, 0, 0)}


@given(steps=st.lists(st.tuples(TOKENS, st.integers(1, 60), COUNTS), min_size=1, max_size=8), seed=st.randoms())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_order_of_settlements_does_not_matter(
    quota: QuotaScripts, steps: list[tuple[int, int, tuple[int, ...]]], seed: random.Random
) -> None:
    """Afterwards nothing is held, and used is the sum."""
    trial = Trial(quota, resolve(PlanLimits(), user=None, tenant=None, plan_version=None))
    await trial.build([((0,) * 9,) * 3] * 3)
    for prompt, asked, _ in steps:
        await trial.admit(0, prompt, prompt, asked, 1, 15, asked % 3, LARGE_OUTPUT, asked % 4)
    order = list(zip(list(trial.held), [counts for *_, counts in steps], strict=True))
    seed.shuffle(order)
    for (request, _), counts in order:
        assert await quota.settle(trial.tenant, trial.users[0], request, counts) == 2
    total = tuple(sum(column) for column in zip(*(counts for *_, counts in steps), strict=True))
    answer = await quota.read(trial.tenant, trial.users[0], ["d:2026-11-22", "p:2026-11"])
    assert isinstance(answer, tuple)
    assert answer == (ScopeCounters(0, (WindowState(total),) * 2),) * 2
