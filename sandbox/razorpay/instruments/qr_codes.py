"""UPI QR codes: created, scanned, closed.

A code for one payment has a fixed amount and lives for two hours at most; a longer `close_by` is cut. Its payment
closes it. `qr_code.closed` is sent for a close by the merchant only. Assumption: a payment that the bank completes
after the close is captured and leaves the code as it was (`late`).
"""

from typing import Any
from urllib.parse import urlencode

from sandbox.razorpay import events, payments, wire
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.entities import Payment
from sandbox.razorpay.instruments import shapes
from sandbox.razorpay.instruments.entities import QrCode
from sandbox.razorpay.payments import OK
from sandbox.razorpay.refusals import Refused, amount, flag, integer, notes, only, required

Json = dict[str, Any]

_FIELDS = {
    "type", "name", "usage", "fixed_amount", "payment_amount", "description", "customer_id", "close_by", "notes",
}  # fmt: skip
_SOONEST_S, _LATEST_S = 120, 7200
_VPA = "naka.sandbox@exampleupi"


def create(books: Books, body: Json, now: int) -> QrCode:
    """`POST /v1/payments/qr_codes`; raises Refused."""
    only(body, _FIELDS)
    usage, fixed = str(required(body, "usage")), flag(body, "fixed_amount")
    if required(body, "type") != "upi_qr" or usage not in ("single_use", "multiple_use"):
        raise Refused("The selected type or usage is invalid.", field="type")
    if usage == "single_use" and not fixed:
        raise Refused("The fixed amount must be true for single use.", field="fixed_amount")
    if body.get("customer_id"):
        find(books.customers, str(body["customer_id"]))
    paise = amount(body, "payment_amount", text="The payment amount must be at least 1.") if fixed else None
    key = new_id("qr")
    made = QrCode(
        id=key,
        name=body.get("name"),
        usage=usage,
        image_url=books.page(key),
        image_content=_content(key, paise),
        payment_amount=paise,
        description=body.get("description"),
        fixed_amount=fixed,
        notes=notes(body),
        customer_id=body.get("customer_id"),
        close_by=_close_by(body, usage, now),
        created_at=now,
    )
    books.qr_codes[key] = made
    events.emit(books, now, "qr_code.created", {"qr_code": shapes.qr_code(made)})
    return made


def _content(key: str, paise: int | None) -> str:
    """The link in the code, for a UPI app."""
    fields = {"ver": "01", "mode": "15", "pa": _VPA, "pn": "Naka", "tr": key, "cu": "INR"}
    if paise is not None:
        fields["am"] = payments.rupees(paise)
    return f"upi://pay?{urlencode(fields)}"


def _close_by(body: Json, usage: str, now: int) -> int | None:
    if usage == "multiple_use":
        if body.get("close_by") is not None:
            raise Refused("close_by is/are not required and should not be sent", field="close_by")
        return None
    asked = integer(body, "close_by", now + _LATEST_S)
    if asked < now + _SOONEST_S:
        raise Refused("close_by should be at least 2 minutes after current time", field="close_by")
    return min(asked, now + _LATEST_S)


def close(books: Books, key: str, now: int) -> QrCode:
    """`POST .../close`."""
    code = find(books.qr_codes, key)
    if code.status == "closed":
        raise Refused("QR Code is already closed")
    _end(code, "on_demand", now)
    events.emit(books, now, "qr_code.closed", {"qr_code": shapes.qr_code(code)})
    return code


def expire(code: QrCode, now: int) -> None:
    """Its time is over; no event. Assumption: no reason is given."""
    _end(code, None, now)


def _end(code: QrCode, reason: str | None, now: int) -> None:
    code.status, code.closed_at, code.close_reason = "closed", now, reason


def pay(books: Books, key: str, paise: int | None, now: int, *, reason: str = OK, late: bool = False) -> Payment:
    """The code is scanned and paid; raises Refused for another amount or a closed code."""
    code = find(books.qr_codes, key)
    if code.status == "closed" and not late:
        raise Refused("The QR code is closed.")
    given = code.payment_amount if paise is None else paise
    if given is None or (code.fixed_amount and given != code.payment_amount):
        raise Refused("The amount is not the amount of the QR code.", field="amount")
    payment = payments.new_payment(books, now, None, "upi", paise=given, kind="qr", description="QRv2 Payment")
    payment.notes, payment.customer_id, payment.qr_code_id = dict(code.notes), code.customer_id, code.id
    if reason != OK:
        payments.fail(books, payment, reason, now)
        return payment
    payments.capture(books, payment, now)
    if code.status == "active":
        code.payments_amount_received += given
        code.payments_count_received += 1
        if code.usage == "single_use":
            _end(code, "paid", now)
    events.emit(books, now, "qr_code.credited", {"payment": wire.payment(payment), "qr_code": shapes.qr_code(code)})
    return payment


def paid_by(books: Books, key: str) -> list[Payment]:
    """The captured payments of a code."""
    find(books.qr_codes, key)
    return [each for each in books.payments.values() if each.qr_code_id == key and each.status != "failed"]
