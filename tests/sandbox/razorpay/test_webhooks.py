"""Webhooks: real headers, the SDK's own check, the ladder, an endpoint that is given up, and ordered trouble."""

import json

import pytest
from razorpay.errors import SignatureVerificationError

from sandbox.razorpay.authorisation import signed
from sandbox.razorpay.deliveries import LADDER_S
from tests.sandbox.razorpay.bench import DAY, WEBHOOK_SECRET, Bench, Receiver, until


def drain(bench: Bench) -> None:
    assert bench.sim("POST", "/webhooks/drain", timeout_s=10) == {"left": 0}


def delivery(bench: Bench, name: str) -> dict[str, object]:
    """The newest delivery of an event."""
    found: list[dict[str, object]] = bench.sim("GET", "/webhooks")["deliveries"]
    return next(each for each in reversed(found) if each["event"] == name)


def test_every_event_is_signed_and_says_who_it_is(bench: Bench, receiver: Receiver) -> None:
    bench.subscribe("upi")
    drain(bench)
    wanted = {"payment.authorized", "payment.captured", "order.paid", "invoice.paid"}
    wanted |= {f"subscription.{name}" for name in ("authenticated", "activated", "charged")}
    assert set(receiver.names()) == wanted
    for head, body in receiver.got:
        assert bench.sdk.utility.verify_webhook_signature(body.decode(), head["x-razorpay-signature"], WEBHOOK_SECRET)
        assert head["user-agent"] == "Razorpay-Webhook/v1"
        assert head["x-razorpay-event-id"] == head["request-id"]
        assert len(head["request-id"]) == 14
        event = json.loads(body)
        assert body == json.dumps(event, separators=(",", ":")).encode()
        assert event["contains"] == list(event["payload"])
        captured = event["payload"].get("payment", {}).get("entity", {}).get("captured")
        if event["event"] == "subscription.charged":
            assert captured == "1"
        elif event["event"] == "payment.captured":
            assert captured is True
    assert len({head["request-id"] for head, _ in receiver.got}) == len(receiver.got)


def test_a_refusal_is_tried_again_with_the_same_id_down_the_ladder(bench: Bench, receiver: Receiver) -> None:
    sub = bench.subscribe("card_domestic")
    drain(bench)
    receiver.got.clear()
    receiver.statuses = [500, 401, 302]
    bench.sdk.subscription.cancel(sub["id"], {})
    for seconds in (1, 7, 20):
        bench.advance(seconds=seconds)
        drain(bench)
    assert len(receiver.ids("subscription.cancelled")) == 4
    assert len(set(receiver.ids("subscription.cancelled"))) == 1
    assert len({body for head, body in receiver.got}) == 1
    assert delivery(bench, "subscription.cancelled")["state"] == "delivered"


def test_sixteen_deliveries_and_no_more(bench: Bench, receiver: Receiver) -> None:
    sub = bench.subscribe("card_domestic")
    drain(bench)
    receiver.statuses = [500] * 100
    bench.sdk.subscription.cancel(sub["id"], {})
    drain(bench)
    bench.advance(seconds=int(LADDER_S[-1]) + 60)
    drain(bench)
    assert len(receiver.ids("subscription.cancelled")) == 16
    assert delivery(bench, "subscription.cancelled")["state"] == "exhausted"


@pytest.mark.slow
def test_an_endpoint_that_fails_for_a_day_is_disabled_and_loses_events(bench: Bench, receiver: Receiver) -> None:
    receiver.statuses = [503] * 1000
    bench.subscribe("card_domestic")
    drain(bench)
    bench.advance(seconds=DAY + 60)
    drain(bench)
    bench.subscribe("card_domestic")
    drain(bench)
    state = bench.sim("GET", "/webhooks")
    assert state["endpoint"]["enabled"] is False
    count = len(receiver.got)
    sub = bench.subscribe("card_domestic")
    assert delivery(bench, "subscription.charged")["state"] == "lost"
    receiver.statuses.clear()
    bench.sim("POST", "/webhooks", enabled=True)
    drain(bench)
    assert len(receiver.got) == count
    bench.sdk.subscription.cancel(sub["id"], {})
    drain(bench)
    assert receiver.names()[count:] == ["subscription.cancelled"]


def test_too_slow_is_a_failure(bench: Bench, receiver: Receiver) -> None:
    sub = bench.subscribe("card_domestic")
    drain(bench)
    bench.sim("POST", "/webhooks", timeout_s=0.2)
    receiver.statuses = [0]
    bench.sdk.subscription.cancel(sub["id"], {})
    until(lambda: len(receiver.ids("subscription.cancelled")) >= 2)
    drain(bench)
    bench.sim("POST", "/webhooks", timeout_s=5)
    attempts = delivery(bench, "subscription.cancelled")["attempts"]
    assert isinstance(attempts, list)
    assert [each["error"] for each in attempts] == ["timeout", None]


def test_retries_keep_the_secret_of_their_event(bench: Bench, receiver: Receiver) -> None:
    sub = bench.subscribe("card_domestic")
    drain(bench)
    receiver.statuses = [500]
    bench.sim("POST", "/clock", frozen=True)
    bench.sdk.subscription.pause(sub["id"], {"pause_at": "now"})
    until(lambda: "subscription.paused" in receiver.names())
    bench.sim("POST", "/webhooks", secret="rotated")
    bench.sdk.subscription.resume(sub["id"], {"resume_at": "now"})
    bench.advance(seconds=1)
    until(lambda: receiver.names().count("subscription.paused") == 2)
    drain(bench)
    bench.sim("POST", "/clock", frozen=False)
    check = bench.sdk.utility.verify_webhook_signature
    bench.sim("POST", "/webhooks", secret=WEBHOOK_SECRET)
    for head, body in receiver.got:
        paused = b"subscription.resumed" not in body
        secret = WEBHOOK_SECRET if paused else "rotated"
        assert check(body.decode(), head["x-razorpay-signature"], secret)


def test_trouble_that_was_ordered(bench: Bench, receiver: Receiver) -> None:
    sub = bench.subscribe("card_domestic")
    drain(bench)
    receiver.got.clear()
    orders = [
        {"event": "subscription.paused", "kind": "duplicate", "copies": 3},
        {"event": "subscription.resumed", "kind": "reorder"},
        {"event": "subscription.cancelled", "kind": "old_secret"},
    ]
    bench.sim("POST", "/faults", faults=orders)
    bench.sdk.subscription.pause(sub["id"], {"pause_at": "now"})
    drain(bench)
    assert len(receiver.ids("subscription.paused")) == 4
    assert len(set(receiver.ids("subscription.paused"))) == 1
    bench.sdk.subscription.resume(sub["id"], {"resume_at": "now"})
    bench.sdk.subscription.cancel(sub["id"], {})
    until(lambda: "subscription.resumed" in receiver.names())
    assert receiver.names()[4:] == ["subscription.cancelled", "subscription.resumed"]
    head, body = receiver.got[4]
    with pytest.raises(SignatureVerificationError):
        bench.sdk.utility.verify_webhook_signature(body.decode(), head["x-razorpay-signature"], WEBHOOK_SECRET)


def test_dropped_delayed_and_replayed(bench: Bench, receiver: Receiver) -> None:
    sub = bench.subscribe("card_domestic")
    drain(bench)
    receiver.got.clear()
    orders = [
        {"event": "subscription.paused", "kind": "drop"},
        {"event": "subscription.resumed", "kind": "delay", "delay_s": 3600},
    ]
    bench.sim("POST", "/faults", faults=orders)
    bench.sdk.subscription.pause(sub["id"], {"pause_at": "now"})
    bench.sdk.subscription.resume(sub["id"], {"resume_at": "now"})
    drain(bench)
    assert receiver.got == []
    bench.advance(seconds=3601)
    drain(bench)
    assert receiver.names() == ["subscription.resumed"]
    bench.sim("POST", "/webhooks/replay", event_id=delivery(bench, "subscription.paused")["event_id"])
    drain(bench)
    assert receiver.names() == ["subscription.resumed", "subscription.paused"]


def test_real_deliveries_for_indian_cards_had_no_card(bench: Bench) -> None:
    for shown in (True, False):
        bench.sim("POST", "/settings", indian_cards_in_events=shown)
        bench.subscribe("card_domestic")
        event = json.loads(str(delivery(bench, "subscription.charged")["body"]))
        assert ("card" in event["payload"]["payment"]["entity"]) is shown
        assert event["payload"]["payment"]["entity"]["card_id"].startswith("card_")
    bench.sim("POST", "/settings", indian_cards_in_events=True)


def test_the_facts_own_vector(bench: Bench) -> None:
    body = '{"entity":"event","account_id":"acc_T7mQx2LdVb9KcA","event":"subscription.activated"}'
    vector = "749a8ba3e78a242468177b8106de0ed54e201deaa6f36c60ddd171eafbb9622e"
    assert bench.sdk.utility.verify_webhook_signature(body, vector, WEBHOOK_SECRET)
    assert signed("key_secret_local", "pay_TmA4kQ8sLw2ZxR", "sub_TmA1c9RkVe7HbN") == (
        "1003f16477202eec3051113f62bfcc303de8199898434e2645001b60ef2b60ac"
    )
