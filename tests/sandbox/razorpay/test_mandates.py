"""Recurring Payments: registration, token, debits with notices, and every way in which they end."""

import json

import pytest
import requests
from razorpay.errors import BadRequestError, ServerError

from tests.sandbox.razorpay.bench import KEY_SECRET, Bench, Json, Receiver, until
from tests.sandbox.razorpay.mandates import MAX, NOTICE_S, RETRY_S, body, debit, mandate, registration


def events(bench: Bench, *kinds: str, since: int = 0) -> list[str]:
    """The names of these kinds of events, in the order they happened."""
    found = bench.sim("GET", "/webhooks")["deliveries"][since:]
    return [each["event"] for each in found if each["event"].startswith(kinds)]


def count(bench: Bench) -> int:
    return len(bench.sim("GET", "/webhooks")["deliveries"])


def reason(bench: Bench, key: str) -> tuple[str, str | None]:
    paid = bench.sdk.payment.fetch(key)
    return paid["status"], paid["error_reason"]


def test_a_registration_link_is_an_invoice_that_waits(bench: Bench) -> None:
    made = registration(bench)
    assert (made["entity"], made["type"], made["status"], made["amount"]) == ("invoice", "link", "issued", 100)
    assert (made["line_items"], made["payment_id"], made["invoice_number"]) == ([], None, made["receipt"])
    assert made["customer_details"]["contact"] == "+919812345670"
    assert bench.sdk.invoice.fetch(made["id"]) == made
    assert [each["id"] for each in bench.sdk.invoice.all({"receipt": made["receipt"]})["items"]] == [made["id"]]
    terms = bench.sdk.order.fetch(made["order_id"])["token"]
    assert (terms["method"], terms["max_amount"], terms["frequency"]) == ("upi", MAX, "as_presented")
    assert bench.sdk.token.all(made["customer_id"])["items"] == []
    assert bench.sdk.invoice.cancel(made["id"])["status"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"customer": {"name": "Nimbus", "email": "a@b.example"}}, "contact field is required"),
        ({"currency": "USD"}, "currency should be INR"),
        ({"amount": 99}, r"at least INR 1\.00"),
        ({"receipt": "r" * 41}, "greater than 40"),
        ({"subscription_registration": {"method": "upi", "max_amount": 10_000_000, "frequency": "monthly"}}, "9999900"),
        ({"subscription_registration": {"method": "upi", "max_amount": 500}}, "frequency field is required"),
        ({"subscription_registration": {"method": "cash", "max_amount": 500}}, "method is invalid"),
    ],
)
def test_what_a_registration_refuses(bench: Bench, change: Json, said: str) -> None:
    whole = {
        "customer": {"name": "Nimbus", "email": "a@b.example", "contact": "+919812345670"},
        "type": "link",
        "amount": 100,
        "currency": "INR",
        "description": "Usage",
        "subscription_registration": {"method": "upi", "max_amount": 500, "frequency": "as_presented"},
    }
    with pytest.raises(BadRequestError, match=said):
        bench.sdk.registration_link.create({**whole, **change})


def test_authorised_it_has_a_token(bench: Bench) -> None:
    made, before = registration(bench), count(bench)
    paid = bench.sim("POST", f"/registrations/{made['id']}/authorise", method="upi")
    assert (paid["status"], paid["invoice_id"], paid["customer_id"]) == ("captured", made["id"], made["customer_id"])
    assert (paid["amount"], paid["notes"]) == (100, made["notes"])
    token = bench.sdk.token.fetch(made["customer_id"], paid["token_id"])
    assert token == paid["token"] == bench.sdk.token.all(made["customer_id"])["items"][0]
    assert token["recurring_details"] == {"status": "confirmed", "failure_reason": None}
    assert (token["method"], token["max_amount"], token["vpa"]["handle"]) == ("upi", MAX, "exampleupi")
    assert not {"customer_id", "order_id", "notes"} & token.keys()  # nothing leads from the event to its mandate
    done = bench.sdk.invoice.fetch(made["id"])
    assert (done["status"], done["payment_id"]) == ("paid", paid["id"])
    assert bench.sdk.payment.fetch(paid["id"])["token_id"] == token["id"]
    assert events(bench, "", since=before) == [
        "payment.authorized", "payment.captured", "order.paid", "invoice.paid", "token.confirmed",
    ]  # fmt: skip
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/registrations/{made['id']}/authorise", method="upi")


def test_a_registration_that_fails_can_be_tried_again_and_one_that_the_bank_rejects_is_refunded(bench: Bench) -> None:
    made = registration(bench)
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/registrations/{made['id']}/authorise", method="card_domestic")
    failed = bench.sim("POST", f"/registrations/{made['id']}/authorise", method="upi", outcome="incorrect_pin")
    assert (failed["status"], failed["token"]) == ("failed", None)
    before = count(bench)
    paid = bench.sim("POST", f"/registrations/{made['id']}/authorise", method="upi", answer="rejected")
    assert paid["token"]["recurring_details"]["status"] == "rejected"
    assert bench.sdk.payment.fetch(paid["id"])["status"] == "refunded"
    assert events(bench, "token.", since=before) == ["token.rejected"]
    order = bench.sdk.order.create({"amount": 500, "currency": "INR"})
    with pytest.raises(BadRequestError, match="Invalid Token"):
        bench.sdk.payment.createRecurring(body(paid, order))


def test_a_link_that_was_closed_can_be_authorised_by_one_who_was_on_its_page(bench: Bench) -> None:
    made = registration(bench)
    bench.advance(to=made["expire_by"])
    assert bench.sdk.invoice.fetch(made["id"])["status"] == "expired"
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/registrations/{made['id']}/authorise", method="upi")
    paid = bench.sim("POST", f"/registrations/{made['id']}/authorise", method="upi", late=True)
    assert paid["token"]["recurring_details"]["status"] == "confirmed"
    assert bench.sdk.invoice.fetch(made["id"])["status"] == "expired"
    assert bench.sdk.invoice.fetch(made["id"])["payment_id"] is None
    assert bench.sdk.order.payments(made["order_id"])["items"][0]["token_id"] == paid["token_id"]


def test_an_emandate_is_answered_by_the_bank_a_day_later(bench: Bench) -> None:
    paid = mandate(bench, method="emandate")
    assert paid["token"]["recurring_details"]["status"] == "initiated"
    bench.advance(days=1)
    token = bench.sdk.token.fetch(paid["customer_id"], paid["token_id"])
    assert token["recurring_details"]["status"] == "confirmed"


def test_the_page_of_a_registration_offers_its_method_only(bench: Bench) -> None:
    made = registration(bench, method="card")
    _, page, _ = bench.post_form(made["short_url"], method="upi", outcome="ok")
    assert "The mandate is by card" in page
    _, page, _ = bench.post_form(made["short_url"], method="card_domestic", outcome="ok")
    assert "Thank you" in page
    token = bench.sdk.token.all(made["customer_id"])["items"][0]
    assert (token["method"], token["card"]["international"]) == ("card", False)


def test_its_page_becomes_the_payers_app(bench: Bench) -> None:
    made = registration(bench)
    bench.post_form(made["short_url"], method="upi", outcome="ok")
    paid = bench.sdk.order.payments(made["order_id"])["items"][0]
    key, other = debit(bench, paid), debit(bench, paid, 4_200)
    page = requests.get(made["short_url"], timeout=10).text
    assert "The mandate is confirmed" in page
    assert "₹ 1180.00 will be debited on" in page
    status, _, led = bench.post_form(made["short_url"], action=f"decline {key}")
    assert (status, led) == (303, made["short_url"].removeprefix(bench.url))
    assert reason(bench, key) == ("failed", "payment_declined")
    for action, said in (("pause", "paused"), ("resume", "confirmed"), ("cancel", "cancelled")):
        bench.post_form(made["short_url"], action=action)
        assert f"The mandate is {said}" in requests.get(made["short_url"], timeout=10).text
    assert bench.post_form(made["short_url"], action=f"decline {key}")[0] == 400
    foreign = mandate(bench)
    assert bench.post_form(registration(bench)["short_url"], action="cancel")[0] == 400
    assert bench.post_form(made["short_url"], action=f"decline {debit(bench, foreign)}")[0] == 400
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, other) == ("failed", "mandate_cancelled")


def test_checkout_of_an_order_with_a_mandate_makes_a_token(bench: Bench) -> None:
    customer = bench.sdk.customer.create({"name": "Nimbus Two", "email": "two@nimbus.example", "contact": "+9112345"})
    asked = {"amount": 100, "currency": "INR", "customer_id": customer["id"], "method": "upi"}
    terms = {"max_amount": 5000, "frequency": "as_presented", "expire_at": bench.now() + 1000}
    order = bench.sdk.order.create({**asked, "token": terms})
    assert order["token"]["max_amount"] == 5000
    paid = bench.sim("POST", f"/orders/{order['id']}/pay", method="upi")
    assert paid["token"]["expired_at"] == terms["expire_at"]
    with pytest.raises(BadRequestError, match="cannot be greater than the token max amount"):
        bench.sdk.order.create({**asked, "amount": 5001, "token": terms})
    bench.advance(seconds=1001)
    assert bench.sdk.token.all(customer["id"])["items"] == []


def test_a_debit_follows_its_notice_by_25_hours(bench: Bench) -> None:
    paid = mandate(bench)
    before = count(bench)
    key = debit(bench, paid)
    order_id = bench.sdk.payment.fetch(key)["order_id"]
    assert bench.sdk.order.fetch(order_id)["status"] == "attempted"
    bench.advance(seconds=NOTICE_S - 60)
    assert reason(bench, key) == ("created", None)
    assert events(bench, "", since=before) == []
    bench.advance(seconds=61)
    done = bench.sdk.payment.fetch(key)
    assert (done["status"], done["amount"], done["token_id"]) == ("captured", 118_000, paid["token_id"])
    assert (done["description"], done["notes"]["bill"][:5]) == ("Usage of November", "bill_")
    assert bench.sdk.order.fetch(order_id)["status"] == "paid"
    assert events(bench, "", since=before) == ["payment.authorized", "payment.captured", "order.paid"]
    row = next(each for each in bench.sim("GET", "/money")["payments"] if each["payment_id"] == key)
    assert (row["kind"], row["kept"], row["token_id"]) == ("recurring", 118_000, paid["token_id"])
    with pytest.raises(BadRequestError, match="Order already paid"):
        bench.sdk.payment.createRecurring(body(paid, bench.sdk.order.fetch(order_id)))


def test_a_month_takes_as_many_debits_as_are_presented(bench: Bench) -> None:
    paid = mandate(bench)
    keys = [debit(bench, paid, 50_000 + number) for number in range(3)]
    bench.advance(seconds=NOTICE_S + 1)
    assert [reason(bench, key)[0] for key in keys] == ["captured"] * 3


def test_a_monthly_mandate_takes_one(bench: Bench) -> None:
    paid = mandate(bench, frequency="monthly")
    first, second = debit(bench, paid), debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, first)[0] == "captured"
    assert reason(bench, second) == ("failed", "mandate_current_cycle_allowed_debit_exceeds")
    bench.advance(days=31)
    third = debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, third)[0] == "captured"


def test_three_retries_then_it_failed_for_good(bench: Bench) -> None:
    paid, before = mandate(bench), count(bench)
    token = paid["token_id"]
    bench.sim("POST", f"/tokens/{token}/outcomes", next=["insufficient_funds", "bank_technical_error", "ok"])
    saved = debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 2 * RETRY_S - 5)
    assert reason(bench, saved) == ("created", None)
    bench.advance(seconds=10)
    assert reason(bench, saved) == ("captured", None)
    bench.sim("POST", f"/tokens/{token}/outcomes", next=["insufficient_funds"] * 4)
    lost = debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 3 * RETRY_S - 5)
    assert reason(bench, lost) == ("created", None)
    bench.advance(seconds=10)
    assert reason(bench, lost) == ("failed", "insufficient_funds")
    assert events(bench, "payment.failed", since=before) == ["payment.failed"]  # one for the payment, not for each try


def test_what_needs_another_mandate_is_not_retried(bench: Bench) -> None:
    paid = mandate(bench)
    bench.sim("POST", f"/tokens/{paid['token_id']}/outcomes", next=["debit_declined"])
    key = debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, key) == ("failed", "debit_declined")


def test_a_debit_that_failed_is_captured_after_all(bench: Bench) -> None:
    paid, before = mandate(bench), count(bench)
    bench.sim("POST", f"/tokens/{paid['token_id']}/outcomes", next=["late", "debit_declined"])
    key, other = debit(bench, paid), debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 60)
    assert reason(bench, key) == ("failed", "payment_timed_out")
    bench.advance(seconds=6 * 3600)
    assert reason(bench, key) == ("captured", None)
    assert reason(bench, other) == ("failed", "debit_declined")
    assert bench.sim("POST", f"/payments/{other}/authorise_late")["status"] == "captured"
    names = events(bench, "payment.", since=before)
    assert sorted(names) == ["payment.authorized"] * 2 + ["payment.captured"] * 2 + ["payment.failed"] * 2
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/payments/{other}/authorise_late")


def test_a_customer_opts_out_of_one_debit_and_keeps_the_mandate(bench: Bench) -> None:
    paid = mandate(bench)
    key, other = debit(bench, paid), debit(bench, paid)
    bench.advance(seconds=3600)
    assert bench.sim("POST", f"/payments/{key}/opt_out")["error_reason"] == "payment_declined"
    bench.advance(seconds=NOTICE_S)
    assert (reason(bench, key)[0], reason(bench, other)[0]) == ("failed", "captured")
    shown = next(each for each in bench.sim("GET", "/ledger")["debits"] if each["payment_id"] == key)
    assert (shown["status"], shown["tries"], shown["due_at"]) == ("failed", 0, None)
    assert shown["opted_out_at"] is not None
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/payments/{key}/opt_out")


def test_a_mandate_that_is_cancelled_fails_its_debit_and_takes_no_other(bench: Bench) -> None:
    paid, before = mandate(bench), count(bench)
    key = debit(bench, paid)
    bench.sim("POST", f"/tokens/{paid['token_id']}/customer", action="cancel")
    token = bench.sdk.token.fetch(paid["customer_id"], paid["token_id"])
    assert token["recurring_details"]["status"] == "cancelled"
    with pytest.raises(BadRequestError, match="Invalid Token"):
        debit(bench, paid)
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, key) == ("failed", "mandate_cancelled")
    assert events(bench, "token.", since=before) == ["token.cancelled"]


def test_the_merchant_cancels_with_put_and_delete_only_forgets(bench: Bench) -> None:
    paid = mandate(bench)
    assert bench.sdk.token.cancel(paid["customer_id"], paid["token_id"]) == {"status": "cancellation_initiated"}
    with pytest.raises(BadRequestError, match="cancelled in cancelled status"):
        bench.sdk.token.cancel(paid["customer_id"], paid["token_id"])
    other = mandate(bench)
    key = debit(bench, other)
    assert bench.sdk.token.delete(other["customer_id"], other["token_id"]) == {"deleted": True}
    with pytest.raises(BadRequestError, match="does not exist"):
        bench.sdk.token.fetch(other["customer_id"], other["token_id"])
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, key)[0] == "captured"  # the mandate is still the bank's
    with pytest.raises(BadRequestError, match="does not exist"):
        bench.sdk.token.fetch(paid["customer_id"], other["token_id"])


def test_a_pause_is_waited_out_by_the_retries(bench: Bench) -> None:
    paid, before = mandate(bench), count(bench)
    key = debit(bench, paid)
    bench.sim("POST", f"/tokens/{paid['token_id']}/customer", action="pause")
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, key) == ("created", None)
    bench.sim("POST", f"/tokens/{paid['token_id']}/customer", action="resume")
    bench.advance(seconds=RETRY_S)
    assert reason(bench, key)[0] == "captured"
    assert events(bench, "token.", since=before) == ["token.paused", "token.confirmed"]


def test_a_debit_has_two_bounds(bench: Bench) -> None:
    paid = mandate(bench, most=2_000_000)
    order = bench.sdk.order.create({"amount": 2_000_001, "currency": "INR"})
    with pytest.raises(BadRequestError, match="Amount exceeds maximum amount allowed"):
        bench.sdk.payment.createRecurring(body(paid, order))
    inside, above = debit(bench, paid, MAX), debit(bench, paid, MAX + 1)
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, inside)[0] == "captured"
    assert reason(bench, above) == ("failed", "mandate_debit_beyond_psp_amount_cap")
    card = mandate(bench, method="card", by="card_domestic", most=2_000_000)
    big = debit(bench, card, MAX + 1)
    bench.advance(seconds=36 * 3600 + 1)
    assert reason(bench, big) == ("failed", "transaction_limit_exceeded")


def test_the_notice_in_a_step_of_its_own_has_no_retries(bench: Bench) -> None:
    paid = mandate(bench)
    after = bench.now() + 2 * 86_400
    bench.sim("POST", f"/tokens/{paid['token_id']}/outcomes", next=["insufficient_funds"])
    key = debit(bench, paid, notification={"token_id": paid["token_id"], "payment_after": after})
    order = bench.sdk.order.fetch(bench.sdk.payment.fetch(key)["order_id"])
    assert (order["notification"]["payment_after"], order["notification"]["id"][:13]) == (after, "notification_")
    bench.advance(to=after - 60)
    assert reason(bench, key) == ("created", None)
    bench.advance(to=after + 1)
    assert reason(bench, key) == ("failed", "insufficient_funds")


def test_the_amount_and_the_owner_are_checked(bench: Bench) -> None:
    paid, other = mandate(bench), mandate(bench)
    order = bench.sdk.order.create({"amount": 500, "currency": "INR"})
    wrong: list[Json] = [{"amount": 501}, {"customer_id": other["customer_id"]}, {"recurring": False}, {"contact": ""}]
    for change in wrong:
        with pytest.raises(BadRequestError):
            bench.sdk.payment.createRecurring({**body(paid, order), **change})
    assert bench.sdk.order.payments(order["id"])["items"] == []


def test_a_lost_answer_leaves_the_debit_and_its_repetition_would_be_another(bench: Bench) -> None:
    paid = mandate(bench)
    order = bench.sdk.order.create({"amount": 500, "currency": "INR", "receipt": "lost_1", "unique_receipt": True})
    bench.sim("POST", "/faults", route="POST /v1/payments/create/recurring", kind="error", when="after")
    with pytest.raises(ServerError):
        bench.sdk.payment.createRecurring(body(paid, order))
    found = bench.sdk.order.payments(order["id"])["items"]
    assert [each["status"] for each in found] == ["created"]
    again = bench.sdk.payment.createRecurring(body(paid, order))["razorpay_payment_id"]
    bench.advance(seconds=NOTICE_S + 1)
    assert reason(bench, found[0]["id"])[0] == "captured"
    assert reason(bench, again) == ("failed", "order_already_paid")


def test_its_events_are_signed_and_shuffled_as_the_others(bench: Bench, receiver: Receiver) -> None:
    bench.sim("POST", "/faults", event="payment.captured", kind="reorder")
    bench.sim("POST", "/faults", event="token.confirmed", kind="duplicate")
    mandate(bench)
    bench.sim("POST", "/webhooks/drain")
    until(lambda: len(receiver.got) == 6)
    assert sorted(receiver.names()) == [
        "invoice.paid", "order.paid", "payment.authorized", "payment.captured", "token.confirmed", "token.confirmed",
    ]  # fmt: skip
    assert len(set(receiver.ids("token.confirmed"))) == 1
    token = json.loads(next(raw for _, raw in receiver.got if b"token.confirmed" in raw))
    assert (token["contains"], list(token["payload"])) == (["token"], ["token"])
    invoice = json.loads(next(raw for _, raw in receiver.got if b"invoice.paid" in raw))
    assert (invoice["payload"]["invoice"]["entity"]["type"], KEY_SECRET in str(invoice)) == ("link", False)
