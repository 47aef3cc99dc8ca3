"""The controls as a test holds them: `tests.simulated_razorpay`, the money, the deliveries, and a new beginning."""

import pytest

from tests.sandbox.razorpay.bench import Bench, Receiver, until
from tests.simulated_razorpay import KEY_ID, KEY_SECRET, WEBHOOK_SECRET, ControlRefused, Razorpay


@pytest.fixture
def bench(razorpay: Razorpay) -> Bench:
    return Bench(razorpay.env["RAZORPAY_BASE_URL"], KEY_ID, KEY_SECRET)


def created(bench: Bench, **more: object) -> str:
    """A subscription that nobody has authorised yet."""
    return str(bench.sdk.subscription.create({"plan_id": bench.plan(10_000)["id"], "total_count": 12, **more})["id"])


def test_money_is_told_by_payment(razorpay: Razorpay, bench: Bench) -> None:
    sub_id = created(bench)
    assert razorpay.authorise(sub_id, "upi", "insufficient_funds")["error"]["reason"] == "insufficient_funds"
    first = razorpay.authorise(sub_id, "card_domestic")["razorpay_payment_id"]
    link = bench.sdk.payment_link.create({"amount": 5000, "currency": "INR", "reference_id": "bill-2"})
    second = razorpay.pay_link(link["id"])["payment"]["id"]
    twice = razorpay.pay_link(link["id"], "card_domestic", late=True)["payment"]["id"]
    razorpay.settings(refund_fails=1)
    assert razorpay.refund_payment(second, 1000)["status"] == "failed"
    assert razorpay.refund_payment(second, 700)["status"] == "processed"
    razorpay.refund_payment(twice)
    dispute = razorpay.dispute(first, 10_000)
    razorpay.close_dispute(dispute["id"], "lost")

    told = razorpay.money()
    assert told["totals"] == {"collected": 20_000, "refunded": 5700, "kept": 14_300} == razorpay.ledger()["totals"]
    failed, paid, linked, late = told["payments"]
    assert (failed["collected"], failed["kept"], failed["status"]) == (0, 0, "failed")
    assert (paid["payment_id"], paid["kind"], paid["subscription_id"]) == (first, "authorisation", sub_id)
    assert paid["invoice_id"] == bench.invoices(sub_id)[0]["id"]
    assert paid["disputes"] == [{"id": dispute["id"], "status": "lost"}]
    assert (linked["payment_id"], linked["link_id"], linked["subscription_id"]) == (second, link["id"], None)
    assert (linked["collected"], linked["refunded"], linked["kept"], len(linked["refund_ids"])) == (5000, 700, 4300, 2)
    assert linked["order_id"] == late["order_id"] == bench.sdk.payment_link.fetch(link["id"])["order_id"]
    assert (late["payment_id"], late["status"], late["kept"]) == (twice, "refunded", 0)


def test_the_months_of_a_subscription_by_the_controls(razorpay: Razorpay, bench: Bench) -> None:
    sub_id = created(bench)
    razorpay.authorise(sub_id, "card_domestic", email="a@tenant.example")
    sub = bench.fetch(sub_id)
    assert (sub["status"], sub["customer_email"]) == ("active", "a@tenant.example")
    razorpay.outcomes(sub_id, ["insufficient_funds"] * 4)
    razorpay.advance(to=sub["current_end"])
    razorpay.advance(days=3)
    assert bench.fetch(sub_id)["status"] == "halted"
    assert razorpay.pay_invoice(bench.invoices(sub_id)[0]["id"])["status"] == "captured"
    assert razorpay.customer(sub_id, "pause")["status"] == "paused"
    assert razorpay.customer(sub_id, "resume")["status"] == "active"
    assert razorpay.change_method(sub_id, "card_international")["customer_id"].startswith("cust_")
    razorpay.customer(sub_id, "revoke")
    razorpay.advance(seconds=bench.fetch(sub_id)["current_end"] - razorpay.now())
    assert bench.fetch(sub_id)["status"] == "pending"
    with pytest.raises(ControlRefused, match="cannot be authorised in pending status") as refused:
        razorpay.authorise(sub_id)
    assert refused.value.status == 400


def test_deliveries_faults_and_replays(razorpay: Razorpay, bench: Bench) -> None:
    with Receiver() as receiver:
        razorpay.set_webhook(receiver.url)
        razorpay.fault(event="subscription.activated", kind="drop")
        razorpay.fault(route="GET /v1/subscriptions/:id", kind="error", times=None)
        sub_id = created(bench)
        razorpay.authorise(sub_id)
        razorpay.clear_faults()
        assert bench.fetch(sub_id)["status"] == "active"
        razorpay.drain()
        (dropped,) = razorpay.deliveries("subscription.activated")
        assert (dropped["state"], dropped["attempts"]) == ("dropped", [])
        razorpay.replay(dropped["event_id"])
        razorpay.drain()
        assert receiver.ids("subscription.activated") == [dropped["event_id"]]
        assert {each["state"] for each in razorpay.deliveries()} == {"delivered"}
        razorpay.set_webhook(secret="next")
        razorpay.set_webhook(enabled=False)
        bench.sdk.subscription.pause(sub_id, {"pause_at": "now"})
        assert razorpay.deliveries("subscription.paused")[0]["state"] == "lost"
        razorpay.set_webhook(enabled=True)
        bench.sdk.subscription.resume(sub_id, {"resume_at": "now"})
        razorpay.drain()
        head, body = receiver.got[-1]
        assert bench.sdk.utility.verify_webhook_signature(body.decode(), head["x-razorpay-signature"], "next")


def test_a_reset_forgets_everything(razorpay: Razorpay, bench: Bench) -> None:
    with Receiver() as receiver:
        razorpay.set_webhook(receiver.url, secret="rotated")
        receiver.statuses = [500] * 20
        razorpay.authorise(created(bench))
        razorpay.drain()
        razorpay.settings(expiry_lag_s=9)
        razorpay.fault(route="*", kind="throttle", times=None)
        receiver.late_s = 0.3
        razorpay.advance(days=400)
        until(lambda: any(each["state"] == "sending" for each in razorpay.deliveries()))
        razorpay.reset(webhook_url=receiver.url, start=1_800_000_000)
        count = len(receiver.got)
        receiver.statuses = []
        assert 1_800_000_000 <= razorpay.now() < 1_800_000_060
        empty = razorpay.ledger()
        assert not [name for name in ("payments", "subscriptions", "plans", "deliveries", "calls") if empty[name]]
        assert razorpay.settings()["expiry_lag_s"] == 0
        razorpay.authorise(created(bench))
        razorpay.drain()
        assert len(receiver.got) - count == len(razorpay.deliveries()) > 0
        for head, body in receiver.got[count:]:
            signature = head["x-razorpay-signature"]
            assert bench.sdk.utility.verify_webhook_signature(body.decode(), signature, WEBHOOK_SECRET)


def test_a_test_finds_it_empty_and_at_the_present(razorpay: Razorpay) -> None:
    assert razorpay.ledger()["payments"] == []
    assert razorpay.sim("GET", "/clock")["offset_ms"] == 0
    assert razorpay.sim("GET", "/webhooks")["endpoint"]["url"] is None
    assert razorpay.clock_file is not None
    assert razorpay.env["TEST_CLOCK_FILE"] == str(razorpay.clock_file)
    assert razorpay.clock_file.read_text() == "0"


def test_without_a_clock_file_time_can_be_stopped() -> None:
    with Razorpay(start=1_800_000_000) as alone:
        assert "TEST_CLOCK_FILE" not in alone.env
        alone.freeze()
        assert alone.now() == alone.now()
        alone.advance(days=1)
        assert alone.now() - 1_800_000_000 - 86_400 < 60
        alone.freeze(frozen=False)
