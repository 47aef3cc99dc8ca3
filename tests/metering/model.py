"""A small and slow model of the quota, to compare admit.lua, settle.lua and decision.py with.

It finds a grant by trying every size, so it does not repeat the arithmetic of the scripts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from uuid import UUID

from core.ids import uuid7
from core.tenancy.principal import Principal
from metering.pricing.price import Band, Price, PriceBook
from metering.quota.counters import WindowState
from metering.quota.decision import count
from metering.quota.limits import BillMeter, EffectiveLimit, LimitScope, Meter
from metering.quota.query import LARGE_OUTPUT, QuotaQuery, QuotaTerms
from metering.quota.schedule import Timeline
from metering.quota.windows import WindowKind, minute_window

Names = dict[WindowKind, str]
Amounts = tuple[int, int, int, int]
"""What a hold is of: prompt, output, web searches, nano-USD."""
_BOOK = PriceBook([Price(uuid7(), "any", 0, (Band(0, *[0] * 5),))])
"""Names the price of a grant; the rates of a test are in its terms."""


@dataclass(frozen=True)
class Verdict:
    """The expected decision; a refusal has `granted` -1 and a cause."""

    granted: int
    cause: str = ""
    limit: int | None = None
    of_user: bool = False
    worth_counting: bool = False


@dataclass
class ModelHash:
    """A user's hash, or its tenant's."""

    windows: dict[str, WindowState] = field(default_factory=dict)
    holds: dict[str, tuple[Names, Amounts]] = field(default_factory=dict)

    def window(self, name: str) -> WindowState:
        """The named window; an unused one is empty."""
        return self.windows.get(name, WindowState())

    def hold(self, request: str, names: Names, amounts: Amounts) -> None:
        """Takes a hold, and drops the windows that are over."""
        self.holds[request] = (names, amounts)
        self.windows = {
            name: WindowState(self.window(name).used, _plus(self.window(name).held, (1, *amounts)))
            for name in names.values()
        }

    def settle(self, request: str, counts: tuple[int, ...]) -> None:
        """Replaces the hold by the used counts, in windows that still exist."""
        if request not in self.holds:
            return
        names, amounts = self.holds.pop(request)
        for name in set(names.values()) & self.windows.keys():
            state = self.windows[name]
            released = tuple(-amount for amount in (1, *amounts))
            self.windows[name] = WindowState(_plus(state.used, counts), _plus(state.held, released))


@dataclass
class QuotaModel:
    """One tenant with its users and limits."""

    limits: tuple[EffectiveLimit, ...]
    user_concurrency: int | None
    tenant_concurrency: int | None
    tenant: ModelHash
    users: dict[int, ModelHash]

    def admit(self, user: int, query: QuotaQuery, terms: QuotaTerms, now_ms: int) -> Verdict:
        """The verdict at a moment; takes no hold."""
        for most, running, of_user in (
            (self.user_concurrency, self.users[user].holds, True),
            (self.tenant_concurrency, self.tenant.holds, False),
        ):
            if most is not None and len(running) + 1 > most:
                return Verdict(-1, "never" if most == 0 else "held", None, of_user)
        sized = self._decide(user, query, terms, now_ms, query.prompt_bound)
        if sized.cause and query.prompt_likely < query.prompt_bound:
            likely = self._decide(user, query, terms, now_ms, query.prompt_likely)
            return Verdict(-1, sized.cause, sized.limit, worth_counting=not likely.cause)
        return sized

    def _decide(self, user: int, query: QuotaQuery, terms: QuotaTerms, now_ms: int, prompt: int) -> Verdict:
        smallest = min(query.max_tokens, query.smallest_output)
        names = names_at(terms, now_ms)
        empty: list[int] = []
        idle: list[int] = []
        now: list[int] = []
        for limit in self.limits:
            of = self.users[user] if limit.scope is LimitScope.USER else self.tenant
            window = of.window(names[limit.window])
            for sizes, before in ((empty, WindowState()), (idle, WindowState(window.used)), (now, window)):
                sizes.append(_largest(2 * query.max_tokens, self._fits(limit, query, terms, before, prompt)))
        for index, size in enumerate(empty):
            if size < smallest:
                return Verdict(-1, "never", index)
        spent = [index for index, size in enumerate(idle) if size < smallest]
        if spent:
            kinds = list(WindowKind)
            return Verdict(-1, "used", max(spent, key=lambda i: (kinds.index(self.limits[i].window), -i)))
        could, free = min((query.max_tokens, *idle)), min((2 * query.max_tokens, *now))
        if query.max_tokens <= query.large_output:
            if free < max(smallest, could // 2):
                return Verdict(-1, "held", now.index(free))
            return Verdict(min(query.max_tokens, free))
        if free < max(smallest, min(could // 2, query.large_output)):
            return Verdict(-1, "held", now.index(free))
        half = max(free // 2, query.large_output, smallest)  # but never less than a usual answer, if that is free
        return Verdict(min(query.max_tokens, half, free))

    @staticmethod
    def _fits(
        limit: EffectiveLimit, query: QuotaQuery, terms: QuotaTerms, window: WindowState, prompt: int
    ) -> Callable[[int], bool]:
        searches, further = query.web_searches, query.further_output
        before = 0 if isinstance(limit.meter, BillMeter) else sum(count(limit.meter, window))

        def fits(output: int) -> bool:
            output += further
            if isinstance(limit.meter, BillMeter):
                return dearest(limit, window, prompt, output, searches) <= limit.bound
            if limit.meter is Meter.REQUESTS:
                added = 1
            elif limit.meter is Meter.OUTPUT:
                added = output
            elif limit.meter is Meter.SPEND:
                added = terms.nano_usd(prompt, output, searches)
            elif limit.meter is Meter.TOKENS:
                added = prompt + output
            elif limit.meter is Meter.WEB_SEARCHES:
                return searches == 0 or before + searches <= limit.bound
            else:
                added = prompt
            return before + added <= limit.bound

        return fits


def query_of(  # noqa: PLR0913 - all that a query says of its size
    tenant_id: UUID,
    user_id: UUID,
    *,
    prompt: int,
    likely: int,
    asked: int,
    smallest: int,
    read_epoch: int,
    ttl_ms: int,
    searches: int = 0,
    large: int = LARGE_OUTPUT,
    further: int = 0,
) -> QuotaQuery:
    """A query whose terms the test makes itself."""
    principal = Principal(tenant_id, user_id, user_id, frozenset())
    timeline = Timeline((), (), read_epoch)
    sizes = (asked, prompt, likely, smallest, ttl_ms)
    return QuotaQuery(
        principal,
        "any",
        *sizes,
        timeline,
        _BOOK,
        web_searches=searches,
        large_output=large,
        further_output=further,
    )


def names_at(terms: QuotaTerms, now_ms: int) -> Names:
    """The windows of a moment."""
    return {
        WindowKind.MINUTE: f"m:{minute_window(now_ms).name}",
        WindowKind.DAY: f"d:{terms.day.name}",
        WindowKind.PERIOD: f"p:{terms.period.name}",
    }


def dearest(limit: EffectiveLimit, window: WindowState, prompt: int = 0, output: int = 0, searches: int = 0) -> int:
    """The most that a window, its holds and one more request can cost, whatever class a prompt is counted as."""
    _, given, written, read, short, long, _, searched, _ = window.used
    _, held_prompt, held_output, held_searches, _ = window.held
    pending = prompt + held_prompt
    rest = (written + held_output + output, searched + held_searches + searches)
    ends = [
        (given + pending, read, short + long),
        (given, read + pending, short + long),
        (given, read, short + long + pending),
    ]
    return max(
        sum(
            max(units - allowance, 0) * rate
            for units, (allowance, rate) in zip((*end, *rest), limit.prices, strict=True)
        )
        for end in ends
    )


def left(limit: EffectiveLimit, window: WindowState) -> int:
    """The rest of a limit."""
    if isinstance(limit.meter, BillMeter):
        return limit.bound - dearest(limit, window)
    return limit.bound - sum(count(limit.meter, window))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    return max((size for size in range(most + 1) if fits(size)), default=-1)


def _plus(one: Iterable[int], other: Iterable[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
