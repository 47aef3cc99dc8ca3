"""The access that a tenant's subscriptions and unpaid bills give it, over time. Pure.

Access lasts as long as it is paid for, plus a grace that spans Razorpay's own retries. `status` alone grants and
revokes nothing; it only says whether more money is expected (an active subscription may be unpaid, a cancelled one
paid). Every change that depends on time is computed in advance, so no worker has to run when a grace ends or a bill
becomes overdue. `now` only separates past from future, and cuts a subscription that ended at an unknown time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from billing.access.cycles import Course, CycleFacts, Planned, plan_periods
from billing.models.states import TERMINAL, SubscriptionStatus
from core.clock import DAY_MS
from metering.quota.limits import PlanLimits
from metering.quota.schedule import Refusal, Segment

GRACE_MS = {"card": 4 * DAY_MS, "upi": 5 * DAY_MS, "emandate": 8 * DAY_MS}
"""By method: cards are retried on T+0 to T+3, UPI may debit a day later, e-mandates take days (Razorpay's FAQ)."""
UNKNOWN_GRACE_MS = 5 * DAY_MS
KEPT_MS = 2 * DAY_MS
"""Ended entries stay in the schedule this long, since the admitting process's clock may differ."""

PAYMENT_REQUIRED = Refusal("payment_required", "The subscription's fee has not been paid.")
BILL_OVERDUE = Refusal("bill_overdue", "A bill for usage is overdue.")
SUBSCRIPTION_REQUIRED = Refusal("subscription_required", "The subscription has ended or is paused.")


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """A version of a plan. `blocking`: its limits with usage stopped at the allowance, whatever the plan says."""

    version: str
    limits: PlanLimits
    blocking: PlanLimits
    when_unpaid: Literal["block", "free"]


@dataclass(frozen=True, slots=True)
class PinnedPlan:
    """The plan and limits of a period's segment, by its row: they stay when the plan changes later."""

    from_ms: int
    until_ms: int
    plan: PlanFacts


@dataclass(frozen=True, slots=True)
class SubscriptionFacts:
    """A subscription at Razorpay. `starts_later`: created with a start time. `suffix`: ends its cycles' names.

    `plan`: what it gives where no segment says otherwise (`pinned`).
    """

    id: str
    suffix: str
    plan: PlanFacts
    status: str
    method: str | None = None
    authorised_ms: int | None = None
    starts_later: bool = False
    replaces: bool = False
    start_ms: int | None = None
    current_start_ms: int | None = None
    current_end_ms: int | None = None
    paid_through_ms: int | None = None
    remaining_count: int | None = None
    cancel_at_ms: int | None = None
    ended_ms: int | None = None
    cycles: tuple[CycleFacts, ...] = ()
    pinned: tuple[PinnedPlan, ...] = ()

    @property
    def is_real(self) -> bool:
        """Whether the customer has authorised it; an e-mandate stays `created` until its bank confirms."""
        return self.authorised_ms is not None and self.status != SubscriptionStatus.CREATED

    @property
    def through_ms(self) -> int | None:
        """Nothing is owed until then: the end of the last paid cycle; before the first, the agreed start."""
        if self.paid_through_ms is None and self.starts_later:
            return self.start_ms
        return self.paid_through_ms

    @property
    def over_ms(self) -> int | None:
        """No further payment is expected from then on; None: it continues."""
        if self.status in TERMINAL or self.status == SubscriptionStatus.PAUSED:
            return 0
        last_ms = self.current_end_ms if self.remaining_count == 0 else None
        return min((moment for moment in (self.cancel_at_ms, last_ms) if moment is not None), default=None)

    @property
    def access_ends_ms(self) -> int | None:
        """End of the paid time plus the grace, if more money is expected by then; None: never had access."""
        through_ms = self.through_ms
        if through_ms is None:
            return None
        graced_ms = through_ms + GRACE_MS.get(self.method or "", UNKNOWN_GRACE_MS)
        return graced_ms if self.over_ms is None else max(through_ms, min(graced_ms, self.over_ms))


@dataclass(frozen=True, slots=True)
class DebtFacts:
    """An unpaid bill for usage and its due time."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """`segments` are for admission; `planned` contains all periods of subscriptions, including past ones."""

    segments: tuple[Segment, ...]
    planned: tuple[Planned, ...]

    def segment(self, at_ms: int) -> Segment:
        """The segment in force at a time, now or later."""
        return next((one for one in reversed(self.segments) if one.from_ms <= at_ms), self.segments[0])


class _Claim(IntEnum):
    """A subscription's claim on a time; the highest wins."""

    OWES = 0
    TRIES = 1
    SERVES = 2


@dataclass(frozen=True, slots=True)
class _Stretch:
    claim: _Claim
    from_ms: int
    until_ms: int | None
    subscription: SubscriptionFacts

    def covers(self, at_ms: int) -> bool:
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


def timeline(
    own_plan: PlanFacts | None,
    subscriptions: Sequence[SubscriptionFacts],
    debts: Sequence[DebtFacts],
    now_ms: int,
    *,
    pinned_months: Sequence[PinnedPlan] = (),
) -> Timeline:
    """The tenant's access over time. `own_plan`: its plan without a subscription, where no pinned month has another."""
    real = sorted((one for one in subscriptions if one.is_real), key=lambda one: (one.authorised_ms, one.id))
    trials = {one.id: span for one in real[:1] if (span := _trial(one, now_ms)) is not None}
    planned = plan_periods([_course(one, trials.get(one.id), now_ms) for one in real], now_ms)
    stretches = [stretch for one in real for stretch in _stretches(one, trials.get(one.id))]
    overdue_ms = min((debt.due_ms for debt in debts), default=None)
    moments = {0, *(() if overdue_ms is None else (overdue_ms,)), *_moments(stretches)}
    if own_plan is not None:
        moments |= {moment for one in pinned_months for moment in (one.from_ms, one.until_ms)}
    segments = [
        _segment(
            at_ms,
            None if own_plan is None else _plan_at(own_plan, pinned_months, at_ms),
            stretches,
            owes=overdue_ms is not None and overdue_ms <= at_ms,
        )
        for at_ms in sorted(moments)
    ]
    return Timeline(_from_now_on(segments, now_ms), planned)


def _trial(one: SubscriptionFacts, now_ms: int) -> tuple[int, int] | None:
    """Start and end of the trial of the tenant's first subscription; one that replaces another has none."""
    if one.authorised_ms is None or one.start_ms is None or not one.starts_later or one.replaces:
        return None
    ends_ms = one.start_ms
    if one.cancel_at_ms is not None:
        ends_ms = min(ends_ms, one.cancel_at_ms)
    elif one.status in TERMINAL:
        ends_ms = min(ends_ms, one.ended_ms or now_ms)
    return (one.authorised_ms, ends_ms) if one.authorised_ms < ends_ms else None


def _course(one: SubscriptionFacts, trial_ms: tuple[int, int] | None, now_ms: int) -> Course:
    """Its cycles. They continue while money may come, paid or not; a paid cycle is metered to its end."""
    known = {cycle.starts_ms for cycle in one.cycles}
    present = None
    if one.current_start_ms is not None and one.current_end_ms is not None:
        present = (one.current_start_ms, one.current_end_ms)
    cut_ms = one.cancel_at_ms
    if one.status in TERMINAL:
        cut_ms = one.ended_ms or one.cancel_at_ms or now_ms
        present = None if present is None or present[0] in known else present
    if cut_ms is not None:
        cut_ms = max(cut_ms, one.paid_through_ms or 0, 0 if trial_ms is None else trial_ms[1])
    goes_on = one.status not in TERMINAL and one.status != SubscriptionStatus.PAUSED
    return Course(
        subscription=one.id,
        suffix=one.suffix,
        anchor_ms=one.start_ms,
        known=one.cycles,
        present=present,
        left=(1200 if one.remaining_count is None else one.remaining_count) if goes_on else 0,
        cut_ms=cut_ms,
        trial_ms=trial_ms,
    )


def _stretches(one: SubscriptionFacts, trial_ms: tuple[int, int] | None) -> list[_Stretch]:
    """The spans in which it is on trial, serves, and owes its fee."""
    found = [] if trial_ms is None else [_Stretch(_Claim.TRIES, *trial_ms, one)]
    ends_ms = one.access_ends_ms
    if ends_ms is None:
        return found
    starts = [cycle.starts_ms for cycle in one.cycles]
    starts += [moment for moment in (one.start_ms, one.current_start_ms) if moment is not None]
    found.append(_Stretch(_Claim.SERVES, min(starts, default=one.authorised_ms or 0), ends_ms, one))
    if one.over_ms is None or one.over_ms > ends_ms:
        found.append(_Stretch(_Claim.OWES, ends_ms, one.over_ms, one))
    return [stretch for stretch in found if stretch.until_ms is None or stretch.from_ms < stretch.until_ms]


def _moments(stretches: Sequence[_Stretch]) -> set[int]:
    """Times at which access may change."""
    moments = {stretch.from_ms for stretch in stretches}
    moments |= {stretch.until_ms for stretch in stretches if stretch.until_ms is not None}
    for stretch in stretches:
        moments |= {moment for one in stretch.subscription.pinned for moment in (one.from_ms, one.until_ms)}
    return moments


def _segment(at_ms: int, own: PlanFacts | None, stretches: Sequence[_Stretch], *, owes: bool) -> Segment:
    """The access from this time until the next: an overdue bill first, then an unpaid fee, then the plan."""
    covering = [stretch for stretch in stretches if stretch.covers(at_ms)]
    chosen = max(covering, key=lambda one: (one.claim, one.from_ms, one.subscription.id), default=None)
    in_force = own if chosen is None else _plan_of(chosen, at_ms)
    if owes:
        return _unpaid(at_ms, own, in_force, BILL_OVERDUE)
    if chosen is None or in_force is None:
        return _without(at_ms, own, had_one=bool(stretches))
    if chosen.claim is _Claim.OWES:
        return _unpaid(at_ms, own, in_force, PAYMENT_REQUIRED)
    # A subscription without any payment gets no overage on credit.
    on_credit = chosen.claim is _Claim.TRIES or chosen.subscription.paid_through_ms is None
    return Segment(at_ms, in_force.version, in_force.blocking if on_credit else in_force.limits)


def _plan_of(stretch: _Stretch, at_ms: int) -> PlanFacts:
    return _plan_at(stretch.subscription.plan, stretch.subscription.pinned, at_ms)


def _plan_at(plan: PlanFacts, pinned: Sequence[PinnedPlan], at_ms: int) -> PlanFacts:
    """The plan of the segment that covers a time; `plan` where there is none."""
    return next((each.plan for each in pinned if each.from_ms <= at_ms < each.until_ms), plan)


def _unpaid(at_ms: int, own: PlanFacts | None, in_force: PlanFacts | None, refusal: Refusal) -> Segment:
    if own is not None and in_force is not None and in_force.when_unpaid == "free":
        return Segment(at_ms, own.version, own.limits)
    return _refused(at_ms, in_force, refusal)


def _without(at_ms: int, own: PlanFacts | None, *, had_one: bool) -> Segment:
    """Access without a subscription. A tenant that never had a plan or subscription is unlimited."""
    if own is not None:
        return Segment(at_ms, own.version, own.limits)
    return _refused(at_ms, None, SUBSCRIPTION_REQUIRED) if had_one else Segment(at_ms, None, PlanLimits())


def _refused(at_ms: int, plan: PlanFacts | None, refusal: Refusal) -> Segment:
    return Segment(at_ms, None if plan is None else plan.version, PlanLimits(), refusal)


def _from_now_on(segments: Sequence[Segment], now_ms: int) -> tuple[Segment, ...]:
    """The current segment, later ones, and recently ended ones; equal neighbours are merged."""
    merged: list[Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        same = last and (last.plan_version, last.limits, last.refusal)
        if same != (segment.plan_version, segment.limits, segment.refusal):
            merged.append(segment)
    following = [*(segment.from_ms for segment in merged[1:]), None]
    ended_ms = now_ms - KEPT_MS
    return tuple(
        segment for segment, ends_ms in zip(merged, following, strict=True) if ends_ms is None or ends_ms > ended_ms
    )
