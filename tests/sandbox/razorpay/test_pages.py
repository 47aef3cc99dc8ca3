"""The pages behind `short_url`: a payer chooses how to pay and how it goes, and is led back."""

import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime

import pytest
import razorpay

from sandbox.razorpay.calendar import IST
from tests.sandbox.razorpay.bench import KEY_ID, KEY_SECRET, Bench


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_a_payer_subscribes_after_a_failure(bench: Bench) -> None:
    sub = bench.sdk.subscription.create({"plan_id": bench.plan()["id"], "total_count": 2})
    assert sub["short_url"].startswith(f"{bench.url}/rzp/")
    assert "₹ 3538.82" in read(sub["short_url"])
    _, text, _ = bench.post_form(sub["short_url"], method="upi", outcome="insufficient_funds")
    assert "insufficient funds" in text
    assert bench.fetch(sub["id"])["status"] == "created"
    _, text, _ = bench.post_form(sub["short_url"], method="upi", outcome="ok")
    assert "id='state'>paid" in text
    assert bench.fetch(sub["id"])["status"] == "active"
    assert "The subscription is active." in read(sub["short_url"])


def test_a_payer_pays_a_link_and_is_led_back(bench: Bench) -> None:
    back = "http://127.0.0.1:9/return?x=1"
    body = {"amount": 118_000, "currency": "INR", "reference_id": "page-1", "callback_url": back}
    link = bench.sdk.payment_link.create({**body, "callback_method": "get", "description": "<b>November</b>"})
    assert "&lt;b&gt;November" in read(link["short_url"])
    status, _, location = bench.post_form(link["short_url"], method="card_domestic", outcome="ok")
    assert status == 303
    assert location.startswith(f"{back}&razorpay_payment_id=pay_")
    given = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))
    parts = ("payment_link_id", "payment_link_reference_id", "payment_link_status")
    fields = {name: given[f"razorpay_{name}"] for name in parts}
    fields |= {name: given[name] for name in ("razorpay_payment_id", "razorpay_signature")}
    assert razorpay.Client(auth=(KEY_ID, KEY_SECRET)).utility.verify_payment_link_signature(fields) is True
    assert bench.sdk.payment_link.fetch(link["id"])["payments"][0]["payment_id"] == given["razorpay_payment_id"]
    status, text, _ = bench.post_form(link["short_url"], method="card_domestic", outcome="ok")
    assert (status, "This payment link is paid." in text) == (400, True)


def test_a_payer_pays_an_open_invoice(bench: Bench) -> None:
    sub = bench.subscribe("card_domestic")
    bench.sim("POST", f"/subscriptions/{sub['id']}/outcomes", next=["insufficient_funds"])
    bench.advance(to=sub["current_end"])
    invoice = bench.invoices(sub["id"])[0]
    bench.post_form(invoice["short_url"], method="upi", outcome="ok")
    assert bench.sdk.invoice.fetch(invoice["id"])["status"] == "paid"
    assert bench.fetch(sub["id"])["status"] == "active"


def test_a_payer_changes_the_card_of_a_pending_subscription(bench: Bench) -> None:
    sub = bench.subscribe("card_domestic")
    bench.sim("POST", f"/subscriptions/{sub['id']}/outcomes", next=["insufficient_funds"])
    bench.advance(to=sub["current_end"])
    assert "The subscription is pending." in read(sub["short_url"])
    bench.post_form(sub["short_url"], method="upi", outcome="ok")
    fetched = bench.fetch(sub["id"])
    assert (fetched["status"], fetched["payment_method"]) == ("active", "upi")


def test_the_front_page_leads_everywhere_and_lets_time_pass(bench: Bench) -> None:
    sub = bench.subscribe("upi", amount=353_882)
    link = bench.sdk.payment_link.create({"amount": 500, "currency": "INR", "description": "<i>December</i>"})
    page = read(bench.url)
    assert f"<li><a href='{urllib.parse.urlsplit(link['short_url']).path}'>Payment</a>" in page
    assert urllib.parse.urlsplit(sub["short_url"]).path in page
    assert "&lt;i&gt;December" in page
    assert f"{datetime.fromtimestamp(bench.now(), IST):%d %B %Y}" in page
    status, _, location = bench.post_form(bench.url, days="31")
    assert (status, location) == (303, "/")
    assert bench.fetch(sub["id"])["paid_count"] == 2
    for nonsense in ("-1", "1e9", "1000"):
        before = bench.now()
        bench.post_form(bench.url, days=nonsense)
        assert before <= bench.now() < before + 60


def test_there_is_no_such_page(bench: Bench) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(f"{bench.url}/rzp/nothing0")
