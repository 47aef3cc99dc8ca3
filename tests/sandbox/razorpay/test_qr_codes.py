"""UPI QR codes: what is created, paid and closed."""

import pytest
from razorpay.errors import BadRequestError

from tests.sandbox.razorpay.bench import Bench, Json


def code(bench: Bench, **more: object) -> Json:
    made: Json = bench.sdk.qrcode.create(
        {
            "type": "upi_qr",
            "usage": "single_use",
            "fixed_amount": True,
            "payment_amount": 118_000,
            "description": "Top-up",
            "notes": {"topup": "t1"},
            **more,
        }
    )
    return made


def events(bench: Bench, key: str) -> list[str]:
    found = bench.sim("GET", "/webhooks")["deliveries"]
    return [each["event"] for each in found if key in each["body"]]


def test_a_code_for_one_payment_is_closed_by_it(bench: Bench) -> None:
    made = code(bench)
    assert (made["entity"], made["status"], made["close_by"]) == ("qr_code", "active", made["created_at"] + 7200)
    assert made["image_content"].startswith("upi://pay?")
    assert "am=1180.00" in made["image_content"]
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/qr_codes/{made['id']}/pay", amount=100)
    paid = bench.sim("POST", f"/qr_codes/{made['id']}/pay")
    assert (paid["status"], paid["order_id"], paid["notes"]) == ("captured", None, {"topup": "t1"})
    done = bench.sdk.qrcode.fetch(made["id"])
    assert (done["status"], done["close_reason"], done["payments_amount_received"]) == ("closed", "paid", 118_000)
    assert [each["id"] for each in bench.sdk.qrcode.fetch_all_payments(made["id"])["items"]] == [paid["id"]]
    assert bench.sdk.qrcode.all({"payment_id": paid["id"]})["items"] == [done]
    assert events(bench, made["id"]) == ["qr_code.created", "qr_code.credited"]
    row = next(each for each in bench.sim("GET", "/money")["payments"] if each["payment_id"] == paid["id"])
    assert (row["kind"], row["kept"], row["qr_code_id"]) == ("qr", 118_000, made["id"])
    with pytest.raises(Exception, match="400"):
        bench.sim("POST", f"/qr_codes/{made['id']}/pay")


def test_a_close_is_told_and_an_expiry_is_not(bench: Bench) -> None:
    made, other = code(bench), code(bench, close_by=bench.now() + 86_400)
    assert other["close_by"] == other["created_at"] + 7200  # cut to two hours
    assert bench.sdk.qrcode.close(made["id"])["close_reason"] == "on_demand"
    with pytest.raises(BadRequestError, match="already closed"):
        bench.sdk.qrcode.close(made["id"])
    bench.advance(seconds=7201)
    assert bench.sdk.qrcode.fetch(other["id"])["status"] == "closed"
    assert events(bench, made["id"])[-1] == "qr_code.closed"
    assert events(bench, other["id"]) == ["qr_code.created"]
    late = bench.sim("POST", f"/qr_codes/{other['id']}/pay", late=True)
    assert late["status"] == "captured"
    assert bench.sdk.qrcode.fetch(other["id"])["payments_amount_received"] == 0
    assert [each["id"] for each in bench.sdk.qrcode.fetch_all_payments(other["id"])["items"]] == [late["id"]]


def test_a_code_for_many_payments_stays(bench: Bench) -> None:
    made = code(bench, usage="multiple_use", fixed_amount=False)
    assert (made["close_by"], made["payment_amount"]) == (None, None)
    for amount in (500, 700):
        bench.sim("POST", f"/qr_codes/{made['id']}/pay", amount=amount)
    failed = bench.sim("POST", f"/qr_codes/{made['id']}/pay", amount=900, outcome="payment_timed_out")
    assert failed["status"] == "failed"
    done = bench.sdk.qrcode.fetch(made["id"])
    assert (done["status"], done["payments_count_received"], done["payments_amount_received"]) == ("active", 2, 1200)
    for change in ({"usage": "multiple_use", "close_by": bench.now() + 600}, {"fixed_amount": False}, {"unknown": 1}):
        with pytest.raises(BadRequestError):
            code(bench, **change)


def test_its_page_pays_it(bench: Bench) -> None:
    made = code(bench)
    status, page, _ = bench.post_form(made["image_url"], method="upi", outcome="ok")
    assert (status, "Thank you" in page) == (200, True)
    assert bench.sdk.qrcode.fetch(made["id"])["status"] == "closed"
