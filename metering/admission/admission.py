"""May this request start? One question to Redis, one row in Postgres, and then the provider may hear of it.

The grant says how many output tokens the answer may have. Redis's shadow may turn out stale, its clock may be in
another window, the entitlement may have been read too early, Postgres may bounce the row because the epoch moved: each
is mended and asked again, a bounded number of times. Redis away, slow, or not the one that others see: a request waits
for it a moment, then Postgres judges instead (`metering.admission.postgres_grants`), by the same limits. Postgres
away: `Unavailable`, nothing admitted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from core.errors import NakaError, PaymentRequired, Unavailable
from core.logs import get_logger
from core.money import ceil_div
from core.resilience.deadline import within
from core.tenancy.principal import Forbidden, Principal, Unauthenticated
from metering.admission.entitlements import Entitlements
from metering.admission.postgres_grants import PostgresGrants, Undecided
from metering.admission.redis_grants import Bounced, Mended, RedisGrants
from metering.admission.redis_pipeline import RedisUnavailable
from metering.admission.redis_scripts import Outdated
from metering.journal.journal import InFallback
from metering.journal.records import OpenRequest
from metering.pricing.price import Price
from metering.pricing.price_list import PriceList
from metering.pricing.tokens import bound_of_count, bound_of_text, likely_of_text
from metering.quota.limits import EffectiveLimit, Entitlement, LimitScope
from metering.quota.query import AdmissionContext, Admitted, Refused

_TRIES = 12
_AGAIN_S = 0.05
_DEADLINE_S = 5.0
_BOUNCES = 2
"""After so many in a row another process sees another Redis: Postgres decides between the two."""
_READINGS = 3
"""After so many that are older than Redis's shadow, Postgres has lost the epochs that Redis has: it is built anew."""
PROMPT_OVERHEAD_TOKENS = 32
"""What the provider adds to a prompt of plain text, at most, beyond its bytes: roles and framing."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What a request wants: a model, at most `max_tokens` of output, for a prompt of `prompt_bytes` UTF-8 bytes.

    `count` asks the provider for the exact size of the prompt, in tokens; it costs a round trip and no money.
    """

    model: str
    max_tokens: int
    prompt_bytes: int
    count: Callable[[], Awaitable[int]] | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """An admitted request. `room` is what is left of each limit of the entitlement, in its counting unit."""

    request: OpenRequest
    price: Price
    entitlement: Entitlement
    room: tuple[int, ...]
    window_ends_ms: tuple[int, ...]


class QuotaExceeded(NakaError):
    """A limit does not allow it now.

    `retry_after_s`: a moment if running requests hold the rest, else until the window turns. `limit` is None for a
    concurrency.
    """

    def __init__(self, message: str, *, code: str, retry_after_s: int, limit: EffectiveLimit | None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        self.limit = limit


class TooLarge(NakaError):
    """It would not fit even if nothing had been used: waiting does not help."""


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """Settings: the smallest grant worth giving (tokens), how long a request may run, exact counts per tenant."""

    smallest_grant: int
    ttl_ms: int
    counts_per_minute: int


@dataclass(slots=True)
class _Visit:
    """One call of `admit`: how long it still waits for Redis, how often Postgres bounced what Redis granted.

    `ends_s`: when its time with the stores is up (the provider's time is not counted). `least_epoch`: an entitlement
    that was read before it is too old; `outdated`: how often that was found so.
    """

    patience_until_s: float
    ends_s: float
    bounces: int = 0
    blind: bool = False
    least_epoch: int = 0
    outdated: int = 0


class Admission:
    """Grants or refuses. One per process."""

    def __init__(
        self,
        grants: RedisGrants,
        fallback: PostgresGrants,
        *,
        entitlements: Entitlements,
        prices: PriceList,
        rules: AdmissionRules,
    ) -> None:
        self._grants = grants
        self._fallback = fallback
        self._entitlements = entitlements
        self._prices = prices
        self._rules = rules
        self._counted: dict[UUID, list[float]] = {}

    async def admit(self, principal: Principal, ask: AdmissionRequest, *, within_s: float = _DEADLINE_S) -> Grant:
        """Holds, opens, grants. What is granted runs (`Running`) until it is settled.

        Waits for the stores `within_s` at most, whatever was cached and however often it asks again.

        Raises Forbidden or UnknownModel for the model, PaymentRequired, QuotaExceeded, TooLarge, Unauthenticated when
        the key ended meanwhile, Unavailable.
        """
        if principal.models is not None and ask.model not in principal.models:
            raise Forbidden(f"this key may not use the model {ask.model!r}")
        bound = bound_of_text(ask.prompt_bytes, PROMPT_OVERHEAD_TOKENS)
        likely = likely_of_text(ask.prompt_bytes, PROMPT_OVERHEAD_TOKENS)
        began_s = time.monotonic()
        visit = _Visit(began_s + self._grants.breaker.rules.dwell_s, began_s + within_s)
        for _ in range(_TRIES):
            async with within(visit.ends_s - time.monotonic()):
                wish = await self._wish(principal, ask, bound, likely, least_epoch=visit.least_epoch)
                try:
                    answer = await self._try(wish, visit)
                except PaymentRequired:
                    if not await self._outdated(wish, visit):
                        raise
                    continue
            if isinstance(answer, Admitted):
                price = wish.price(answer.held.now_ms)
                return Grant(answer.request, price, answer.entitlement, answer.held.room, answer.window_ends_ms())
            if isinstance(answer, Refused):
                asked_s = time.monotonic()
                counted = await self._count(principal, ask) if answer.worth_counting else None
                visit.ends_s += time.monotonic() - asked_s
                if counted is None:
                    raise _refusal(answer, wish.entitlement_at(answer.now_ms))
                bound = likely = min(bound, bound_of_count(counted))
        raise Unavailable("the counters do not come to rest")

    async def _outdated(self, wish: AdmissionContext, visit: _Visit) -> bool:
        """Whether the entitlement, which refuses, was read too early: nothing is opened that could bounce."""
        read_epoch = wish.timeline.read_epoch
        if not await self._grants.has_moved(wish.principal.tenant_id, read_epoch):
            return False
        visit.least_epoch = max(visit.least_epoch, read_epoch + 1)
        return True

    async def _wish(
        self, principal: Principal, ask: AdmissionRequest, bound: int, likely: int, *, least_epoch: int = 0
    ) -> AdmissionContext:
        return AdmissionContext(
            principal=principal,
            model=ask.model,
            max_tokens=ask.max_tokens,
            bound=bound,
            likely=likely,
            smallest_output=self._rules.smallest_grant,
            ttl_ms=self._rules.ttl_ms,
            timeline=await self._entitlements.of(principal.tenant_id, principal.user_id, least_epoch=least_epoch),
            book=await self._prices.book(),
        )

    async def _try(self, wish: AdmissionContext, visit: _Visit) -> Admitted | Refused | None:
        """Asks whoever admits this tenant, as far as we know; None when it is to be asked again.

        A failure of Redis may pass, so it is tried for a moment; then this process counts as blind.
        """
        while True:
            blind = visit.blind or self._grants.breaker.is_open
            if blind or self._fallback.serves(wish.principal.tenant_id):
                return await self._by_postgres(wish, visit, blind=blind)
            try:
                return await self._by_redis(wish, visit)
            except RedisUnavailable:
                visit.blind = time.monotonic() >= visit.patience_until_s
                if not visit.blind and not self._grants.breaker.is_open:
                    await asyncio.sleep(_AGAIN_S)

    async def _by_postgres(self, wish: AdmissionContext, visit: _Visit, *, blind: bool) -> Admitted | Refused | None:
        answer = await self._fallback.admit(wish, blind=blind)
        if answer is Undecided.KEY_ENDED:
            raise Unauthenticated
        if answer is Undecided.READ_AGAIN:
            visit.least_epoch = max(visit.least_epoch, wish.timeline.read_epoch + 1)
        return None if isinstance(answer, Undecided) else answer

    async def _by_redis(self, wish: AdmissionContext, visit: _Visit) -> Admitted | Refused | None:
        tenant_id = wish.principal.tenant_id
        answer = await self._grants.admit(wish)
        if isinstance(answer, Outdated):
            visit.outdated += 1
            visit.least_epoch = max(visit.least_epoch, answer.epoch)
            if visit.outdated < _READINGS:
                return None
            answer = await self._grants.rebuild(tenant_id, answer.epoch) or Mended(answer.epoch + 1)
        elif isinstance(answer, Bounced):
            visit.bounces += 1
            visit.blind = visit.bounces >= _BOUNCES
            seen = answer.epoch
            answer = (None if visit.blind else await self._grants.rebuild(tenant_id, seen)) or Mended(seen + 1)
        if isinstance(answer, InFallback):
            self._fallback.heard(tenant_id, answer.remaining_s)
            return None
        if isinstance(answer, Mended):
            visit.least_epoch = max(visit.least_epoch, answer.least_epoch)
            return None
        return answer

    async def _count(self, principal: Principal, ask: AdmissionRequest) -> int | None:
        """The exact size of the prompt, if the tenant's share of such calls is not used up and the call succeeds."""
        if ask.count is None:
            return None
        now = time.monotonic()
        recent = [at for at in self._counted.get(principal.tenant_id, []) if at > now - 60]
        if len(recent) >= self._rules.counts_per_minute:
            return None
        self._counted[principal.tenant_id] = [*recent, now]
        try:
            return await ask.count()
        except NakaError as error:
            log.warning("count_failed", error=str(error))
            return None


def _refusal(refused: Refused, entitlement: Entitlement) -> NakaError:
    """The error of a refusal: what was too little, and when to come back."""
    wait_s = max(1, ceil_div(refused.ends_ms - refused.now_ms, 1000))
    if refused.limit is None:
        whose = "this user" if refused.of_user else "this tenant"
        if refused.cause == "never":
            return QuotaExceeded(f"{whose} may run no requests", code="blocked", retry_after_s=3600, limit=None)
        message = f"{whose} has as many requests running as it may"
        return QuotaExceeded(message, code="too_many_at_once", retry_after_s=wait_s, limit=None)
    limit = entitlement.limits[refused.limit]
    whose = "this user's" if limit.scope is LimitScope.USER else "this tenant's"
    name = f"{whose} limit of {limit.limit} {_unit(limit)} per {limit.window.value}"
    if refused.cause == "never":
        return TooLarge(f"the request cannot fit into {name}")
    if refused.cause == "held":
        message = f"{name} is held by requests that still run"
        return QuotaExceeded(message, code="held", retry_after_s=wait_s, limit=limit)
    return QuotaExceeded(f"{name} is used up", code="limit_reached", retry_after_s=wait_s, limit=limit)


def _unit(limit: EffectiveLimit) -> str:
    return "micro-USD" if limit.unit == "micro-usd" else limit.meter.value.replace("_", " ")
