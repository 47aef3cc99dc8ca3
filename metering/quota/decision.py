"""The decision of admit.lua in Python, for grants by Postgres: same limits, same reasons, same numbers. Pure.

Each limit is measured without the holds of running requests and with them: docs/decisions/0003 says why, and 0014 why
a large request takes half of the room. A property test holds this module and the script against one small model, and
against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from metering.quota.budgets import Budget, BudgetState
from metering.quota.counters import ScopeCounters, WindowState
from metering.quota.limits import WINDOWS, BillMeter, EffectiveLimit, Entitlement, LimitScope, Meter
from metering.quota.query import QuotaQuery, QuotaTerms, Refused
from metering.quota.spending import Pending, charge, output_that_fits

_MOMENT_MS = 1000
"""The wait of a client if running requests hold the rest."""


def decide(
    query: QuotaQuery, terms: QuotaTerms, user: ScopeCounters, tenant: ScopeCounters, now_ms: int
) -> int | Refused:
    """The output tokens to grant, or the refusal. The counters cover `now_ms`, in the order of WINDOWS."""
    entitlement = terms.entitlement
    concurrency = (True, entitlement.user_concurrency, user), (False, entitlement.tenant_concurrency, tenant)
    for of_user, most, counters in concurrency:
        if most is not None and counters.active + 1 > most:
            cause = "never" if most == 0 else "held"
            return _refused(now_ms, _No(cause, None, now_ms + _MOMENT_MS), counters.active, of_user=of_user)
    windows = {LimitScope.USER: user.windows, LimitScope.TENANT: tenant.windows}
    ends = terms.window_ends_ms(now_ms)
    checked = [
        _Checked(limit, windows[limit.scope][WINDOWS.index(limit.window)], ends[limit.window])
        for limit in entitlement.limits
    ]
    return _decide(query, terms, checked, now_ms)


def fit_budgets(query: QuotaQuery, terms: QuotaTerms, budgets: Sequence[BudgetState], now_ms: int) -> int | Refused:
    """The output tokens that fit the budgets of the query, at most those that it asks for, or the refusal."""
    checked = [_Checked(one.budget, one.state, one.window.ends_ms) for one in budgets]
    answer = _decide(query, terms, checked, now_ms)
    if isinstance(answer, Refused) and answer.limit is not None:
        return replace(answer, limit=None, budget=budgets[answer.limit].budget)
    return answer


def fits_budget(one: BudgetState, amounts: Sequence[int]) -> bool:
    """Whether a hold of these amounts (`counters.HELD`) fits the rest of a budget. What takes nothing always does."""
    used, held = count(one.budget.meter, one.state)
    _, asked = count(one.budget.meter, WindowState(held=tuple(amounts)))
    return asked == 0 or used + held + asked <= one.budget.bound


def room(entitlement: Entitlement, user: ScopeCounters, tenant: ScopeCounters) -> tuple[int, ...]:
    """The rest of each limit, in its counting unit."""
    rooms = []
    for limit in entitlement.limits:
        counters = user if limit.scope is LimitScope.USER else tenant
        used, held = measure(limit, counters.windows[WINDOWS.index(limit.window)])
        rooms.append(limit.bound - used - held)
    return tuple(rooms)


def measure(limit: EffectiveLimit | Budget, window: WindowState) -> tuple[int, int]:
    """(used, held) of a limit's meter in its window. A charge holds the most that the running requests can cost."""
    if not isinstance(limit.meter, BillMeter):
        return count(limit.meter, window)
    used = charge(limit.prices, window)
    return used, charge(limit.prices, window, Pending.held_in(window)) - used


def count(meter: Meter, window: WindowState) -> tuple[int, int]:
    """(used, held) of a meter in a window, as admit.lua counts them; nano-USD for spend."""
    requests, output = window.used[0], window.used[2]
    prompt_classes = (window.used[1], *window.used[3:6])
    held_requests, held_prompt, held_output, held_searches, held_nano = window.held
    return {
        Meter.REQUESTS: (requests, held_requests),
        Meter.INPUT: (prompt_classes[0], held_prompt),
        Meter.OUTPUT: (output, held_output),
        Meter.CACHE_READ: (prompt_classes[1], held_prompt),
        Meter.CACHE_WRITE_5M: (prompt_classes[2], held_prompt),
        Meter.CACHE_WRITE_1H: (prompt_classes[3], held_prompt),
        Meter.SPEND: (window.used[8], held_nano),
        Meter.TOKENS: (sum(prompt_classes) + output, held_prompt + held_output),
        Meter.CACHE_WRITE: (prompt_classes[2] + prompt_classes[3], held_prompt),
        Meter.WEB_SEARCHES: (window.used[7], held_searches),
    }[meter]


def budget_room(one: BudgetState) -> int:
    """The rest of a budget, in its counting unit."""
    return one.budget.bound - sum(count(one.budget.meter, one.state))


@dataclass(frozen=True, slots=True)
class _Checked:
    """A limit, its window, and the end of the window."""

    limit: EffectiveLimit | Budget
    window: WindowState
    ends_ms: int


@dataclass(frozen=True, slots=True)
class _No:
    cause: str
    limit: int | None
    ends_ms: int


@dataclass(frozen=True, slots=True)
class _SizedQuery:
    """A query whose prompt is assumed to have `prompt` tokens."""

    query: QuotaQuery
    terms: QuotaTerms
    prompt: int

    @property
    def smallest(self) -> int:
        return min(self.query.max_tokens, self.query.smallest_output)

    @property
    def enough(self) -> int:
        """A room of which half is all that is asked: more of it changes nothing."""
        return 2 * self.query.max_tokens

    def fits(self, limit: EffectiveLimit | Budget, window: WindowState) -> tuple[int, int, int]:
        """The output tokens that fit an empty window, a window without its holds, and the window; -1: not even 0."""
        if isinstance(limit.meter, BillMeter):
            own = Pending(self.prompt, self.query.further_output, self.query.web_searches)
            return (
                self._fit_charge(limit, WindowState(), own),
                self._fit_charge(limit, window, own),
                self._fit_charge(limit, window, own + Pending.held_in(window)),
            )
        if limit.meter is Meter.WEB_SEARCHES and not self.query.web_searches:
            return (self.enough,) * 3  # it takes nothing of an overdrawn limit
        used, held = count(limit.meter, window)
        return (
            self._fit(limit.meter, limit.bound),
            self._fit(limit.meter, limit.bound - used),
            self._fit(limit.meter, limit.bound - used - held),
        )

    def _fit_charge(self, limit: EffectiveLimit, window: WindowState, pending: Pending) -> int:
        most = output_that_fits(limit.prices, limit.bound, window, pending)
        return self.enough if most is None else most

    def _fit(self, meter: Meter, room: int) -> int:
        """The output tokens that fit `room` of a meter beside the prompt and the output of other models."""
        searches, further = self.query.web_searches, self.query.further_output
        fixed, each = {
            Meter.REQUESTS: (1, 0),
            Meter.OUTPUT: (further, 1),
            Meter.SPEND: (self.terms.nano_usd(self.prompt, further, searches), self.terms.output_rate),
            Meter.WEB_SEARCHES: (searches, 0),
            Meter.TOKENS: (self.prompt + further, 1),
        }.get(meter, (self.prompt, 0))
        if room < fixed:
            return -1
        return (room - fixed) // each if each else self.enough


def _decide(query: QuotaQuery, terms: QuotaTerms, checked: Sequence[_Checked], now_ms: int) -> int | Refused:
    granted = _fit_all(_SizedQuery(query, terms, query.prompt_bound), checked, now_ms)
    if not isinstance(granted, _No):
        return granted
    likely = _SizedQuery(query, terms, query.prompt_likely)
    worth_counting = query.prompt_likely < query.prompt_bound and not isinstance(_fit_all(likely, checked, now_ms), _No)
    used = 0
    if granted.limit is not None:
        used, _ = measure(checked[granted.limit].limit, checked[granted.limit].window)
    return _refused(now_ms, granted, used, worth_counting=worth_counting)


def _fit_all(sized: _SizedQuery, checked: Sequence[_Checked], now_ms: int) -> int | _No:
    """The grant under all limits, or the limit that refuses it."""
    if_idle, at_once = sized.query.max_tokens, sized.enough
    spent, tightest = _No("used", None, 0), None
    for index, one in enumerate(checked):
        empty, idle, now = sized.fits(one.limit, one.window)
        if empty < sized.smallest:
            return _No("never", index, one.ends_ms)
        if idle < sized.smallest and one.ends_ms > spent.ends_ms:
            spent = _No("used", index, one.ends_ms)
        if_idle = min(if_idle, idle)
        if now < at_once:
            at_once, tightest = now, index
    if spent.limit is not None:
        return spent
    asked, large = sized.query.max_tokens, sized.query.large_output
    least, most = if_idle // 2, asked
    if asked > large:
        least, most = min(least, large), min(asked, max(at_once // 2, large, sized.smallest))
    if at_once < max(sized.smallest, least):
        return _No("held", tightest, now_ms + _MOMENT_MS)
    return min(at_once, most)


def _refused(now_ms: int, no: _No, used: int, *, of_user: bool = False, worth_counting: bool = False) -> Refused:
    return Refused(now_ms, no.cause, no.limit, of_user, no.ends_ms, worth_counting, holds_expired=False, used=used)
