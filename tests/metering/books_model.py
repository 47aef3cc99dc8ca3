"""The books as they are meant, in plain dicts: what test_books_machine.py holds the product against. No I/O.

Three readings of one list of requests: what Postgres should say, what a hash of Redis should say (given which holds
are in it), and what is true (who knows a request's counts counts them). Sizes of grants come from the small model of
the scripts (tests/metering/model.py).
"""

import copy
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from enum import Enum
from uuid import UUID

from core.money import ceil_div
from metering.adjustments.measurement import Measurement
from metering.admission.redis_scripts import tenant_key, user_key
from metering.counts import UsageCounts
from metering.journal.recorder import UsageRecorder
from metering.journal.records import OpenRequest, Outcome, Source
from metering.pricing.price import Price
from metering.pricing.tokens import NO_USAGE, Usage, overlay
from metering.quota.counters import HELD, Hold, WindowState
from metering.quota.decision import measure
from metering.quota.limits import EffectiveLimit, LimitScope
from metering.quota.query import QuotaQuery, QuotaTerms
from metering.quota.windows import WindowKind
from tests.metering.model import Amounts, ModelHash, Names, QuotaModel, Verdict

CHARS_PER_TOKEN = 4


class State(Enum):
    """Where a request stands in Postgres; `HELD` and `GONE` have no row."""

    HELD = "held"  # Redis holds for it, and its open has not come yet
    OPEN = "open"
    SETTLED = "settled"
    VOID = "void"
    GONE = "gone"  # it bounced


@dataclass
class Asked:
    """A request that was granted at least by Redis, and all that is known of it."""

    request: OpenRequest
    price: Price
    state: State = State.OPEN
    recorder: UsageRecorder | None = None
    beaten: UsageRecorder | None = None
    known: Measurement | None = None
    first: UsageCounts = field(default_factory=UsageCounts)
    corrected: UsageCounts = field(default_factory=UsageCounts)
    hold_until_ms: int | None = None
    spooled: Measurement | None = None
    told: dict[str, int] = field(default_factory=dict)
    lingers: bool = False
    """Redis may hold for it although Postgres does not, until its hold lapses."""

    @property
    def amounts(self) -> Amounts:
        """What it holds."""
        asked = self.request
        return asked.held_prompt_tokens, asked.held_output_tokens, asked.held_web_searches, asked.held_nano_usd

    @property
    def names(self) -> Names:
        """Its windows, as Redis names them."""
        asked = self.request
        minute = f"m:{asked.opened_ms // 60_000}"
        day, period = f"d:{asked.day.isoformat()}", f"p:{asked.period_id}"
        return {WindowKind.MINUTE: minute, WindowKind.DAY: day, WindowKind.PERIOD: period}

    @property
    def hold(self) -> bytes:
        """The field of Redis."""
        asked = self.request
        minute, day = asked.opened_ms // 60_000, asked.day.isoformat()
        return Hold(*self.amounts, asked.deadline_ms, minute, day, asked.period_id, asked.user_id).pack()

    @property
    def counts(self) -> UsageCounts:
        """What a settled request counts for."""
        return (self.known.counts if self.known else UsageCounts()) + self.corrected

    def holds(self, at_ms: int) -> bool:
        """Whether its hold counts, as Postgres sees it."""
        asleep = self.hold_until_ms is not None and self.hold_until_ms > at_ms
        return self.state is State.OPEN or (self.state is State.SETTLED and asleep)

    def beat(self) -> None:
        """The heartbeat carries how far it is."""
        self.beaten = copy.copy(self.recorder)

    def settle(self, measured: Measurement) -> None:
        """Its process says what it came to; or somebody does who found that in a spool."""
        if self.state is State.OPEN:
            self.state, self.known, self.first, self.lingers = State.SETTLED, measured, measured.counts, False
        elif self.state is State.SETTLED and self.known is not None:
            self.hold_until_ms = None
            self.known = measured if measured.rank > self.known.rank else self.known
        self.spooled = None

    def recover(self, until_ms: int | None) -> None:
        """Somebody settles it for its process; its hold goes on until then."""
        spooled = self.spooled
        self.settle(self.by_beat())
        self.spooled, self.hold_until_ms, self.lingers = spooled, until_ms, True

    def by_owner(self, recorder: UsageRecorder) -> Measurement:
        """What its process settles."""
        if recorder.unanswered:
            usage = Usage(input_tokens=self.request.held_prompt_tokens)
            return self._measurement(recorder.outcome, Source.ESTIMATED, usage)
        if recorder.started is None:
            return self._measurement(recorder.outcome, Source.FINAL, NO_USAGE)
        usage = overlay(recorder.started, recorder.latest)
        if recorder.finished:
            return self._measurement(recorder.outcome, Source.FINAL, usage)
        source = Source.ESTIMATED if recorder.output_chars else Source.COUNTED
        return self._measurement(recorder.outcome, source, self._estimated(usage, recorder))

    def by_beat(self) -> Measurement:
        """What somebody settles who only knows the last beat of its process."""
        seen = self.beaten
        if seen is None or seen.started is None:
            return self._measurement(Outcome.LOST, Source.ESTIMATED, NO_USAGE)
        usage = overlay(seen.started, seen.latest)
        if seen.finished:
            return self._measurement(seen.outcome, Source.FINAL, usage)
        return self._measurement(Outcome.LOST, Source.ESTIMATED, self._estimated(usage, seen))

    def _estimated(self, usage: Usage, recorder: UsageRecorder) -> Usage:
        written = ceil_div(recorder.output_chars, CHARS_PER_TOKEN)
        return replace(usage, output_tokens=min(written, self.request.held_output_tokens))

    def _measurement(self, outcome: Outcome, source: Source, usage: Usage) -> Measurement:
        numbers = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.cache_write_1h_tokens,
            usage.thinking_tokens,
            usage.web_searches,
        )
        counts = UsageCounts(1, *numbers, self.price.cost_nano_usd(usage))
        return Measurement(outcome.value, source.value, self.request.model, counts)


@dataclass(frozen=True)
class Credit:
    """Something was taken off a user's usage; `counts` is below zero."""

    tenant_id: UUID
    user_id: UUID
    period_id: str
    day: date
    counts: UsageCounts


Told = Callable[[Asked], bool]


class BooksModel:
    """All requests and credits of an example."""

    def __init__(self) -> None:
        self.asked: dict[UUID, Asked] = {}
        self.credits: list[Credit] = []

    def of(self, tenant_id: UUID, user_id: UUID | None) -> Iterable[Asked]:
        """The requests of a user, or (None) of its tenant."""
        return [
            asked
            for asked in self.asked.values()
            if asked.request.tenant_id == tenant_id and user_id in {None, asked.request.user_id}
        ]

    def holding(self, tenant_id: UUID, user_id: UUID | None, at_ms: int) -> set[UUID]:
        """The requests whose holds count in Postgres."""
        return {asked.request.id for asked in self.of(tenant_id, user_id) if asked.holds(at_ms)}

    def postgres(self, tenant_id: UUID, user_id: UUID | None, names: Collection[str], at_ms: int) -> ModelHash:
        """The windows as Postgres adds them up; what Redis is built from."""
        return self._hash(tenant_id, user_id, names, self.holding(tenant_id, user_id, at_ms), lambda _: False)

    def redis(
        self, tenant_id: UUID, user_id: UUID | None, names: Collection[str], held: set[UUID], epoch: int
    ) -> ModelHash:
        """The windows as a whole hash of `epoch` has them, if these are the holds in it."""
        key = hash_key(tenant_id, user_id)
        return self._hash(tenant_id, user_id, names, held, lambda asked: asked.told.get(key) == epoch)

    def truth(self, tenant_id: UUID, user_id: UUID | None, names: Collection[str], at_ms: int) -> ModelHash:
        """What was really used, where its process knows, and what may still be: no grant may bring it past a limit."""
        holding = self.holding(tenant_id, user_id, at_ms)
        spooled = {request_id for request_id in holding if self.asked[request_id].spooled}
        return self._hash(tenant_id, user_id, names, holding - spooled, lambda asked: asked.request.id in spooled)

    def told(self, tenant_id: UUID, user_id: UUID | None, epoch: int) -> set[UUID]:
        """The requests whose counts that hash was told before Postgres heard of them."""
        key = hash_key(tenant_id, user_id)
        return {asked.request.id for asked in self.of(tenant_id, user_id) if asked.told.get(key) == epoch}

    def _hash(
        self, tenant_id: UUID, user_id: UUID | None, names: Collection[str], held: set[UUID], told: Told
    ) -> ModelHash:
        made = ModelHash({name: WindowState() for name in names})
        for asked in self.of(tenant_id, user_id):
            holds, counts = asked.request.id in held, UsageCounts()
            if holds:
                made.holds[asked.request.id.hex] = (asked.names, asked.amounts)
                counts = asked.counts - asked.first if asked.state is State.SETTLED else counts
            elif told(asked):
                counts = _counts_told(asked)
            elif asked.state is State.SETTLED:
                counts = asked.counts
            for name in asked.names.values():
                _add(made, name, counts, (1, *asked.amounts) if holds else (0,) * len(HELD))
        for given in self.credits:
            if given.tenant_id == tenant_id and user_id in {None, given.user_id}:
                for name in (f"d:{given.day.isoformat()}", f"p:{given.period_id}"):
                    _add(made, name, given.counts, (0,) * len(HELD))
        return made


def _counts_told(asked: Asked) -> UsageCounts:
    measured = asked.spooled or asked.known
    return UsageCounts() if measured is None else measured.counts


def _add(made: ModelHash, name: str, counts: UsageCounts, amounts: tuple[int, ...]) -> None:
    if name in made.windows:
        before = made.windows[name]
        made.windows[name] = WindowState(
            tuple(a + b for a, b in zip(before.used, counts.values, strict=True)),
            tuple(a + b for a, b in zip(before.held, amounts, strict=True)),
        )


def hash_key(tenant_id: UUID, user_id: UUID | None) -> str:
    """The key of a tenant's hash, or of a user's."""
    return tenant_key(tenant_id) if user_id is None else user_key(tenant_id, user_id)


def judged(query: QuotaQuery, terms: QuotaTerms, user: ModelHash, tenant: ModelHash, at_ms: int) -> Verdict:
    """The verdict of the small model."""
    entitlement = terms.entitlement
    bounds = entitlement.limits, entitlement.user_concurrency, entitlement.tenant_concurrency
    return QuotaModel(*bounds, tenant, {0: user}).admit(0, query, terms, at_ms)


def latest_spent(
    query: QuotaQuery,
    terms: QuotaTerms,
    user: ModelHash,
    tenant: ModelHash,
    at_ms: int,
    ends: dict[WindowKind, int],
) -> EffectiveLimit | None:
    """Of the limits that are used up, the one whose window turns last."""

    def is_spent(limit: EffectiveLimit) -> bool:
        return QuotaModel((limit,), None, None, tenant, {0: user}).admit(0, query, terms, at_ms).cause == "used"

    return max(filter(is_spent, terms.entitlement.limits), key=lambda limit: ends[limit.window], default=None)


def room(limits: Iterable[EffectiveLimit], names: Names, user: ModelHash, tenant: ModelHash) -> tuple[int, ...]:
    """What is left of each limit."""
    left = []
    for limit in limits:
        of = user if limit.scope is LimitScope.USER else tenant
        left.append(limit.bound - sum(measure(limit, of.window(names[limit.window]))))
    return tuple(left)
