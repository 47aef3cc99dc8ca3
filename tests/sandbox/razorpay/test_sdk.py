"""Every method of the SDK that the product could use, unmodified, against the simulator."""

import secrets
import string
import urllib.error
import urllib.request
from typing import Any

import pytest
import razorpay
import requests
from razorpay.errors import BadRequestError, ServerError

from tests.sandbox.razorpay.bench import KEY_ID, KEY_SECRET, Bench

ID = "".join(secrets.choice(string.ascii_letters) for _ in range(14))


def raw(bench: Bench, method: str, path: str, key: str = KEY_SECRET, **more: Any) -> requests.Response:
    return requests.request(method, bench.url + path, auth=(KEY_ID, key), timeout=10, **more)


def test_customers(bench: Bench) -> None:
    body = {"name": "Nimbus Tools", "email": f"{ID}@nimbus.example", "contact": "+919812345670"}
    made = bench.sdk.customer.create(body)
    assert made["id"].startswith("cust_")
    assert (made["notes"], made["gstin"]) == ([], None)
    with pytest.raises(BadRequestError, match="already exists"):
        bench.sdk.customer.create(body)
    assert bench.sdk.customer.create(body | {"fail_existing": "0"})["id"] == made["id"]
    assert bench.sdk.customer.edit(made["id"], {"name": "Nimbus Two"})["name"] == "Nimbus Two"
    assert bench.sdk.customer.fetch(made["id"])["name"] == "Nimbus Two"
    assert bench.sdk.customer.all()["items"][0]["id"] == made["id"]


def test_plans_and_items(bench: Bench) -> None:
    plan = bench.plan()
    assert (plan["entity"], plan["notes"], plan["item"]["unit_amount"], plan["item"]["type"]) == (
        "plan",
        [],
        353_882,
        "plan",
    )
    assert bench.sdk.plan.fetch(plan["id"]) == plan
    assert bench.sdk.plan.all({"count": 1})["items"] == [plan]
    with pytest.raises(BadRequestError, match=r"at least INR 1\.00"):
        bench.plan(99)
    item = bench.sdk.item.create({"name": "Setup", "amount": 500, "currency": "INR"})
    assert bench.sdk.item.edit(item["id"], {"amount": 700})["amount"] == 700
    assert bench.sdk.item.fetch(item["id"])["amount"] == 700
    assert bench.sdk.item.all()["count"] == 1
    assert bench.sdk.item.delete(item["id"]) == []


def test_subscriptions(bench: Bench) -> None:
    sdk, plan = bench.sdk.subscription, bench.plan()
    made = sdk.create({"plan_id": plan["id"], "total_count": 12, "notes": {"intent": "i1"}})
    assert (made["status"], made["remaining_count"], made["notes"]) == ("created", 12, {"intent": "i1"})
    assert sdk.fetch(made["id"]) == made
    assert sdk.all({"plan_id": plan["id"]})["items"] == [made]
    assert bench.sdk.subscription.cancel(made["id"], {"cancel_at_cycle_end": 0})["status"] == "cancelled"
    with pytest.raises(BadRequestError, match="not cancellable in cancelled status"):
        sdk.cancel(made["id"], {})
    live = bench.subscribe("card_international")
    assert sdk.pause(live["id"], {"pause_at": "now"})["pause_initiated_by"] == "self"
    assert sdk.resume(live["id"], {"resume_at": "now"})["charge_at"] == live["current_end"]
    changed = sdk.edit(live["id"], {"quantity": 2, "schedule_change_at": "cycle_end"})
    assert (changed["quantity"], changed["has_scheduled_changes"]) == (1, True)
    assert sdk.pending_update(live["id"])["quantity"] == 2
    assert sdk.cancel_scheduled_changes(live["id"])["has_scheduled_changes"] is False
    with pytest.raises(BadRequestError, match="No Pending update"):
        sdk.cancel_scheduled_changes(live["id"])
    with pytest.raises(BadRequestError, match="Offer Not Found"):
        sdk.delete_offer(live["id"], f"offer_{ID}")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("upi", "Add-ons can't be added for Subscriptions when payment mode is upi"),
        ("card_domestic", "Addons can't be added for subscriptions when payment mode is domestic card"),
    ],
)
def test_india_takes_no_addons_and_no_updates(bench: Bench, method: str, said: str) -> None:
    sub = bench.subscribe(method)
    item = {"name": "Overage", "amount": 118_000, "currency": "INR"}
    with pytest.raises(BadRequestError, match=said):
        bench.sdk.subscription.createAddon(sub["id"], {"item": item})
    with pytest.raises(BadRequestError, match=r"payment mode is UPI|card mandate is applicable"):
        bench.sdk.subscription.edit(sub["id"], {"quantity": 2})


def test_what_would_be_prorated_waits_for_the_cycle_end(bench: Bench) -> None:
    edit, dearer = bench.sdk.subscription.edit, bench.plan(500_000)["id"]
    sub = bench.subscribe("card_international")
    for change in ({"quantity": 2}, {"plan_id": dearer}, {"plan_id": dearer, "schedule_change_at": "now"}):
        with pytest.raises(BadRequestError, match="Proration is not simulated: send schedule_change_at=cycle_end"):
            edit(sub["id"], change)
    assert bench.fetch(sub["id"]) == sub
    assert edit(sub["id"], {"remaining_count": 3})["remaining_count"] == 3
    edit(sub["id"], {"plan_id": dearer, "schedule_change_at": "cycle_end"})
    bench.advance(to=sub["current_end"])
    assert bench.invoices(sub["id"])[0]["amount"] == 500_000
    trial = bench.subscribe("card_international", start_at=bench.now() + 86_400)
    assert edit(trial["id"], {"quantity": 2})["quantity"] == 2


def test_addons(bench: Bench) -> None:
    sub = bench.subscribe("card_international")
    item = {"name": "Overage", "amount": 118_000, "currency": "INR"}
    made = bench.sdk.subscription.createAddon(sub["id"], {"item": item, "quantity": 2})
    assert (made["invoice_id"], made["subscription_id"], made["item"]["type"]) == (None, sub["id"], "addon")
    assert bench.sdk.addon.fetch(made["id"]) == made
    assert bench.sdk.addon.all()["items"][0] == made
    assert bench.sdk.addon.delete(made["id"]) == []
    with pytest.raises(BadRequestError, match="does not exist"):
        bench.sdk.addon.fetch(made["id"])


def test_invoices(bench: Bench) -> None:
    sdk = bench.sdk.invoice
    line = {"name": "Overage", "amount": 118_000, "currency": "INR"}
    draft = sdk.create({"type": "invoice", "draft": "1", "customer": {"name": "N"}, "line_items": [line]})
    assert draft["status"] == "draft"
    assert "subscription_id" not in draft
    assert sdk.edit(draft["id"], {"line_items": [line, line]})["amount"] == 236_000
    assert sdk.issue(draft["id"])["status"] == "issued"
    assert sdk.notify_by(draft["id"], "email") == {"success": True}
    with pytest.raises(BadRequestError, match="Operation not allowed for Invoice in issued status"):
        sdk.delete(draft["id"])
    bench.sim("POST", f"/invoices/{draft['id']}/pay", method="upi")
    paid = sdk.fetch(draft["id"])
    assert (paid["status"], paid["amount_paid"], paid["amount_due"]) == ("paid", 236_000, 0)
    other = sdk.create({"type": "invoice", "customer": {"name": "N"}, "line_items": [line]})
    assert sdk.cancel(other["id"])["status"] == "cancelled"
    third = sdk.create({"type": "invoice", "draft": "1", "customer": {"name": "N"}, "line_items": [line]})
    assert sdk.delete(third["id"]) == []
    assert {other["id"], draft["id"]} <= {each["id"] for each in sdk.all({"count": 100})["items"]}


def test_orders_payments_and_refunds(bench: Bench) -> None:
    sdk = bench.sdk
    body = {"amount": 118_000, "currency": "INR", "receipt": ID, "unique_receipt": True}
    order = sdk.order.create(body)
    assert sdk.order.create(body)["id"] == order["id"]
    assert sdk.order.edit(order["id"], {"notes": {"a": "b"}})["notes"] == {"a": "b"}
    payment = bench.sim("POST", f"/orders/{order['id']}/pay", method="card_domestic")
    assert (payment["fee"], payment["tax"], payment["captured"]) == (2784, 424, True)  # the documented sample's numbers
    assert sdk.order.fetch(order["id"])["status"] == "paid"
    assert sdk.order.payments(order["id"])["items"][0]["id"] == payment["id"]
    assert sdk.payment.fetch(payment["id"])["card"]["international"] is False
    assert sdk.payment.all({"count": 1})["items"][0]["id"] == payment["id"]
    with pytest.raises(BadRequestError, match="already been captured"):
        sdk.payment.capture(payment["id"], 118_000, {"currency": "INR"})
    head = {"X-Refund-Idempotency": f"key-{ID}"}
    refund = sdk.payment.refund(payment["id"], {"amount": 18_000}, headers=dict(head))
    assert sdk.payment.refund(payment["id"], {"amount": 18_000}, headers=dict(head))["id"] == refund["id"]
    other = raw(bench, "POST", f"/v1/payments/{payment['id']}/refund", json={"amount": 19_000}, headers=head)
    assert other.status_code == 409
    assert sdk.refund.fetch(refund["id"])["status"] == "processed"
    assert sdk.refund.all()["items"][0]["id"] == refund["id"]
    assert sdk.payment.fetch(payment["id"])["amount_refunded"] == 18_000
    with pytest.raises(BadRequestError, match="greater than amount captured"):
        sdk.payment.refund(payment["id"], {"amount": 100_001})
    sdk.payment.refund(payment["id"], {})
    with pytest.raises(BadRequestError, match="fully refunded already"):
        sdk.payment.refund(payment["id"], {"amount": 100})
    assert len(sdk.payment.fetch_multiple_refund(payment["id"])["items"]) == 2


def test_payment_links(bench: Bench) -> None:
    sdk, now = bench.sdk.payment_link, bench.now()
    body = {"amount": 118_000, "currency": "INR", "reference_id": f"r_{ID}", "customer": {"email": ""}}
    link = sdk.create(body)
    assert "entity" not in link
    assert (link["status"], link["cancelled_at"], link["payments"], link["notes"]) == ("created", 0, None, [])
    with pytest.raises(BadRequestError, match=f"payment link with given reference_id: r_{ID} already exists"):
        sdk.create(body)
    assert [each["id"] for each in sdk.all({"reference_id": f"r_{ID}"})["payment_links"]] == [link["id"]]
    assert sdk.notifyBy(link["id"], "email") == {"success": True}
    assert sdk.edit(link["id"], {"expire_by": now + 3600})["expire_by"] == now + 3600
    with pytest.raises(BadRequestError, match="atleast 15 minutes"):
        sdk.edit(link["id"], {"expire_by": now + 60})
    assert sdk.cancel(link["id"])["status"] == "cancelled"
    with pytest.raises(BadRequestError, match="already exists"):
        sdk.create(body)
    late = bench.sim("POST", f"/payment_links/{link['id']}/pay", method="upi", late=True)
    assert late["payment"]["status"] == "captured"
    assert sdk.fetch(link["id"])["status"] == "cancelled"


def test_a_link_is_paid_whole(bench: Bench) -> None:
    sdk, body = bench.sdk.payment_link, {"amount": 500, "currency": "INR", "reference_id": "whole"}
    with pytest.raises(BadRequestError, match="no partial payments"):
        sdk.create({**body, "accept_partial": True})
    link = sdk.create({**body, "accept_partial": False})
    with pytest.raises(BadRequestError, match="no partial payments"):
        sdk.edit(link["id"], {"accept_partial": True, "reference_id": "other"})
    assert sdk.fetch(link["id"]) == link


def test_a_link_that_two_people_pay_at_once_is_paid_twice(bench: Bench) -> None:
    link = bench.sdk.payment_link.create({"amount": 500, "currency": "INR"})
    bench.sim("POST", f"/payment_links/{link['id']}/pay", method="upi")
    bench.sim("POST", f"/payment_links/{link['id']}/pay", method="card_domestic", late=True)
    fetched = bench.sdk.payment_link.fetch(link["id"])
    assert (fetched["status"], fetched["amount_paid"], len(fetched["payments"])) == ("paid", 500, 2)
    assert bench.sdk.order.fetch(fetched["order_id"])["amount_due"] == 0


def test_an_expired_link_is_neither_paid_nor_cancelled(bench: Bench) -> None:
    link = bench.sdk.payment_link.create({"amount": 500, "currency": "INR", "expire_by": bench.now() + 1000})
    bench.advance(seconds=1001)
    fetched = bench.sdk.payment_link.fetch(link["id"])
    assert (fetched["status"], fetched["expired_at"]) == ("expired", link["expire_by"])
    with pytest.raises(BadRequestError, match="cannot cancel or expire an expired link"):
        bench.sdk.payment_link.cancel(link["id"])
    with pytest.raises(urllib.error.HTTPError):
        bench.sim("POST", f"/payment_links/{link['id']}/pay", method="upi")


def test_addresses_come_before_the_key_and_the_key_before_ids(bench: Bench) -> None:
    wrong = "wrong"
    for path in ("/v1/subscriptions/sub_short", "/v1/nonsense"):
        answer = raw(bench, "GET", path, wrong)
        assert (answer.status_code, answer.json()) == (404, {"message": "no Route matched with those values"})
    with pytest.raises(ServerError):
        bench.sdk.subscription.fetch("sub_short")
    answer = raw(bench, "GET", f"/v1/subscriptions/sub_{ID}", wrong)
    assert (answer.status_code, answer.json()["error"]["description"]) == (401, "Authentication failed")
    answer = raw(bench, "GET", f"/v1/subscriptions/sub_{ID}")
    assert answer.status_code == 400
    assert answer.json()["error"]["description"] == "The ID provided is invalid or could not be found."
    answer = raw(bench, "GET", f"/v1/payments/pay_{ID}")
    assert (answer.status_code, answer.json()["error"]["source"]) == (400, "internal")
    assert raw(bench, "DELETE", "/v1/plans").json()["error"]["source"] == "NA"
    with pytest.raises(BadRequestError, match="plan id field is required"):
        bench.sdk.subscription.create({"total_count": 1})
    with pytest.raises(BadRequestError, match=r"maximum total_count \(1200\)"):
        bench.sdk.subscription.create({"plan_id": bench.plan()["id"], "total_count": 1201})


def test_lists_are_pages_newest_first(bench: Bench) -> None:
    bench.advance(seconds=10)
    begin = bench.now()
    made = []
    for _ in range(12):
        made.append(bench.plan()["id"])
        bench.advance(seconds=1)
    newest = list(reversed(made))
    assert [each["id"] for each in bench.sdk.plan.all()["items"]] == newest[:10]
    assert [each["id"] for each in bench.sdk.plan.all({"skip": 3, "count": 2})["items"]] == newest[3:5]
    found = bench.sdk.plan.all({"from": begin, "to": bench.now(), "count": 100})
    assert (found["count"], [each["id"] for each in found["items"]]) == (12, newest)
    with pytest.raises(BadRequestError, match="100"):
        bench.sdk.plan.all({"count": 101})


def test_the_sdk_checks_the_fields_of_checkout_and_of_the_link(bench: Bench) -> None:
    sub = bench.sdk.subscription.create({"plan_id": bench.plan()["id"], "total_count": 2})
    fields = bench.sim("POST", f"/subscriptions/{sub['id']}/authorise", method="upi")
    client = razorpay.Client(auth=(KEY_ID, KEY_SECRET))
    assert client.utility.verify_subscription_payment_signature(dict(fields)) is True
    link = bench.sdk.payment_link.create({"amount": 500, "currency": "INR", "reference_id": f"s_{ID}"})
    back = bench.sim("POST", f"/payment_links/{link['id']}/pay", method="upi")["callback"]
    names = ("payment_link_id", "payment_link_reference_id", "payment_link_status")
    renamed = {name: back[f"razorpay_{name}"] for name in names}
    kept = {name: back[name] for name in ("razorpay_payment_id", "razorpay_signature")}
    assert client.utility.verify_payment_link_signature({**renamed, **kept}) is True
