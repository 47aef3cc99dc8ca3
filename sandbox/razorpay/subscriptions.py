"""The merchant's calls on subscriptions: create, update, pause, resume, cancel."""

from typing import Any

from sandbox.razorpay import addons, charging, events
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.calendar import most_cycles
from sandbox.razorpay.entities import Subscription
from sandbox.razorpay.refusals import Refused, flag, integer, notes, only, required

Json = dict[str, Any]

_CREATE = {
    "plan_id", "total_count", "quantity", "start_at", "expire_by", "customer_notify", "addons", "offer_id", "notes",
    "notify_info",
}  # fmt: skip
_UPDATE = {
    "plan_id", "offer_id", "quantity", "remaining_count", "start_at", "schedule_change_at", "customer_notify",
}  # fmt: skip


def create(books: Books, body: Json, now: int) -> Subscription:
    """`POST /v1/subscriptions`; raises Refused."""
    only(body, _CREATE)
    plan = find(books.plans, required(body, "plan_id"))
    count, most = integer(body, "total_count"), most_cycles(plan.period, plan.interval)
    if count < 1:
        raise Refused("The total count must be at least 1.", field="total_count")
    if count > most:
        raise Refused(f"Exceeds the maximum total_count ({most}) allowed for the given period and interval")
    expire_by = integer(body, "expire_by") if body.get("expire_by") is not None else None
    if expire_by is not None and expire_by <= now:
        raise Refused("Link expire by cannot be lesser than the current time.", field="expire_by")
    start_at = integer(body, "start_at") if body.get("start_at") is not None else None
    if start_at is not None and start_at <= now:
        raise Refused("The start time cannot be lesser than the current time.", field="start_at")
    if body.get("offer_id"):
        raise Refused("Offer Not Found")
    upfront = [addons.read(books, plan.item.currency, each, now) for each in body.get("addons") or []]
    key = new_id("sub")
    made = Subscription(
        id=key,
        plan_id=plan.id,
        quantity=max(1, integer(body, "quantity", 1)),
        notes=notes(body),
        start_at=start_at,
        charge_at=start_at,
        total_count=count,
        customer_notify=flag(body, "customer_notify", default=True),
        created_at=now,
        expire_by=expire_by,
        short_url=books.page(key),
    )
    books.subscriptions[key] = made
    for item, quantity in upfront:
        addons.keep(books, made, item, quantity, now)
    return made


def cancel(books: Books, key: str, body: Json, now: int) -> Subscription:
    """`POST .../cancel`. At cycle end it is accepted but ignored while pending, halted or paused, as observed."""
    sub = find(books.subscriptions, key)
    if sub.status in ("cancelled", "completed", "expired"):
        raise Refused(f"Subscription is not cancellable in {sub.status} status.", field="status")
    if not flag(body, "cancel_at_cycle_end"):
        end(books, sub, now, by="self")
        return sub
    if sub.status in ("created", "authenticated"):
        raise Refused("Subscription cannot be cancelled since no billing cycle is going on")
    if sub.status == "active":
        if charging.is_last(sub):
            raise Refused("The subscription is in its final cycle and cannot be cancelled now.")
        sub.cancel_at_cycle_end = True
    return sub


def end(books: Books, sub: Subscription, now: int, *, by: str) -> None:
    """Cancels now, for good."""
    sub.status, sub.ended_at, sub.charge_at, sub.cancel_initiated_by = "cancelled", now, None, by
    events.subscription(books, now, "cancelled", sub)


def pause(books: Books, key: str, now: int, *, by: str = "self") -> Subscription:
    """`POST .../pause`; cancels an `authenticated` one."""
    sub = find(books.subscriptions, key)
    if sub.status == "authenticated":
        end(books, sub, now, by=by)
        return sub
    if sub.status != "active":
        raise Refused(f"subscription can't be paused as subscription is in {sub.status} state")
    sub.status, sub.charge_at, sub.paused_at, sub.pause_initiated_by = "paused", None, now, by
    events.subscription(books, now, "paused", sub)
    return sub


def resume(books: Books, key: str, now: int, *, by: str = "self") -> Subscription:
    """`POST .../resume`. Assumption: cycles that passed while paused are not invoiced."""
    sub = find(books.subscriptions, key)
    if sub.status != "paused":
        raise Refused(f"subscription can't be resumed as subscription is in {sub.status} state")
    if sub.pause_initiated_by != by:
        raise Refused("subscription can't be resumed as it was paused by the customer")
    while sub.current_end is not None and sub.current_end <= now:
        sub.cycles += 1
        sub.swallowed += 1
        sub.current_start, sub.current_end = sub.current_end, charging.end_of_cycle(books, sub, sub.cycles)
    sub.status, sub.charge_at, sub.paused_at, sub.pause_initiated_by = "active", sub.current_end, None, None
    events.subscription(books, now, "resumed", sub)
    return sub


def update(books: Books, key: str, body: Json, now: int) -> Subscription:
    """`PATCH`: only for international cards; in mid-cycle nothing that would be prorated."""
    sub = find(books.subscriptions, key)
    if not body:
        raise Refused("Parameters to update can't be empty")
    only(body, _UPDATE)
    at_end = body.get("schedule_change_at") == "cycle_end"
    if sub.status not in ("authenticated", "active"):
        text = "Can't update subscription when subscription is not in Authenticated or Active state"
        raise Refused(text, field="status")
    if body.get("remaining_count") is not None and integer(body, "remaining_count") < 1:
        raise Refused("The remaining count must be at least 1.", field="remaining_count")
    _refuse_method(sub, at_end=at_end)
    changes: Json = {}
    if "plan_id" in body:
        changes["plan_id"] = find(books.plans, body["plan_id"]).id
    if "quantity" in body:
        changes["quantity"] = max(1, integer(body, "quantity"))
    if "remaining_count" in body:
        changes["total_count"] = sub.cycles - sub.swallowed + integer(body, "remaining_count")
    if at_end and sub.status == "active":
        sub.changes, sub.has_scheduled_changes, sub.change_scheduled_at = changes, True, sub.current_end
        return sub
    if sub.status == "active" and ("plan_id" in changes or "quantity" in changes):
        raise Refused("Proration is not simulated: send schedule_change_at=cycle_end", field="schedule_change_at")
    charging.change(books, sub, changes)
    events.subscription(books, now, "updated", sub)
    return sub


def _refuse_method(sub: Subscription, *, at_end: bool) -> None:
    """Refuses updates for Indian methods."""
    if sub.method in ("upi", "emandate"):
        said = "UPI" if sub.method == "upi" else "emandate"
        raise Refused(f"subscriptions cannot be updated when payment mode is {said}")
    if sub.method == "card_domestic" and at_end:
        text = "Only offers can be updated for subscriptions when payment mode is domestic card."
        raise Refused(text, field="offer_id")
    if sub.method == "card_domestic":
        raise Refused("Can't update subscription immediately when card mandate is applicable")


def scheduled(books: Books, key: str) -> Subscription:
    """The subscription with a scheduled update; raises Refused."""
    sub = find(books.subscriptions, key)
    if not sub.changes:
        raise Refused("No Pending update for this subscription")
    return sub


def forget_changes(books: Books, key: str) -> Subscription:
    """`POST .../cancel_scheduled_changes`; doesn't undo a cancel at cycle end."""
    sub = scheduled(books, key)
    sub.changes, sub.has_scheduled_changes, sub.change_scheduled_at = {}, False, None
    return sub
