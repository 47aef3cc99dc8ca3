"""The words of a tenant's money status: what happened, what is limited now, what restores it. Pure.

Two audiences: an admin of the account reads amounts and what to pay; another user is told to ask an admin.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing.gst.rupees import rupees
from billing.standing.status import Access, Cause, MoneyState, MoneyStatus
from core.clock import to_datetime

Step = StrEnum("Step", "PAY_BILL PAY_FEE AUTHORISE CHOOSE_PLAN KEEP_PLAN TOP_UP")
"""The next step of an admin."""

_TONES = {
    MoneyState.NO_PLAN: "",
    MoneyState.ACTIVE: "good",
    MoneyState.TRIAL: "good",
    MoneyState.STARTING: "good",
    MoneyState.OVERDUE: "bad",
    MoneyState.HALTED: "bad",
    MoneyState.ENDED: "bad",
    MoneyState.EMPTY: "bad",
}
_TAGS = {MoneyState.NO_PLAN: "no plan", MoneyState.TO_AUTHORISE: "to be authorised", MoneyState.STARTING: "authorised"}

_DEBITED = "It is debited by your mandate: you don't need to pay it."
_SENTENCES: dict[MoneyState, tuple[str, str, Step | None]] = {
    MoneyState.ACTIVE: ("Paid until {until}.", "", None),
    MoneyState.TRIAL: ("The trial ends on {until}; the first payment is made then.", "", None),
    MoneyState.STARTING: ("The first month starts on {until}.", "", None),
    MoneyState.CANCELLED: ("Ends on {until}. No further charges.", "", Step.KEEP_PLAN),
    MoneyState.LAST_MONTH: ("Ends on {until}. Subscribe again to continue.", "", Step.CHOOSE_PLAN),
    MoneyState.PAUSED: ("The subscription is paused: no charges.", "Resume it to continue.", Step.CHOOSE_PLAN),
    MoneyState.ENDED: ("The subscription has ended.", "Choose a plan to continue.", Step.CHOOSE_PLAN),
    MoneyState.TO_AUTHORISE: ("The subscription starts when you authorise it at Razorpay.", "", Step.AUTHORISE),
    MoneyState.NO_PLAN: (
        "This account has no plan: the default limits apply and nothing is billed.",
        "",
        Step.CHOOSE_PLAN,
    ),
    MoneyState.LOW: (
        "The wallet has {left} left, before tax.",
        "Past the plan's allowance, requests are refused at zero.",
        Step.TOP_UP,
    ),
    MoneyState.EMPTY: (
        "The wallet is empty.",
        "Past the plan's allowance, requests are refused until you add money.",
        Step.TOP_UP,
    ),
}
"""The text, the remedy and the step of each other state. `until`: the end that the state names."""


@dataclass(frozen=True, slots=True)
class Said:
    """A status in words. `tone`: empty, `good`, `warn` or `bad`. `limits` and `remedy` may be empty."""

    tag: str
    tone: str
    text: str
    limits: str = ""
    remedy: str = ""
    step: Step | None = None

    @property
    def whole(self) -> str:
        """Every sentence."""
        return " ".join(part for part in (self.text, self.limits, self.remedy) if part)


def say(status: MoneyStatus, zone: ZoneInfo) -> Said:
    """The words for an admin of the account."""
    text, remedy, step = _admin(status, zone)
    return Said(_tag(status), _TONES.get(status.state, "warn"), text, _limits(status, zone), remedy, step)


def say_to_user(status: MoneyStatus, zone: ZoneInfo) -> Said:
    """The words for another user of the account: no amounts."""
    tag, tone = _tag(status), _TONES.get(status.state, "warn")
    match status.state:
        case MoneyState.OVERDUE | MoneyState.HALTED:
            text, remedy = "A payment of your account is overdue.", "Ask your admin to pay it."
        case MoneyState.ENDED:
            text, remedy = "Your account's subscription has ended.", "Ask your admin to choose a plan."
        case MoneyState.EMPTY:
            text = "Your account's wallet is empty: past the plan's allowance, requests are refused."
            remedy = "Ask your admin to top it up."
        case _:
            return Said(tag, tone, "")
    return Said(tag, tone, text, _limits(status, zone), remedy)


def day(at_ms: int | None, zone: ZoneInfo) -> str:
    """A day, as the pages write it; empty for None."""
    if at_ms is None:
        return ""
    local: datetime = to_datetime(at_ms).astimezone(zone)
    return f"{local.day} {local:%b %Y}"


def money(amount_paise: int) -> str:
    """An amount in a sentence: no `.00` for whole rupees."""
    return rupees(amount_paise).removesuffix(".00")


def _tag(status: MoneyStatus) -> str:
    if status.state is MoneyState.ACTIVE and not status.has_subscription:
        return "no subscription"
    return _TAGS.get(status.state, status.state.value.replace("_", " "))


def _admin(status: MoneyStatus, zone: ZoneInfo) -> tuple[str, str, Step | None]:
    """(what happened, what restores it, the step) for an admin."""
    if status.needs_payment:
        return _late(status, zone)
    if status.state is MoneyState.DUE:
        return _due(status, zone)
    if status.state is MoneyState.ACTIVE and not status.has_subscription:
        return f"You're on the plan {status.plan}, without a subscription.", "", Step.CHOOSE_PLAN
    if status.state is MoneyState.ACTIVE and status.until_ms is None:
        return "The subscription is active.", "", None
    text, remedy, step = _SENTENCES[status.state]
    return text.format(until=day(status.until_ms, zone), left=money(status.balance_paise or 0)), remedy, step


def _late(status: MoneyStatus, zone: ZoneInfo) -> tuple[str, str, Step | None]:
    amount, since = money(status.overdue_paise), day(status.since_ms, zone)
    since = f" since {since}" if since else ""
    if status.cause is Cause.BILL:
        text = f"{amount} for usage is overdue{since}."
        if status.is_debited:
            return f"{text} {_DEBITED}", _when_paid(status), None
        return text, _when_paid(status), Step.PAY_BILL
    text = f"The subscription's fee of {amount} is overdue{since}."
    if status.state is MoneyState.HALTED:
        text += " Razorpay could not collect it and has stopped trying."
        return text, _when_paid(status), Step.PAY_FEE
    retry = "" if status.retry_ms is None else f" Razorpay tries again on {day(status.retry_ms, zone)}."
    return text + retry, _when_paid(status), Step.PAY_FEE


def _when_paid(status: MoneyStatus) -> str:
    match status.now.access:
        case Access.REFUSED:
            return "They continue as soon as it is paid."
        case Access.REDUCED:
            return f"The limits of {status.plan} return as soon as it is paid."
        case _:
            return "Pay before then, and nothing changes." if status.later else ""


def _due(status: MoneyStatus, zone: ZoneInfo) -> tuple[str, str, Step | None]:
    if status.due_paise:
        by = f" by {day(status.due_by_ms, zone)}" if status.due_by_ms is not None else ""
        text = f"{money(status.due_paise)} for usage is due{by}."
        return (f"{text} {_DEBITED}", "", None) if status.is_debited else (text, "", Step.PAY_BILL)
    return "Razorpay is collecting the fee of this month.", "", None


def _limits(status: MoneyStatus, zone: ZoneInfo) -> str:
    """The sentence about the limits of now, or of later."""
    match status.now.access:
        case Access.REFUSED:
            return "Requests are refused."
        case Access.REDUCED:
            return f"Until it is paid, the limits of {status.now.plan} apply."
        case _:
            pass
    later = status.later
    if later is None or status.state in {MoneyState.CANCELLED, MoneyState.LAST_MONTH}:
        return ""
    if later.access is Access.REFUSED:
        return f"Requests continue until {day(later.from_ms, zone)}."
    return f"From {day(later.from_ms, zone)} on the limits of {later.plan} apply." if later.plan else ""
