"""What a request asks of the quota and what it is told, by Redis (`quota`) or by Postgres (`fallback`). Pure.

The time of the grant fixes everything that depends on time: windows, price, day, period. So a wish is turned into a
question once that time is known (or guessed, for Redis, whose script refuses a wrong guess). What the entitlement of
that moment refuses outright is never asked.
"""

from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from core.errors import PaymentRequired
from core.tenancy.principal import Principal
from metering.journal.records import OpenRequest
from metering.pricing.price import Price, PriceBook
from metering.quota.limits import Entitlement
from metering.quota.schedule import Timeline, period_at, resumes
from metering.quota.windows import Calendar, Window, WindowKind, minute_window


@dataclass(frozen=True, slots=True)
class QuotaQuery:
    """What a request wants to hold. Tokens; money in nano-USD at the dearest rates that can apply.

    It is meant for `from_ms <= t < until_ms`: then these are the windows, and this the entitlement, which was read when
    the tenant's epoch was `read_epoch`. `resumes`: the period was interrupted, and does not start at zero.
    """

    tenant_id: UUID
    user_id: UUID
    day: Window
    period: Window
    prompt_bound: int
    prompt_nano_usd: int
    prompt_likely: int
    likely_nano_usd: int
    asked_output: int
    smallest_output: int
    output_rate: int
    ttl_ms: int
    from_ms: int
    until_ms: int
    read_epoch: int
    resumes: bool = False

    def nano_usd(self, granted_output: int) -> int:
        """What a grant of so many output tokens holds of money."""
        return self.prompt_nano_usd + granted_output * self.output_rate


@dataclass(frozen=True, slots=True)
class Reservation:
    """Granted: `room` is what is left of each limit, this hold taken off, in the order of the entitlement."""

    now_ms: int
    id: UUID
    epoch: int
    granted_output: int
    lapsed: bool
    room: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """No. `cause`: `used`, `held` (by requests that still run), or `never` (an empty window would not fit it).

    `limit` is the index of the limit, or None for a concurrency (`of_user` says whose). `epoch`: of the counters that
    say so; None when they are Postgres's own, under its lock.
    """

    now_ms: int
    cause: str
    limit: int | None
    of_user: bool
    ends_ms: int
    worth_counting: bool
    lapsed: bool
    epoch: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """Who asks for what: at most `max_tokens` of output for a prompt of at most `bound` tokens, `likely` so many."""

    principal: Principal
    model: str
    max_tokens: int
    bound: int
    likely: int
    smallest_output: int
    ttl_ms: int
    timeline: Timeline
    book: PriceBook

    def question(self, at_ms: int, calendar: Calendar) -> QuotaQuery:
        """The same in the windows of a moment.

        Raises PaymentRequired when nothing is granted then, UnknownModel when the model had no price.
        """
        stretch = self.timeline.at(at_ms)
        if stretch.refusal is not None:
            raise PaymentRequired(stretch.refusal.detail, code=stretch.refusal.code)
        prompt_rate, output_rate = self.price(at_ms).dearest(self.bound)
        day, period = calendar.day(at_ms), period_at(self.timeline.periods, at_ms, calendar)
        return QuotaQuery(
            tenant_id=self.principal.tenant_id,
            user_id=self.principal.user_id,
            day=day,
            period=period,
            prompt_bound=self.bound,
            prompt_nano_usd=self.bound * prompt_rate,
            prompt_likely=self.likely,
            likely_nano_usd=self.likely * prompt_rate,
            asked_output=self.max_tokens,
            smallest_output=self.smallest_output,
            output_rate=output_rate,
            ttl_ms=self.ttl_ms,
            from_ms=max(stretch.from_ms, day.starts_ms, period.starts_ms),
            until_ms=min(stretch.until_ms, day.ends_ms, period.ends_ms),
            read_epoch=self.timeline.read_epoch,
            resumes=resumes(self.timeline.periods, at_ms, calendar),
        )

    def entitlement_at(self, at_ms: int) -> Entitlement:
        """What holds at a moment."""
        return self.timeline.at(at_ms).entitlement

    def price(self, at_ms: int) -> Price:
        """The entry in force at a moment. Raises UnknownModel."""
        return self.book.at(self.model, at_ms)

    def request(self, question: QuotaQuery, held: Reservation) -> OpenRequest:
        """The row that the journal opens for the grant."""
        return OpenRequest(
            tenant_id=self.principal.tenant_id,
            id=held.id,
            user_id=self.principal.user_id,
            key_id=self.principal.key_id,
            epoch=held.epoch,
            price_id=self.price(held.now_ms).id,
            plan_version=self.entitlement_at(held.now_ms).plan_version,
            period_id=question.period.name,
            day=date.fromisoformat(question.day.name),
            opened_ms=held.now_ms,
            deadline_ms=held.now_ms + self.ttl_ms,
            model=self.model,
            held_prompt_tokens=question.prompt_bound,
            held_output_tokens=held.granted_output,
            held_nano_usd=question.nano_usd(held.granted_output),
        )


@dataclass(frozen=True, slots=True)
class Admitted:
    """A wish that was granted, and the row that stands for it."""

    wish: AdmissionContext
    question: QuotaQuery
    held: Reservation
    request: OpenRequest

    @property
    def entitlement(self) -> Entitlement:
        """What it was granted under."""
        return self.wish.entitlement_at(self.held.now_ms)

    def window_ends_ms(self) -> tuple[int, ...]:
        """When the window of each limit turns, in the order of the entitlement."""
        ends = {
            WindowKind.MINUTE: minute_window(self.held.now_ms).ends_ms,
            WindowKind.DAY: self.question.day.ends_ms,
            WindowKind.PERIOD: self.question.period.ends_ms,
        }
        return tuple(ends[limit.window] for limit in self.entitlement.limits)
