"""The status of a tenant's money, from facts of its bills, subscription and access. Pure.

What needs a payment comes first: an overdue bill, a fee that Razorpay stopped collecting, a fee that it still retries.
Then what is due, then how the subscription stands. Amounts are with tax, times in milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from billing.models.states import SubscriptionStatus

MoneyState = StrEnum(
    "MoneyState",
    "ACTIVE TRIAL STARTING TO_AUTHORISE DUE LOW CANCELLED LAST_MONTH PAUSED EMPTY OVERDUE HALTED ENDED NO_PLAN",
)
"""`starting`: authorised, before the first month. `due`: a payment is due, and not late.

`cancelled`: serves to its end. `low`, `empty`: the wallet. `overdue`: a bill or a fee is late. `halted`: Razorpay has
stopped collecting the fee.
"""
Cause = StrEnum("Cause", "BILL FEE")
"""The kind of debt that is overdue: a bill for usage, or the subscription's fee."""
Access = StrEnum("Access", "FULL REDUCED REFUSED")
"""`reduced`: the limits of the tenant's own plan instead of those that it subscribed to."""
NEEDS_PAYMENT = (MoneyState.OVERDUE, MoneyState.HALTED)
"""States in which something is late: the operator lists the tenant, and it is alerted."""


@dataclass(frozen=True, slots=True)
class Debt:
    """A bill for usage that is not paid in full. `is_debited`: a debit on the tenant's mandate is on its way."""

    number: str
    due_paise: int
    due_ms: int
    pay_url: str | None = None
    is_debited: bool = False


@dataclass(frozen=True, slots=True)
class FeeFacts:
    """The live subscription. `pay_url`: Razorpay's page of it, where the payment method can be changed.

    While the fee is retried, a change there collects it; once the subscription is halted, it collects nothing.
    """

    status: str
    gross_paise: int
    plan: str
    paid_through_ms: int | None = None
    start_ms: int | None = None
    current_end_ms: int | None = None
    retry_ms: int | None = None
    cancel_at_ms: int | None = None
    is_last_month: bool = False
    pay_url: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The access that admission gives from a moment on. `plan`: the name of the plan whose limits apply."""

    from_ms: int
    access: Access
    plan: str | None = None
    code: str | None = None
    """The code of the refusal."""


@dataclass(frozen=True, slots=True)
class Funds:
    """A prepaid tenant's wallet, before tax. `low_paise`: it counts as low below this."""

    balance_paise: int
    low_paise: int | None = None


@dataclass(frozen=True, slots=True)
class StandingFacts:
    """Everything that the status follows from. `given`: the present access, then each later one."""

    plan: str | None
    fee: FeeFacts | None
    waits: bool
    debts: Sequence[Debt]
    given: Sequence[Given]
    trial_ends_ms: int | None = None
    funds: Funds | None = None
    open_charges: int = 0
    """Charges that Razorpay has and that may still be paid."""


@dataclass(frozen=True, slots=True)
class MoneyStatus:
    """The status at `at_ms`.

    `since_ms`: of what is overdue. `until_ms`: the end of what the state names, or of the paid time. `due_paise`: every
    open bill, and a fee that is late; `overdue_paise`: the late part of it. `now`: the access at present, and `later`
    the next worse one. `pay_url`: Razorpay's page, if one payment settles all that is overdue.
    """

    state: MoneyState
    at_ms: int
    plan: str | None
    now: Given
    later: Given | None = None
    cause: Cause | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    due_paise: int = 0
    overdue_paise: int = 0
    due_by_ms: int | None = None
    retry_ms: int | None = None
    pay_url: str | None = None
    has_subscription: bool = False
    balance_paise: int | None = None
    open_charges: int = 0
    is_debited: bool = False
    """The mandate pays what is overdue, or without that what is due: there is nothing to do."""

    @property
    def fingerprint(self) -> str:
        """Changes with every payment of a bill or a top-up: a page that shows another one is outdated."""
        return f"{self.due_paise}-{self.open_charges}"

    @property
    def needs_payment(self) -> bool:
        """Whether something is late, so that every page says so."""
        return self.state in NEEDS_PAYMENT


def status_of(facts: StandingFacts, at_ms: int) -> MoneyStatus:
    """The status."""
    fee = facts.fee
    late = sorted((debt for debt in facts.debts if debt.due_ms <= at_ms), key=lambda debt: debt.due_ms)
    soon = min((debt.due_ms for debt in facts.debts if debt.due_ms > at_ms), default=None)
    fee_paise = fee.gross_paise if fee is not None and _is_late(fee, facts, at_ms) else 0
    overdue_paise = sum(debt.due_paise for debt in late) + fee_paise
    state = _state(facts, at_ms, owes=bool(late), owes_fee=bool(fee_paise))
    cause = (Cause.BILL if late else Cause.FEE) if overdue_paise else None
    now = facts.given[0]
    return MoneyStatus(
        state=state,
        at_ms=at_ms,
        plan=facts.plan,
        now=now,
        later=next((one for one in facts.given[1:] if _is_worse(one, now)), None),
        cause=cause,
        since_ms=_since(late, fee, fee_paise),
        until_ms=_until(state, facts),
        due_paise=sum(debt.due_paise for debt in facts.debts) + fee_paise,
        overdue_paise=overdue_paise,
        due_by_ms=soon,
        retry_ms=fee.retry_ms if fee is not None and fee.status == SubscriptionStatus.PENDING else None,
        pay_url=_pay_url(late, fee, fee_paise),
        has_subscription=fee is not None,
        balance_paise=None if facts.funds is None else facts.funds.balance_paise,
        open_charges=facts.open_charges,
        is_debited=not fee_paise and bool(facts.debts) and all(debt.is_debited for debt in late or facts.debts),
    )


def _state(facts: StandingFacts, at_ms: int, *, owes: bool, owes_fee: bool) -> MoneyState:
    """The first of these that holds: what stops the tenant before what will."""
    fee, funds = facts.fee, facts.funds
    status = None if fee is None else fee.status
    rules = (
        (status == SubscriptionStatus.HALTED, MoneyState.HALTED),
        (owes or owes_fee, MoneyState.OVERDUE),
        (status == SubscriptionStatus.PAUSED, MoneyState.PAUSED),
        (facts.given[0].access is Access.REFUSED, MoneyState.ENDED),
        (funds is not None and funds.balance_paise <= 0, MoneyState.EMPTY),
        (bool(facts.debts) or (fee is not None and _is_unpaid(fee, at_ms)), MoneyState.DUE),
        (funds is not None and funds.balance_paise < (funds.low_paise or 0), MoneyState.LOW),
    )
    return next((state for holds, state in rules if holds), None) or _calm(facts, at_ms)


def _calm(facts: StandingFacts, at_ms: int) -> MoneyState:
    """The state of a tenant that owes nothing."""
    fee = facts.fee
    if fee is None:
        if facts.waits:
            return MoneyState.TO_AUTHORISE
        return MoneyState.NO_PLAN if facts.plan is None else MoneyState.ACTIVE
    if fee.cancel_at_ms is not None and fee.cancel_at_ms > at_ms:
        return MoneyState.CANCELLED
    if facts.trial_ends_ms is not None:
        return MoneyState.TRIAL
    if fee.status == SubscriptionStatus.AUTHENTICATED:
        return MoneyState.STARTING
    return MoneyState.LAST_MONTH if fee.is_last_month else MoneyState.ACTIVE


def _is_unpaid(fee: FeeFacts, at_ms: int) -> bool:
    """Whether the paid time is over and Razorpay is still to collect the fee of the next month."""
    is_over = fee.is_last_month or (fee.cancel_at_ms is not None and fee.cancel_at_ms <= at_ms)
    collects = fee.status not in {SubscriptionStatus.PAUSED, SubscriptionStatus.AUTHENTICATED}
    return collects and not is_over and fee.paid_through_ms is not None and fee.paid_through_ms <= at_ms


def _is_late(fee: FeeFacts, facts: StandingFacts, at_ms: int) -> bool:
    """Whether a fee could not be collected: a failed debit, or access that ended for want of it."""
    if fee.status in {SubscriptionStatus.PENDING, SubscriptionStatus.HALTED}:
        return True
    lost = facts.given[0].code == "payment_required" or facts.given[0].access is Access.REDUCED
    return lost and _is_unpaid(fee, at_ms)


def _since(late: Sequence[Debt], fee: FeeFacts | None, fee_paise: int) -> int | None:
    moments = [debt.due_ms for debt in late]
    if fee is not None and fee_paise:
        moments += [moment for moment in (fee.paid_through_ms or fee.start_ms,) if moment is not None]
    return min(moments, default=None)


def _until(state: MoneyState, facts: StandingFacts) -> int | None:
    fee = facts.fee
    match state:
        case MoneyState.TRIAL:
            return facts.trial_ends_ms
        case MoneyState.STARTING:
            return None if fee is None else fee.start_ms
        case MoneyState.CANCELLED:
            return None if fee is None else fee.cancel_at_ms
        case MoneyState.LAST_MONTH:
            return None if fee is None else fee.current_end_ms
        case _:
            return None if fee is None else fee.paid_through_ms or fee.current_end_ms


def _pay_url(late: Sequence[Debt], fee: FeeFacts | None, fee_paise: int) -> str | None:
    if fee_paise:
        is_retried = fee is not None and fee.status == SubscriptionStatus.PENDING
        return fee.pay_url if fee is not None and is_retried and not late else None
    return late[0].pay_url if len(late) == 1 else None


def _is_worse(one: Given, now: Given) -> bool:
    order = list(Access)
    return order.index(one.access) > order.index(now.access)
