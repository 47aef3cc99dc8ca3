"""Admission of one request: one call to Redis and one row in Postgres, before the provider is called.

A store may be unable to decide: counters in Redis are not complete, its clock is in another window, the entitlement was
read too early, Postgres refuses the row because the epoch moved. Each is mended here and asked again, a bounded number
of times. Redis unreachable, slow, or not the one that other processes use: a request waits for it a moment, then
Postgres decides by the same limits. Postgres unreachable: `Unavailable`, nothing is admitted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Protocol
from uuid import UUID

from core.errors import NakaError, PaymentRequired, Unavailable
from core.logs import get_logger
from core.money import ceil_div
from core.resilience.deadline import within
from core.tenancy.principal import Forbidden, Principal
from metering.admission.breaker import Breaker
from metering.admission.entitlements import Entitlements
from metering.admission.postgres_grants import PostgresGrants
from metering.admission.rebuild import Rebuilder
from metering.admission.redis_grants import RedisGrants
from metering.admission.redis_pipeline import RedisUnavailable
from metering.budgets.tag_limits import TagLimitCache
from metering.pricing.price import STANDARD, Modifiers
from metering.pricing.price_list import PriceList
from metering.pricing.tokens import bound_of_count
from metering.quota.budgets import Budget
from metering.quota.limits import EffectiveLimit, Entitlement
from metering.quota.query import Answer, Grant, Mend, QuotaQuery, Refused, Retry
from metering.quota.refusal_words import budget_words, wallet_words, words_of
from metering.tags.resolution import TagResolver
from metering.tags.tags import NO_TAGS, RequestTags, Tags

_TRIES = 12
_AGAIN_S = 0.05
_DEADLINE_S = 5.0
_BOUNCES = 2
"""After this many bounces another process uses another Redis: Postgres decides between the two."""
_READS = 3
"""After this many entitlements older than Redis's counters, Postgres has lost epochs that Redis has: rebuild."""
_BLOCKED_S = 3600
"""`Retry-After` of a request that is blocked."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """The caller's request: a model and at most `max_tokens` of output (0: none) for a prompt.

    The prompt has at most `prompt_bound` tokens, and probably `prompt_likely`, over all inferences. `count` asks the
    provider for the exact size of one inference, in tokens; it costs a round trip and no money; `of_count`: the tokens
    of all inferences then.
    `smallest_output`: the fewest output tokens worth a grant, None for the setting's. `web_searches`: the most that it
    can make. `features`: those that the plan has to allow. `further_models`: those that may be charged beside `model`;
    key and plan have to allow each (the caller checks the key). `may_choose_model`: the provider may choose others.
    `further_output`: the most output tokens beside `max_tokens`, of other models and of earlier attempts. The hold has
    the dearest rates of all of them. `tags`: checked, with those of the principal (`metering.tags.tags.merged`).
    """

    model: str
    max_tokens: int
    prompt_bound: int
    prompt_likely: int
    count: Callable[[], Awaitable[int]] | None = None
    smallest_output: int | None = None
    web_searches: int = 0
    modifiers: Modifiers = STANDARD
    features: frozenset[str] = frozenset()
    further_models: tuple[str, ...] = ()
    may_choose_model: bool = False
    further_output: int = 0
    of_count: Callable[[int], int] = int
    tags: Tags = ()


class QuotaExceeded(NakaError):
    """A limit does not allow the request now.

    `retry_after_s`: a moment if running requests hold the rest, else until the window ends. `limit` is None for a
    concurrency; `used` is in its unit, without what running requests hold.
    """

    def __init__(
        self, message: str, *, code: str, retry_after_s: int, limit: EffectiveLimit | Budget | None, used: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.used = used


class TooLarge(NakaError):
    """The request would not fit an empty window: waiting does not help."""


class GrantStore(Protocol):
    """A store that can admit: Redis or Postgres, never both for a tenant at a time."""

    async def admit(self, query: QuotaQuery) -> Answer:
        """One try. Raises PaymentRequired, Forbidden, UnknownModel, Unauthenticated, Unavailable."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Settings: the smallest grant (tokens), how long a request may run, exact counts per tenant and minute."""

    smallest_grant: int
    ttl_ms: int
    counts_per_minute: int


@dataclass(slots=True)
class _Attempt:
    """The state of one `admit` across its tries.

    `patience_until_s`: until then a failing Redis is asked again. `ends_s`: the deadline for both stores (the time of
    the provider's count is added). `min_epoch`: an entitlement read before it is too old. `reads`: how often that was
    found.
    """

    patience_until_s: float
    ends_s: float
    bounces: int = 0
    redis_unreachable: bool = False
    min_epoch: int = 0
    reads: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """Grants or refuses. One per process. `breaker` watches the Redis of `redis_grants`."""

    redis_grants: RedisGrants
    postgres_grants: PostgresGrants
    rebuilder: Rebuilder
    breaker: Breaker
    entitlements: Entitlements
    prices: PriceList
    tags: TagResolver
    tag_limits: TagLimitCache
    rules: AdmissionRules
    counted: dict[UUID, list[float]] = field(default_factory=dict, init=False)
    """The times of the last exact counts, by tenant."""

    async def admit(self, principal: Principal, request: AdmissionRequest, *, within_s: float = _DEADLINE_S) -> Grant:
        """Takes the hold, opens the row, grants. A granted request is in flight (`InFlight`) until it is settled.

        Waits for the stores at most `within_s` in all tries together.

        Raises Forbidden for a model or feature that the key or the plan does not allow, UnknownModel, PaymentRequired,
        QuotaExceeded, TooLarge, Unauthenticated when the key was revoked or expired meanwhile, Unavailable.
        """
        principal.require_model(request.model)
        began_s = time.monotonic()
        attempt = _Attempt(began_s + self.breaker.rules.dwell_s, began_s + within_s)
        for _ in range(_TRIES):
            async with within(attempt.ends_s - time.monotonic()):
                query = await self._query(principal, request, min_epoch=attempt.min_epoch)
                answer = await self._ask(query, attempt)
            if isinstance(answer, Grant):
                return answer
            if isinstance(answer, Refused):
                asked_s = time.monotonic()
                counted = await self._count(principal, request) if answer.worth_counting else None
                attempt.ends_s += time.monotonic() - asked_s
                if counted is None:
                    raise _refusal(answer, query.timeline.at(answer.now_ms).entitlement)
                exact = min(request.prompt_bound, bound_of_count(request.of_count(counted)))
                request = replace(request, prompt_bound=exact, prompt_likely=exact)
        raise Unavailable("could not read stable counters; retry")

    async def _query(self, principal: Principal, request: AdmissionRequest, *, min_epoch: int = 0) -> QuotaQuery:
        smallest = request.smallest_output
        tags = await self._tags(principal, request)
        return QuotaQuery(
            principal=principal,
            model=request.model,
            max_tokens=request.max_tokens,
            prompt_bound=request.prompt_bound,
            prompt_likely=min(request.prompt_likely, request.prompt_bound),
            smallest_output=self.rules.smallest_grant if smallest is None else smallest,
            ttl_ms=self.rules.ttl_ms,
            timeline=await self.entitlements.of(principal.tenant_id, principal.user_id, least_epoch=min_epoch),
            book=await self.prices.book(),
            web_searches=request.web_searches,
            modifiers=request.modifiers,
            features=request.features,
            further_models=request.further_models,
            may_choose_model=request.may_choose_model,
            further_output=request.further_output,
            tags=tags,
            budgets=await self.tag_limits.budgets(principal, tags.added_up),
        )

    async def _tags(self, principal: Principal, request: AdmissionRequest) -> RequestTags:
        if not request.tags and not principal.token_id:
            return NO_TAGS
        today = date.fromisoformat(self.redis_grants.today.name)
        return await self.tags.resolve(principal, request.tags, today)

    async def _ask(self, query: QuotaQuery, attempt: _Attempt) -> Answer:
        """The answer of the store that admits this tenant, as far as this process knows; a Retry is mended.

        A failure of Redis may be short, so Redis is asked again for a moment; then Postgres takes the tenant over.
        """
        store: GrantStore = self.redis_grants
        while True:
            unreachable = attempt.redis_unreachable or self.breaker.is_open
            if unreachable or self.postgres_grants.serves(query.principal.tenant_id):
                store, query = self.postgres_grants, replace(query, redis_unreachable=unreachable)
            try:
                answer = await self._current_answer(store, query)
                if isinstance(answer, Retry):
                    await self._mend(query, answer, attempt)
            except RedisUnavailable:
                attempt.redis_unreachable = time.monotonic() >= attempt.patience_until_s
                if not attempt.redis_unreachable and not self.breaker.is_open:
                    await asyncio.sleep(_AGAIN_S)
            else:
                return answer

    async def _current_answer(self, store: GrantStore, query: QuotaQuery) -> Answer:
        """The store's answer. A refusal opens no row that could bounce, so the epoch behind it is checked here."""
        tenant_id, read_epoch = query.principal.tenant_id, query.timeline.read_epoch
        try:
            answer = await store.admit(query)
        except (PaymentRequired, Forbidden):
            if await self.rebuilder.has_moved(tenant_id, read_epoch):
                return Retry(read_epoch + 1)
            raise
        epoch = answer.epoch if isinstance(answer, Refused) else None
        if epoch is not None and await self.rebuilder.has_moved(tenant_id, epoch):
            return Retry(epoch + 1, Mend.BOUNCE)
        return answer

    async def _mend(self, query: QuotaQuery, retry: Retry, attempt: _Attempt) -> None:
        """Mends what kept the store from deciding. Raises RedisUnavailable, Unavailable."""
        is_stale = retry.mend in {Mend.USER, Mend.TENANT}
        if retry.mend is Mend.BOUNCE:
            attempt.bounces += 1
            attempt.redis_unreachable = attempt.bounces >= _BOUNCES
            is_stale = not attempt.redis_unreachable
        elif retry.mend is Mend.ENTITLEMENT:
            attempt.reads += 1
            if attempt.reads >= _READS:
                is_stale, retry = True, Retry(retry.min_epoch + 1, Mend.TENANT)
        attempt.min_epoch = max(attempt.min_epoch, retry.min_epoch)
        tenant_id, fallback_s = query.principal.tenant_id, retry.fallback_s
        if is_stale:
            in_fallback = await self.rebuilder.mend(tenant_id, query.principal.user_id, retry, timeline=query.timeline)
            fallback_s = None if in_fallback is None else in_fallback.remaining_s
        if fallback_s is not None:
            self.postgres_grants.note_fallback(tenant_id, fallback_s)

    async def _count(self, principal: Principal, request: AdmissionRequest) -> int | None:
        """The exact size of the prompt; None when the tenant has used its share of such calls, or the call fails."""
        if request.count is None:
            return None
        now = time.monotonic()
        recent = [at for at in self.counted.get(principal.tenant_id, []) if at > now - 60]
        if len(recent) >= self.rules.counts_per_minute:
            return None
        self.counted[principal.tenant_id] = [*recent, now]
        try:
            return await request.count()
        except NakaError as error:
            log.warning("count_failed", error=str(error))
            return None


def _refusal(refused: Refused, entitlement: Entitlement) -> NakaError:
    """The error of a refusal: which limit, and when to come back."""
    if refused.budget is not None:
        return _budget_refusal(refused, refused.budget)
    limit = None if refused.limit is None else entitlement.limits[refused.limit]
    if limit is not None and limit.is_wallet and refused.cause != "held":
        return PaymentRequired(wallet_words(refused, limit), code="wallet_empty")
    message, wait_s = words_of(refused, limit), max(1, ceil_div(refused.ends_ms - refused.now_ms, 1000))
    if refused.cause == "never":
        if limit is not None:
            return TooLarge(message)
        return QuotaExceeded(message, code="blocked", retry_after_s=_BLOCKED_S, limit=None)
    code = {"held": "too_many_at_once" if limit is None else "held"}.get(refused.cause, "limit_reached")
    used = 0 if limit is None else limit.in_unit(refused.used)
    return QuotaExceeded(message, code=code, retry_after_s=wait_s, limit=limit, used=used)


def _budget_refusal(refused: Refused, budget: Budget) -> NakaError:
    """The error of a refusal by a budget of a tag or a token."""
    message = budget_words(refused, budget)
    if refused.cause == "never":
        return TooLarge(message)
    return QuotaExceeded(
        message,
        code="held" if refused.cause == "held" else "budget_exhausted",
        retry_after_s=max(1, ceil_div(refused.ends_ms - refused.now_ms, 1000)),
        limit=budget,
        used=budget.in_unit(refused.used),
    )
