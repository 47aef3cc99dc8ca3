"""Subscriptions through their months: the documented state machine, on a clock that is moved."""

from datetime import datetime, timedelta

import pytest
from razorpay.errors import BadRequestError

from sandbox.razorpay.calendar import IST, boundary
from tests.sandbox.razorpay.bench import CYCLE_2, CYCLE_3, DAY, START, Bench

CAP = 1_500_000


def ist(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=IST).timestamp())  # type: ignore[misc,arg-type]


def next_month(bench: Bench, key: str, *, plus: int = 0) -> None:
    """To the end of the subscription's present cycle."""
    bench.advance(to=bench.fetch(key)["current_end"] + plus)


def test_cycles_end_at_midnight_in_india() -> None:
    assert boundary(START, 1, "monthly", 1) == CYCLE_2
    assert boundary(START, 2, "monthly", 1) == CYCLE_3
    assert boundary(START, 11, "monthly", 1) == 1822674600  # `end_at` of twelve, in the documented sample
    end_of_january = ist(2027, 1, 31, 15)
    assert boundary(end_of_january, 1, "monthly", 1) == ist(2027, 2, 28)
    assert boundary(end_of_january, 2, "monthly", 1) == ist(2027, 3, 31)
    late_in_the_evening = ist(2026, 12, 31, 23, 59)
    assert boundary(late_in_the_evening, 1, "quarterly", 1) == ist(2027, 3, 31)
    assert boundary(late_in_the_evening, 1, "weekly", 2) == ist(2027, 1, 14)
    assert boundary(ist(2028, 2, 29), 1, "yearly", 1) == ist(2029, 2, 28)


def test_a_month_by_upi(bench: Bench) -> None:
    begun = bench.now()
    sub = bench.subscribe("upi", count=3)
    assert (sub["status"], sub["payment_method"], sub["customer_id"]) == ("active", "upi", None)
    assert begun <= sub["start_at"] == sub["current_start"] <= begun + 5
    assert sub["charge_at"] == sub["current_end"] == boundary(sub["start_at"], 1, "monthly", 1)
    assert datetime.fromtimestamp(sub["current_end"], IST).time().isoformat() == "00:00:00"
    assert (sub["paid_count"], sub["remaining_count"]) == (1, 2)
    assert sub["end_at"] == boundary(sub["start_at"], 2, "monthly", 1)
    assert bench.events(sub["id"]) == ["authenticated", "activated", "charged"]
    bench.advance(to=sub["current_end"] - 2)
    assert bench.fetch(sub["id"])["paid_count"] == 1
    bench.advance(to=sub["current_end"])
    second = bench.fetch(sub["id"])
    assert (second["current_start"], second["paid_count"], second["remaining_count"]) == (sub["current_end"], 2, 1)
    newest, first = bench.invoices(sub["id"])
    assert (newest["billing_start"], newest["billing_end"]) == (second["current_start"], second["current_end"])
    assert (first["billing_start"], first["billing_end"]) == (sub["current_start"], sub["current_end"])
    assert [each["status"] for each in (newest, first)] == ["paid", "paid"]
    payment = bench.sdk.payment.fetch(newest["payment_id"])
    assert (payment["method"], payment["invoice_id"], payment["amount"]) == ("upi", newest["id"], 353_882)
    bench.advance(to=second["current_end"])
    last = bench.fetch(sub["id"])
    assert (last["status"], last["remaining_count"], last["charge_at"]) == ("completed", 0, None)
    assert last["current_start"] == last["end_at"] == last["ended_at"]
    assert bench.events(sub["id"])[3:] == ["charged", "charged", "completed"]
    next_month(bench, sub["id"], plus=DAY)
    assert len(bench.invoices(sub["id"])) == 3


def test_a_jump_of_a_year_is_twelve_months(bench: Bench) -> None:
    sub = bench.subscribe("card_domestic", count=12)
    bench.advance(days=366)
    done = bench.fetch(sub["id"])
    assert (done["status"], done["paid_count"]) == ("completed", 12)
    starts = sorted(each["billing_start"] for each in bench.invoices(sub["id"]))
    assert starts == [boundary(sub["start_at"], n, "monthly", 1) for n in range(12)]


def test_halted_and_back(bench: Bench) -> None:
    sub = bench.subscribe("card_domestic")
    bench.sim("POST", f"/subscriptions/{sub['id']}/outcomes", next=["insufficient_funds"] * 4)
    due = sub["current_end"]
    for attempt in range(3):
        bench.advance(to=due + attempt * DAY)
        now = bench.fetch(sub["id"])
        assert (now["status"], now["auth_attempts"]) == ("pending", attempt + 1)
        assert (now["charge_at"], now["current_start"]) == (due + (attempt + 1) * DAY, due)
        assert (now["paid_count"], now["remaining_count"]) == (1, 10)
    bench.advance(to=due + 3 * DAY)
    halted = bench.fetch(sub["id"])
    assert (halted["status"], halted["auth_attempts"], halted["charge_at"]) == ("halted", 0, halted["current_end"])
    assert bench.events(sub["id"])[3:] == ["pending"] * 3 + ["halted"]
    next_month(bench, sub["id"])
    third, second, _ = bench.invoices(sub["id"])
    assert [third["status"], second["status"]] == ["issued", "issued"]
    assert bench.fetch(sub["id"])["status"] == "halted"
    bench.sim("POST", f"/invoices/{second['id']}/pay", method="upi")
    back = bench.fetch(sub["id"])
    assert (back["status"], back["paid_count"], back["charge_at"]) == ("active", 2, back["current_end"])
    assert bench.events(sub["id"])[-2:] == ["charged", "activated"]
    assert bench.sdk.invoice.fetch(third["id"])["status"] == "issued"  # active, and still owing the present cycle
    next_month(bench, sub["id"])
    assert bench.fetch(sub["id"])["paid_count"] == 3


def test_a_retry_and_a_change_of_card_bring_it_back(bench: Bench) -> None:
    sub = bench.subscribe("upi")
    bench.sim("POST", f"/subscriptions/{sub['id']}/outcomes", next=["insufficient_funds", "ok"])
    bench.advance(to=sub["current_end"] + DAY)
    back = bench.fetch(sub["id"])
    assert (back["status"], back["paid_count"], back["auth_attempts"]) == ("active", 2, 0)
    assert bench.events(sub["id"])[3:] == ["pending", "charged", "activated"]
    bench.sim("POST", f"/subscriptions/{sub['id']}/outcomes", next=["insufficient_funds"] * 4)
    bench.advance(to=back["current_end"])
    bench.sim("POST", f"/subscriptions/{sub['id']}/change_method", method="card_international")
    changed = bench.fetch(sub["id"])
    assert (changed["status"], changed["payment_method"], changed["paid_count"]) == ("active", "card", 3)
    bench.sdk.subscription.createAddon(sub["id"], {"item": {"name": "x", "amount": 100, "currency": "INR"}})


@pytest.mark.parametrize(
    ("method", "reason"),
    [("card_domestic", "transaction_limit_exceeded"), ("upi", "mandate_debit_beyond_psp_amount_cap")],
)
def test_above_the_cap_no_debit_succeeds(bench: Bench, method: str, reason: str) -> None:
    bench.sim("POST", "/settings", cap_paise={"upi": CAP})
    sub = bench.subscribe(method, amount=CAP)
    next_month(bench, sub["id"])
    assert bench.fetch(sub["id"])["status"] == "active"  # the cap itself passes
    bench.sim("POST", "/settings", cap_paise={"upi": 2 * CAP, "card_domestic": CAP})
    above = bench.subscribe(method, amount=CAP + 1)
    bench.sim("POST", "/settings", cap_paise={"upi": CAP})
    next_month(bench, above["id"], plus=3 * DAY)
    assert bench.fetch(above["id"])["status"] == "halted"
    order = bench.invoices(above["id"])[0]["order_id"]
    tried = bench.sdk.order.payments(order)["items"]
    assert [(each["status"], each["error_reason"]) for each in tried] == [("failed", reason)] * 4


def test_upi_is_not_offered_above_the_cap(bench: Bench) -> None:
    with pytest.raises(Exception, match="400"):
        bench.subscribe("upi", amount=CAP + 1)


def test_cancel_at_cycle_end_leaves_no_trace_until_the_end(bench: Bench) -> None:
    sub = bench.subscribe("upi")
    answer = bench.sdk.subscription.cancel(sub["id"], {"cancel_at_cycle_end": 1})
    assert answer == sub
    assert bench.sdk.subscription.cancel(sub["id"], {"cancel_at_cycle_end": True})["status"] == "active"
    bench.advance(to=sub["current_end"] - 2)
    assert bench.fetch(sub["id"]) == sub
    bench.advance(to=sub["current_end"])
    gone = bench.fetch(sub["id"])
    assert (gone["status"], gone["ended_at"], gone["charge_at"]) == ("cancelled", sub["current_end"], None)
    assert len(bench.invoices(sub["id"])) == 1
    assert bench.events(sub["id"])[-1] == "cancelled"


def test_cancel_at_cycle_end_is_refused_or_ignored_elsewhere(bench: Bench) -> None:
    at_end = {"cancel_at_cycle_end": True}
    made = bench.sdk.subscription.create({"plan_id": bench.plan()["id"], "total_count": 2})
    with pytest.raises(BadRequestError, match="no billing cycle is going on"):
        bench.sdk.subscription.cancel(made["id"], at_end)
    paused = bench.subscribe("card_domestic")
    bench.sdk.subscription.pause(paused["id"], {"pause_at": "now"})
    pending = bench.subscribe("card_domestic")
    bench.sim("POST", f"/subscriptions/{pending['id']}/outcomes", next=["insufficient_funds"])
    bench.advance(to=pending["current_end"])
    for sub, status in ((paused, "paused"), (pending, "pending")):
        assert bench.sdk.subscription.cancel(sub["id"], at_end)["status"] == status
    bench.advance(days=40)
    assert bench.fetch(pending["id"])["status"] == "active"
    assert bench.fetch(paused["id"])["status"] == "paused"
    assert bench.fetch(pending["id"])["paid_count"] == 3


def test_a_trial_takes_a_token_and_charges_when_it_ends(bench: Bench) -> None:
    start = bench.now() + 10 * DAY
    sub = bench.subscribe("upi", start_at=start)
    assert (sub["status"], sub["charge_at"], sub["current_start"], sub["paid_count"]) == (
        "authenticated",
        start,
        None,
        0,
    )
    token = bench.sdk.payment.all()["items"][0]
    assert (token["amount"], token["status"], token["amount_refunded"]) == (500, "refunded", 500)
    bench.advance(to=start)
    active = bench.fetch(sub["id"])
    assert (active["status"], active["current_start"], active["paid_count"]) == ("active", start, 1)
    assert bench.events(sub["id"]) == ["authenticated", "activated", "charged"]


def test_an_emandate_waits_a_day_at_first_and_at_every_debit(bench: Bench) -> None:
    sub = bench.subscribe("emandate")
    assert (sub["status"], sub["payment_method"]) == ("created", "emandate")
    bench.advance(days=1)
    active = bench.fetch(sub["id"])
    assert (active["status"], active["paid_count"]) == ("active", 1)
    bench.advance(to=active["current_end"])
    waiting = bench.fetch(sub["id"])
    assert (waiting["status"], waiting["paid_count"], waiting["current_start"]) == ("active", 1, active["current_end"])
    assert bench.invoices(sub["id"])[0]["status"] == "issued"
    bench.advance(days=1)
    assert bench.fetch(sub["id"])["paid_count"] == 2


def test_an_addon_rides_the_next_invoice(bench: Bench) -> None:
    sub = bench.subscribe("card_international")
    item = {"name": "Overage", "amount": 118_000, "currency": "INR"}
    addon = bench.sdk.subscription.createAddon(sub["id"], {"item": item})
    bench.advance(to=sub["current_end"])
    invoice = bench.invoices(sub["id"])[0]
    assert (invoice["amount"], invoice["status"]) == (353_882 + 118_000, "paid")
    assert [line["type"] for line in invoice["line_items"]] == ["plan", "addon"]
    assert bench.sdk.addon.fetch(addon["id"])["invoice_id"] == invoice["id"]
    payment = bench.sdk.payment.fetch(invoice["payment_id"])
    assert (payment["international"], payment["fee"], payment["tax"]) == (True, 11_136, 1698)
    with pytest.raises(BadRequestError):
        bench.sdk.addon.delete(addon["id"])
    next_month(bench, sub["id"])
    assert bench.invoices(sub["id"])[0]["amount"] == 353_882


def test_paused_time_is_not_invoiced(bench: Bench) -> None:
    sub = bench.subscribe("card_domestic")
    bench.sdk.subscription.pause(sub["id"], {"pause_at": "now"})
    bench.advance(to=sub["current_end"] + DAY)
    assert len(bench.invoices(sub["id"])) == 1
    back = bench.sdk.subscription.resume(sub["id"], {"resume_at": "now"})
    assert (back["status"], back["current_start"], back["remaining_count"]) == ("active", sub["current_end"], 11)
    bench.advance(to=back["charge_at"])
    assert bench.fetch(sub["id"])["paid_count"] == 2


def test_nobody_came_and_it_expired(bench: Bench) -> None:
    expiry = bench.now() + timedelta(hours=1) // timedelta(seconds=1)
    sub = bench.sdk.subscription.create({"plan_id": bench.plan()["id"], "total_count": 2, "expire_by": expiry})
    bench.advance(to=expiry)
    assert bench.fetch(sub["id"])["status"] == "expired"
    assert bench.events(sub["id"]) == []
    with pytest.raises(BadRequestError, match="not cancellable in expired status"):
        bench.sdk.subscription.cancel(sub["id"], {})


def test_a_revoked_upi_mandate_cancels(bench: Bench) -> None:
    sub = bench.subscribe("upi")
    bench.sim("POST", f"/subscriptions/{sub['id']}/customer", action="revoke")
    assert bench.fetch(sub["id"])["status"] == "cancelled"
    assert bench.events(sub["id"])[-1] == "cancelled"
