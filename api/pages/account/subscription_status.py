"""The status of a subscription in words, and the action it needs. Pure."""

from api.pages.account.wording import State, refuses_from
from api.pages.site import Here
from api.services.billing.account import Facts
from billing.models import Subscription
from billing.subscriptions.intents import in_last_cycle

_BILLS = ("/account/bills", "View bills")
_PLANS = ("/account/plan", "Choose a plan")
_KEEP = ("/account/plan", "Keep it or choose another plan")
_AUTHORISE = ("/account/plan", "Continue")
_UNPAID = frozenset({"pending", "halted"})


def state_of(facts: Facts, here: Here) -> State:
    """The status: refused requests first, then upcoming refusals, then a subscription in order."""
    refusal = facts.timeline.at(facts.at_ms).refusal
    if refusal is not None:
        return _refused(refusal.code, facts)
    if facts.live is not None:
        return _live(facts, facts.live, here)
    if facts.waiting is not None:
        text = "The subscription starts when you authorise it at Razorpay."
        return State("to be authorised", "warn", text, _AUTHORISE)
    if facts.plan is None:
        return State("no plan", "", "This account has no plan: the default limits apply and nothing is billed.", _PLANS)
    return State("no subscription", "", f"You're on the plan {facts.plan.name}, without a subscription.", _PLANS)


def _refused(code: str, facts: Facts) -> State:
    match code:
        case "bill_overdue":
            text = "Requests are refused because a bill for usage is overdue. They continue as soon as you pay it."
            return State("halted", "bad", text, ("/account/bills?state=open", "Pay overdue bill"))
        case "payment_required":
            text = "Requests are refused because the subscription fee is unpaid."
            return State("halted", "bad", text, _payment(facts.live))
        case _:
            text = "Requests are refused because the subscription has ended or is paused."
            return State("ended", "bad", text, _PLANS)


def _live(facts: Facts, row: Subscription, here: Here) -> State:
    stops_ms = refuses_from(facts.timeline.stretches, facts.at_ms)
    unpaid = row.paid_through_ms is not None and row.paid_through_ms <= facts.at_ms
    if row.cancel_at_ms is not None and row.cancel_at_ms > facts.at_ms:
        return State("ends", "warn", f"Ends on {here.day(row.cancel_at_ms)}. No further charges.", _KEEP)
    until = "" if stops_ms is None else f" Requests continue until {here.day(stops_ms)}."
    if row.status in _UNPAID or unpaid:
        text = f"The last payment failed. Razorpay will try again.{until}"
        return State("grace", "warn", text, _payment(row))
    if row.status == "paused":
        return State("paused", "warn", f"No charges while it is paused.{until}", _PLANS)
    if row.status == "authenticated":
        return State("authorised", "good", f"The first month starts on {here.day(row.start_ms)}.")
    if in_last_cycle(row):
        return State(
            "last month", "warn", f"Ends on {here.day(row.current_end_ms)}. Subscribe again to continue.", _PLANS
        )
    return State("active", "good", f"Paid until {here.day(row.paid_through_ms or row.current_end_ms)}.")


def _payment(row: Subscription | None) -> tuple[str, str]:
    """Razorpay's page of an unpaid subscription, where the customer can change the payment method."""
    if row is not None and row.status in _UNPAID and row.short_url:
        return row.short_url, "Change payment method"
    return _BILLS
