"""How a subscription stands, in words, and what to do about it. Pure: rows and moments come in."""

from dataclasses import dataclass
from typing import Protocol

from api.pages.account.wording import State, refuses_from
from api.pages.site import Here
from billing.models import Plan, Subscription
from billing.subscriptions.intents import in_last_cycle
from metering.quota.schedule import Timeline

_BILLS = ("/account/bills", "See the bills")
_PLANS = ("/account/plan", "Choose a plan")
_KEEP = ("/account/plan", "Keep it, or choose another plan")
_AUTHORISE = ("/account/plan", "Go on")
_UNPAID = frozenset({"pending", "halted"})


class _Days(Protocol):
    def day(self, value: int | None, /) -> str: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known: the subscription that runs, the one that waits, and what admission holds."""

    live: Subscription | None
    waiting: Subscription | None
    plan: Plan | None
    """What the tenant has now: its subscription's, or its own."""
    timeline: Timeline
    at_ms: int


def state_of(facts: Facts, here: Here) -> State:
    """How it stands: what is refused first, then what is about to be, then what runs."""
    refusal = facts.timeline.at(facts.at_ms).refusal
    if refusal is not None:
        return _refused(refusal.code, facts)
    if facts.live is not None:
        return _live(facts, facts.live, here)
    if facts.waiting is not None:
        text = "The subscription begins when you have authorised it at Razorpay."
        return State("to be authorised", "warn", text, _AUTHORISE)
    if facts.plan is None:
        return State("no plan", "", "This account is on no plan: nothing is limited, and nothing is billed.", _PLANS)
    return State("no subscription", "", f"You have the plan {facts.plan.name}, without a subscription.", _PLANS)


def _refused(code: str, facts: Facts) -> State:
    match code:
        case "bill_overdue":
            text = "Requests are refused: a bill for usage is overdue. Pay the open bill, and they go on at once."
            return State("halted", "bad", text, ("/account/bills?state=open", "Pay the open bill"))
        case "payment_required":
            text = "Requests are refused: the subscription's fee has not been paid."
            return State("halted", "bad", text, _payment(facts.live))
        case _:
            text = "Requests are refused: the subscription has ended or is paused."
            return State("ended", "bad", text, _PLANS)


def _live(facts: Facts, row: Subscription, here: _Days) -> State:
    stops_ms = refuses_from(facts.timeline.stretches, facts.at_ms)
    unpaid = row.paid_through_ms is not None and row.paid_through_ms <= facts.at_ms
    if row.cancel_at_ms is not None and row.cancel_at_ms > facts.at_ms:
        return State("ends", "warn", f"It ends on {here.day(row.cancel_at_ms)}. Nothing more is charged.", _KEEP)
    if row.status in _UNPAID or unpaid:
        until = "" if stops_ms is None else f" Requests go on until {here.day(stops_ms)}."
        text = f"The last payment has not come in. Razorpay tries again by itself.{until}"
        return State("grace", "warn", text, _payment(row))
    if row.status == "paused":
        until = "" if stops_ms is None else f" What is paid for is served until {here.day(stops_ms)}."
        return State("paused", "warn", f"Nothing is charged while it is paused.{until}", _PLANS)
    if row.status == "authenticated":
        return State("authorised", "good", f"Its first month begins on {here.day(row.start_ms)}.")
    if in_last_cycle(row):
        return State("last month", "warn", f"It ends on {here.day(row.current_end_ms)}. Subscribe again.", _PLANS)
    return State("active", "good", f"Paid until {here.day(row.paid_through_ms or row.current_end_ms)}.")


def _payment(row: Subscription | None) -> tuple[str, str]:
    """Razorpay's page of an unpaid subscription lets its customer pay by something else."""
    if row is not None and row.status in _UNPAID and row.short_url:
        return row.short_url, "Change how you pay"
    return _BILLS
