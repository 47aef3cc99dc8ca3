"""The question that a request asks of the quota, and the answers to it: the same for Redis and for Postgres. Pure.

The time of the grant fixes the windows, the entitlement and the price. The store decides that time, so a query holds
everything else, and `QuotaQuery.terms` adds what depends on a moment. Redis's script refuses terms of another moment.
"""

from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from uuid import UUID

from core.errors import PaymentRequired
from core.tenancy.principal import Forbidden, Principal
from metering.journal.records import OpenRequest
from metering.pricing.price import STANDARD, Modifiers, Price, PriceBook
from metering.quota.budgets import Budget, BudgetState, BudgetWindow
from metering.quota.limits import Entitlement
from metering.quota.schedule import Timeline
from metering.quota.windows import Calendar, Window, WindowKind, minute_window
from metering.tags.tags import NO_TAGS, RequestTags

_LIFE_MS = 3_600_000
"""The life of a token's budget from now on, if the token does not say."""
LARGE_OUTPUT = 16_384
"""A request for more output tokens than this takes only a part of the room that is left: docs/decisions/0014."""


@dataclass(frozen=True, slots=True)
class QuotaTerms:
    """Everything that a moment fixes; valid for `from_ms <= t < until_ms`.

    Rates are nano-USD: the dearest per token, and per web search. `period`: the counters' window; `segment`: its
    part that usage is metered in. `resumes`: the period was interrupted by another one, so it does not start at zero.
    """

    entitlement: Entitlement
    day: Window
    period: Window
    segment: str
    from_ms: int
    until_ms: int
    prompt_rate: int
    output_rate: int
    resumes: bool = False
    search_rate: int = 0

    def nano_usd(self, prompt_tokens: int, output_tokens: int, web_searches: int = 0) -> int:
        """The most that these tokens and searches can cost."""
        return prompt_tokens * self.prompt_rate + output_tokens * self.output_rate + web_searches * self.search_rate

    def window_ends_ms(self, at_ms: int) -> dict[WindowKind, int]:
        """The end of each window that covers `at_ms`."""
        return {
            WindowKind.MINUTE: minute_window(at_ms).ends_ms,
            WindowKind.DAY: self.day.ends_ms,
            WindowKind.PERIOD: self.period.ends_ms,
        }


@dataclass(frozen=True, slots=True)
class QuotaQuery:
    """A request for at most `max_tokens` of output on a prompt of at most `prompt_bound` tokens.

    `prompt_likely`: the probable size of the prompt. `smallest_output`: the fewest output tokens worth a grant.
    `features`: those that the plan has to allow. `further_models`: those that may answer beside `model`;
    `may_choose_model`: the provider may choose others. `further_output`: what they may write beside the grant.
    `budgets`: those of its tags and of its token. `ttl_ms`: how long the request may run. `redis_unreachable`: this
    process cannot reach Redis, so Postgres takes the tenant over.
    """

    principal: Principal
    model: str
    max_tokens: int
    prompt_bound: int
    prompt_likely: int
    smallest_output: int
    ttl_ms: int
    timeline: Timeline
    book: PriceBook
    redis_unreachable: bool = False
    web_searches: int = 0
    modifiers: Modifiers = STANDARD
    features: frozenset[str] = frozenset()
    large_output: int = LARGE_OUTPUT
    further_models: tuple[str, ...] = ()
    may_choose_model: bool = False
    further_output: int = 0
    tags: RequestTags = NO_TAGS
    budgets: tuple[Budget, ...] = ()

    def terms(self, at_ms: int, calendar: Calendar) -> QuotaTerms:
        """The terms of a moment.

        Raises PaymentRequired when the schedule grants nothing then, Forbidden for a model or a feature that the plan
        does not have then, UnknownModel when the model had no price, UnknownModifier when the price has no factor.
        """
        now = self.timeline.in_force(at_ms, calendar)
        refusal, entitlement = now.stretch.refusal, now.stretch.entitlement
        if refusal is not None:
            raise PaymentRequired(refusal.detail, code=refusal.code)
        entitlement.require(self.model, self.features)
        prompt_rate, output_rate, search_rate = self._dearest_rates(entitlement, at_ms)
        return QuotaTerms(
            entitlement=entitlement,
            day=now.day,
            period=now.period,
            segment=now.segment,
            from_ms=now.from_ms,
            until_ms=now.until_ms,
            prompt_rate=prompt_rate,
            output_rate=output_rate,
            resumes=now.resumes,
            search_rate=search_rate,
        )

    def _dearest_rates(self, entitlement: Entitlement, at_ms: int) -> tuple[int, int, int]:
        """The highest rates of all models that may be charged: prompt, output, search. Raises as `terms` does."""
        for model in self.further_models:
            entitlement.require(model, ())
        prices = [self.book.at(model, at_ms) for model in (self.model, *self.further_models)]
        rates = [(*price.dearest(self.prompt_bound, self.modifiers), price.web_search_rate) for price in prices]
        if self.may_choose_model:
            if entitlement.models is not None:
                message = "This plan includes some models only, so name them: the provider may choose any."
                raise Forbidden(message, code="model_not_in_plan")
            rates += [
                (*price.dearest_known(self.prompt_bound, self.modifiers), price.web_search_rate)
                for price in self.book.in_force(at_ms)
                if self.principal.allows_model(price.model)
            ]
        prompts, outputs, searches = zip(*rates, strict=True)
        return max(prompts), max(outputs), max(searches)

    def budget_windows(self, terms: QuotaTerms, at_ms: int) -> tuple[BudgetWindow, ...]:
        """The windows of its budgets at a moment that the terms cover."""
        if not self.budgets:
            return ()
        ends = terms.window_ends_ms(at_ms)
        names = {
            WindowKind.MINUTE: minute_window(at_ms).name,
            WindowKind.DAY: terms.day.name,
            WindowKind.PERIOD: terms.period.name,
        }
        life_ends_ms = self.principal.expires_at_ms or at_ms + _LIFE_MS
        return tuple(
            BudgetWindow(budget, "", life_ends_ms)
            if budget.window is None
            else BudgetWindow(budget, names[budget.window], ends[budget.window])
            for budget in self.budgets
        )

    def grant(
        self,
        terms: QuotaTerms,
        *,
        id: UUID,  # noqa: A002 - the request's
        epoch: int,
        now_ms: int,
        output_tokens: int,
        room: tuple[int, ...],
        holds_expired: bool = False,
    ) -> "Grant":
        """The grant of a store whose clock says `now_ms`, of so many tokens for the answer. Raises UnknownModel."""
        price, ends = self.book.at(self.model, now_ms), terms.window_ends_ms(now_ms)
        held_output = output_tokens + self.further_output
        request = OpenRequest(
            tenant_id=self.principal.tenant_id,
            id=id,
            user_id=self.principal.user_id,
            key_id=self.principal.key_id,
            epoch=epoch,
            price_id=price.id,
            plan_version=terms.entitlement.plan_version,
            period_id=terms.segment,
            day=date.fromisoformat(terms.day.name),
            opened_ms=now_ms,
            deadline_ms=now_ms + self.ttl_ms,
            model=self.model,
            held_prompt_tokens=self.prompt_bound,
            held_output_tokens=held_output,
            held_nano_usd=terms.nano_usd(self.prompt_bound, held_output, self.web_searches),
            held_web_searches=self.web_searches,
            tags=self.tags.as_json,
            tag_keys=self.tags.joined_keys,
        )
        window_ends_ms = tuple(ends[limit.window] for limit in terms.entitlement.limits)
        return Grant(
            request,
            price,
            terms.entitlement,
            room,
            window_ends_ms,
            holds_expired,
            self.modifiers,
            self.further_output,
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """An admitted request: the row that the journal opens, and what the request was granted under.

    `room`: what is left of each limit of the entitlement after this hold, in its counting unit. `holds_expired`: some
    hold may be past its deadline. `modifiers`: of the price, as the request asks for them. `further_output`: what of
    the held output is for other models. `budgets`: each with this hold.
    """

    request: OpenRequest
    price: Price
    entitlement: Entitlement
    room: tuple[int, ...]
    window_ends_ms: tuple[int, ...]
    holds_expired: bool = False
    modifiers: Modifiers = STANDARD
    further_output: int = 0
    budgets: tuple[BudgetState, ...] = ()

    @property
    def output_tokens(self) -> int:
        """The most output of the answer itself."""
        return self.request.held_output_tokens - self.further_output


@dataclass(frozen=True, slots=True)
class Refused:
    """`cause`: `used`, `held` (by requests that still run), or `never` (an empty window would not fit it).

    `limit` is the index of the limit, or None for a concurrency (`of_user` says whose) and for a `budget`.
    `worth_counting`: the probable size of the prompt would fit. `used`: without holds, in the limit's counting unit;
    running requests for a concurrency. `epoch`: of the counters in Redis; None for Postgres's own.
    """

    now_ms: int
    cause: str
    limit: int | None
    of_user: bool
    ends_ms: int
    worth_counting: bool
    holds_expired: bool
    used: int
    epoch: int | None = field(default=None, compare=False)
    budget: Budget | None = None


class Mend(Enum):
    """The repair that a query needs before it is asked again."""

    USER = "user"  # Redis has no counters of the user in epoch `min_epoch`
    TENANT = "tenant"  # Redis's counters of the tenant, of the epoch before `min_epoch`, are not complete
    BOUNCE = "bounce"  # Postgres no longer accepts the epoch before `min_epoch`, in which Redis answered
    ENTITLEMENT = "entitlement"  # Redis's counters are of `min_epoch`: the entitlement was read before it


@dataclass(frozen=True, slots=True)
class Retry:
    """Undecided: ask again, with an entitlement read in `min_epoch` or later.

    `now_ms`: the clock of Redis, where the terms were of another moment. `fallback_s`: Postgres admits the tenant for
    this long at least.
    """

    min_epoch: int = 0
    mend: Mend | None = None
    now_ms: int | None = None
    fallback_s: float | None = None


Answer = Grant | Refused | Retry
