"""May this request start? One question to Redis, one row in Postgres, and then the provider may hear of it.

The grant says how many output tokens the answer may have. Redis's shadow may turn out stale, its clock may be in
another window, Postgres may bounce the row because the epoch moved: each is mended and asked again, a bounded number
of times. Postgres away, or Redis: `Unavailable`, nothing admitted.
"""

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from core.clock import now_ms
from core.errors import InDoubt, NakaError, Unavailable
from core.logs import get_logger
from core.money import ceil_div
from core.tenancy.principal import Forbidden, Principal, Unauthenticated
from metering.entitlements import Entitlements
from metering.epochs import Epochs
from metering.journal import Journal, Opened
from metering.lapses import Lapses
from metering.limits import EffectiveLimit, Entitlement, LimitScope
from metering.prices import PriceList
from metering.pricing import Price
from metering.quota import COUNTS, Held, OtherTime, Quota, QuotaAsk, Refused, Stale
from metering.records import OpenRequest
from metering.tokens import bound_of_count, bound_of_text, likely_of_text
from metering.windows import Calendar, WindowKind, minute_window

_TRIES = 12
PROMPT_OVERHEAD_TOKENS = 32
"""What the provider adds to a prompt of plain text, at most, beyond its bytes: roles and framing."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ask:
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


class Admission:
    """Grants or refuses. One per process."""

    def __init__(
        self,
        *,
        quota: Quota,
        journal: Journal,
        epochs: Epochs,
        lapses: Lapses,
        entitlements: Entitlements,
        prices: PriceList,
        calendar: Calendar,
        rules: AdmissionRules,
    ) -> None:
        self._quota = quota
        self._journal = journal
        self._epochs = epochs
        self._lapses = lapses
        self._entitlements = entitlements
        self._prices = prices
        self._calendar = calendar
        self._rules = rules
        self._skew_ms = 0
        self._counted: dict[UUID, list[float]] = {}

    async def admit(self, principal: Principal, ask: Ask) -> Grant:
        """Holds, opens, grants.

        Raises Forbidden or UnknownModel for the model, QuotaExceeded, TooLarge, Unauthenticated when the key ended
        meanwhile, Unavailable.
        """
        if principal.models is not None and ask.model not in principal.models:
            raise Forbidden(f"this key may not use the model {ask.model!r}")
        price = (await self._prices.book()).at(ask.model, self._now_ms())
        bound = bound_of_text(ask.prompt_bytes, PROMPT_OVERHEAD_TOKENS)
        likely = likely_of_text(ask.prompt_bytes, PROMPT_OVERHEAD_TOKENS)
        for _ in range(_TRIES):
            entitlement = await self._entitlements.of(principal.tenant_id, principal.user_id)
            question = self._question(principal, ask, price, bound, likely)
            answer = await self._quota.admit(question, entitlement)
            match answer:
                case Stale():
                    await self._mend(principal, answer)
                case OtherTime():
                    self._skew_ms = answer.now_ms - now_ms()
                case Refused():
                    self._look_for_lapsed(principal, lapsed=answer.lapsed)
                    counted = await self._count(principal, ask) if answer.worth_counting else None
                    if counted is None:
                        raise _refusal(answer, entitlement)
                    bound = likely = min(bound, bound_of_count(counted))
                case Held():
                    self._skew_ms = answer.now_ms - now_ms()
                    self._look_for_lapsed(principal, lapsed=answer.lapsed)
                    price = (await self._prices.book()).at(ask.model, answer.now_ms)
                    request = self._request(principal, question, answer, price, entitlement)
                    if await self._open(request):
                        return Grant(request, price, entitlement, answer.room, _ends(question, entitlement, answer))
        raise Unavailable("the counters do not come to rest")

    def _now_ms(self) -> int:
        return now_ms() + self._skew_ms

    def _question(self, principal: Principal, ask: Ask, price: Price, bound: int, likely: int) -> QuotaAsk:
        at_ms = self._now_ms()
        prompt_rate, output_rate = price.dearest(bound)
        return QuotaAsk(
            tenant_id=principal.tenant_id,
            user_id=principal.user_id,
            day=self._calendar.day(at_ms),
            period=self._calendar.month(at_ms),
            prompt_bound=bound,
            prompt_nano_usd=bound * prompt_rate,
            prompt_likely=likely,
            likely_nano_usd=likely * prompt_rate,
            asked_output=ask.max_tokens,
            smallest_output=self._rules.smallest_grant,
            output_rate=output_rate,
            ttl_ms=self._rules.ttl_ms,
        )

    def _request(
        self, principal: Principal, question: QuotaAsk, held: Held, price: Price, entitlement: Entitlement
    ) -> OpenRequest:
        return OpenRequest(
            tenant_id=principal.tenant_id,
            id=held.id,
            user_id=principal.user_id,
            key_id=principal.key_id,
            epoch=held.epoch,
            price_id=price.id,
            plan_version=entitlement.plan_version,
            period_id=question.period.name,
            day=date.fromisoformat(question.day.name),
            opened_ms=held.now_ms,
            deadline_ms=held.now_ms + self._rules.ttl_ms,
            model=price.model,
            held_prompt_tokens=question.prompt_bound,
            held_output_tokens=held.granted_output,
            held_nano_usd=question.prompt_nano_usd + held.granted_output * question.output_rate,
        )

    async def _open(self, request: OpenRequest) -> bool:
        """Whether Postgres opened it; False when it is to be asked again. Raises Unauthenticated, Unavailable.

        The hold of a request that is not open goes back; but where nobody knows whether there is a row (InDoubt), it
        stays until it lapses and Postgres answers for it.
        """
        try:
            opened = await self._journal.opens.submit(request)
        except InDoubt:
            raise
        except NakaError:
            await self._give_back(request)
            raise
        if opened is Opened.OPEN:
            return True
        await self._give_back(request)
        if opened is Opened.KEY_ENDED:
            raise Unauthenticated
        await self._epochs.rebuild_tenant(request.tenant_id, request.epoch)
        return False

    async def _give_back(self, request: OpenRequest) -> None:
        with contextlib.suppress(Unavailable):
            await self._quota.settle(request.tenant_id, request.user_id, request.id, (0,) * COUNTS)

    async def _mend(self, principal: Principal, stale: Stale) -> None:
        if stale.user_only:
            await self._epochs.build_user(principal.tenant_id, principal.user_id, stale.epoch)
        else:
            await self._epochs.rebuild_tenant(principal.tenant_id, stale.epoch)

    def _look_for_lapsed(self, principal: Principal, *, lapsed: bool) -> None:
        if lapsed:
            self._lapses.look(principal.tenant_id, principal.user_id)

    async def _count(self, principal: Principal, ask: Ask) -> int | None:
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


def _ends(question: QuotaAsk, entitlement: Entitlement, held: Held) -> tuple[int, ...]:
    ends = {
        WindowKind.MINUTE: minute_window(held.now_ms).ends_ms,
        WindowKind.DAY: question.day.ends_ms,
        WindowKind.PERIOD: question.period.ends_ms,
    }
    return tuple(ends[limit.window] for limit in entitlement.limits)
