"""Answers that get lost, break, or come late, with the effect they had; lists that lag; what the ledger says of it."""

import time
import urllib.error

import pytest
import requests
from razorpay.errors import BadRequestError, ServerError

from tests.sandbox.razorpay.bench import Bench, until

LINK = {"amount": 118_000, "currency": "INR"}
ROUTE = "POST /v1/payment_links"


def made(bench: Bench, reference: str) -> int:
    found = bench.sdk.payment_link.all({"reference_id": reference})
    return len(found["payment_links"])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("order", "raised"),
    [
        ({"kind": "cut"}, requests.ConnectionError),
        ({"kind": "error", "status": 503}, ServerError),
        ({"kind": "html"}, requests.exceptions.JSONDecodeError),
        ({"kind": "throttle"}, BadRequestError),
        ({"kind": "slow", "delay_s": 2}, requests.Timeout),
    ],
)
def test_an_answer_that_breaks(bench: Bench, order: dict[str, object], raised: type[Exception], when: str) -> None:
    reference = f"{order['kind']}-{when}"
    bench.sim("POST", "/faults", route=ROUTE, when=when, **order)
    with pytest.raises(raised):
        bench.sdk.payment_link.create({**LINK, "reference_id": reference}, timeout=1)
    effect = when == "after"
    assert made(bench, reference) == (1 if effect else 0)
    if effect:
        with pytest.raises(BadRequestError, match="already exists"):
            bench.sdk.payment_link.create({**LINK, "reference_id": reference})
    assert [each["struck"] for each in bench.sim("GET", "/faults")["answers"]] == [1]
    if order["kind"] == "slow" and not effect:
        until(lambda: made(bench, reference) == 1)  # it takes effect after all, when nobody waits for it any more


def test_a_call_from_before_a_reset_has_no_effect_after_it(bench: Bench) -> None:
    bench.sim("POST", "/faults", route=ROUTE, kind="slow", when="before", delay_s=0.5)
    with pytest.raises(requests.Timeout):
        bench.sdk.payment_link.create({**LINK, "reference_id": "before"}, timeout=0.2)
    bench.sim("POST", "/reset")
    time.sleep(0.6)
    assert made(bench, "before") == 0


def test_a_fault_strikes_as_often_as_ordered(bench: Bench) -> None:
    bench.sim("POST", "/faults", route="GET *", kind="error", times=2, skip=1)
    sub = bench.sdk.plan.all
    sub()
    for _ in range(2):
        with pytest.raises(ServerError):
            sub()
    sub()
    statuses = [each["status"] for each in bench.sim("GET", "/ledger")["calls"]][-4:]
    assert statuses == [200, 500, 500, 200]


def test_a_list_that_lags_hides_what_a_fetch_shows(bench: Bench) -> None:
    bench.sim("POST", "/faults", route="GET /v1/subscriptions", kind="lag", delay_s=120, times=None)
    plan = bench.plan()["id"]
    sub = bench.sdk.subscription.create({"plan_id": plan, "total_count": 2})
    assert bench.sdk.subscription.all({"plan_id": plan})["items"] == []
    assert bench.fetch(sub["id"])["status"] == "created"
    bench.advance(seconds=121)
    assert bench.sdk.subscription.all({"plan_id": plan})["count"] == 1


def test_a_typo_in_a_fault_is_noticed(bench: Bench) -> None:
    with pytest.raises(urllib.error.HTTPError):
        bench.sim("POST", "/faults", route=ROUTE, kind="explode")
    with pytest.raises(urllib.error.HTTPError):
        bench.sim("POST", "/faults", route=ROUTE, kind="cut", tims=3)


def test_the_ledger_adds_up(bench: Bench) -> None:
    before = bench.sim("GET", "/ledger")["totals"]
    bench.subscribe("upi", amount=50_000)
    link = bench.sdk.payment_link.create(LINK)
    paid = bench.sim("POST", f"/payment_links/{link['id']}/pay", method="upi")["payment"]
    bench.sim("POST", f"/payments/{paid['id']}/refund", amount=8000)
    bench.sim("POST", "/settings", refund_fails=1)
    bench.sdk.payment.refund(paid["id"], {"amount": 1000})
    ledger = bench.sim("GET", "/ledger")
    assert ledger["totals"]["collected"] - before["collected"] == 168_000
    assert ledger["totals"]["refunded"] - before["refunded"] == 8000
    assert [(each["by"], each["status"]) for each in ledger["refunds"]][-2:] == [
        ("dashboard", "processed"),
        ("api", "failed"),
    ]
    assert bench.sdk.payment.fetch(paid["id"])["amount_refunded"] == 8000


def test_a_dispute_is_announced(bench: Bench) -> None:
    order = bench.sdk.order.create({"amount": 500, "currency": "INR"})
    payment = bench.sim("POST", f"/orders/{order['id']}/pay", method="card_domestic")
    dispute = bench.sim("POST", f"/payments/{payment['id']}/dispute")
    bench.sim("POST", f"/disputes/{dispute['id']}/close", status="lost")
    names = [each["event"] for each in bench.sim("GET", "/webhooks")["deliveries"]]
    assert names[-2:] == ["payment.dispute.created", "payment.dispute.lost"]
