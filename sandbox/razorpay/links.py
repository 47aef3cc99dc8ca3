"""Payment links, one per reference for ever, paid on their page."""

import re
from typing import Any

from sandbox.razorpay import authorisation, events, payments, wire
from sandbox.razorpay.books import Books, find, new_id
from sandbox.razorpay.calendar import DAY_S
from sandbox.razorpay.entities import Link, Method, Payment
from sandbox.razorpay.payments import OK
from sandbox.razorpay.refusals import MIN_AMOUNT_PAISE, Refused, flag, integer, notes

Json = dict[str, Any]

_SOONEST_S = 15 * 60
_LATEST_S = 183 * DAY_S
_MAX_REFERENCE = 40
_MAX_DESCRIPTION = 2048
_MAX_NOTE = 255
_NAME = re.compile(r"[A-Za-z0-9.'/@() ]{3,50}")
_OPEN = ("created", "partially_paid")


def shown(books: Books, link: Link) -> Json:
    """The link in the API's form."""
    return wire.link(link, [books.payments[key] for key in link.payment_ids])


def create(books: Books, body: Json, now: int) -> Link:
    """`POST /v1/payment_links`; raises Refused, also for a reference used before."""
    if body.get("upi_link"):
        raise Refused("UPI Payment Links is not supported in Test Mode. Please experience the product in Live Mode.")
    paise = integer(body, "amount", 0)
    if paise == 0:
        raise Refused("amount: cannot be blank.")
    if paise < MIN_AMOUNT_PAISE:
        raise Refused("amount: amount should be minimum 1.00 for INR.")
    reference = str(body.get("reference_id") or "")
    _check_reference(books, reference)
    description = str(body.get("description") or "")
    if len(description) > _MAX_DESCRIPTION:
        raise Refused("description: the length must be no more than 2048.")
    _refuse_partial(body)
    _check_payer(body)
    key = new_id("plink")
    made = Link(
        id=key,
        amount=paise,
        currency=str(body.get("currency") or "INR"),
        callback_method=str(body.get("callback_method") or ""),
        callback_url=str(body.get("callback_url") or ""),
        created_at=now,
        customer=dict(body.get("customer") or {}),
        description=description,
        expire_by=_expiry(body, now),
        notes=_notes(body),
        notify={"email": False, "sms": False, "whatsapp": False} | dict(body.get("notify") or {}),
        reference_id=reference,
        reminder_enable=flag(body, "reminder_enable"),
        short_url=books.page(key),
        updated_at=now,
    )
    books.links[key] = made
    return made


def _check_reference(books: Books, reference: str) -> None:
    if len(reference) > _MAX_REFERENCE:
        raise Refused("reference_id: the length must be no more than 40.")
    if reference and any(known.reference_id == reference for known in books.links.values()):
        raise Refused(
            f"payment link with given reference_id: {reference} already exists. "
            "Please create a payment link with a different reference_id"
        )


def _check_payer(body: Json) -> None:
    """Checks the documented form of a name; empty is accepted. Assumption: the message."""
    name = str((body.get("customer") or {}).get("name") or "")
    if name and not _NAME.fullmatch(name):
        raise Refused("customer.name: the name format is invalid.")


def _refuse_partial(body: Json) -> None:
    """Refuses partial payment, which is not simulated; the message is our own."""
    if flag(body, "accept_partial"):
        raise Refused("accept_partial: this simulator has no partial payments", field="accept_partial")


def _expiry(body: Json, now: int) -> int:
    at = integer(body, "expire_by", 0)
    if at == 0:
        return now + _LATEST_S
    if at < now + _SOONEST_S:
        raise Refused("timestamp must be atleast 15 minutes in future")
    if at > now + _LATEST_S:
        raise Refused("expire_by: must be within 6 months")
    return at


def _notes(body: Json) -> dict[str, str]:
    marks = notes(body)
    if any(len(text) > _MAX_NOTE for text in marks.values()):
        raise Refused("value: the length must not be greater than 255.")
    return marks


def edit(books: Books, key: str, body: Json, now: int) -> Link:
    """`PATCH /v1/payment_links/:id`."""
    link = find(books.links, key)
    if link.status not in _OPEN:
        raise Refused("update can only be made in created or partially paid state")
    _refuse_partial(body)
    if body.get("reference_id") and body["reference_id"] != link.reference_id:
        _check_reference(books, str(body["reference_id"]))
        link.reference_id = str(body["reference_id"])
    if "expire_by" in body:
        link.expire_by = _expiry(body, now)
    if "notes" in body:
        link.notes = _notes(body)
    link.reminder_enable = flag(body, "reminder_enable", default=link.reminder_enable)
    link.updated_at = now
    return link


def cancel(books: Books, key: str, now: int) -> Link:
    """`POST .../cancel`, from `created` only."""
    link = find(books.links, key)
    if link.status in ("paid", "partially_paid"):
        raise Refused("cannot cancel or expire an already paid/partially paid link")
    if link.status == "expired":
        raise Refused("cannot cancel or expire an expired link")
    if link.status == "cancelled":
        raise Refused("cannot cancel or expire a cancelled link")
    link.status, link.cancelled_at, link.updated_at = "cancelled", now, now
    events.link(books, now, "cancelled", link)
    return link


def pay(books: Books, key: str, method: Method, now: int, *, reason: str = OK, late: bool = False) -> Payment:
    """Pays on the page; `late`: the bank answers after the link was closed. Raises Refused.

    Razorpay keeps a late payment and doesn't change the link's status; an assumption.
    """
    link = find(books.links, key)
    if link.status not in _OPEN and not late:
        raise Refused(f"This payment link is {link.status}.")
    if link.order_id is None:
        link.order_id = payments.new_order(books, now, link.amount, link.currency, receipt=link.reference_id).id
    order = books.orders[link.order_id]
    text = f"#{link.id.removeprefix('plink_')}"
    payment = payments.new_payment(books, now, order, method, paise=link.amount, kind="link", description=text)
    payment.link_id, payment.notes = link.id, dict(link.notes)
    payment.email, payment.contact = link.customer.get("email"), link.customer.get("contact")
    link.payment_ids.append(payment.id)
    link.updated_at = now
    if reason != OK:
        payments.fail(books, payment, reason, now)
        return payment
    payments.capture(books, payment, now)
    if link.status in _OPEN:
        link.status, link.amount_paid = "paid", link.amount
        events.order_paid(books, now, order, payment)
        events.link_paid(books, now, link, order, payment)
    return payment


def callback(books: Books, link: Link, payment: Payment) -> dict[str, str]:
    """The signed parameters of the payer's return."""
    return {
        "razorpay_payment_id": payment.id,
        "razorpay_payment_link_id": link.id,
        "razorpay_payment_link_reference_id": link.reference_id,
        "razorpay_payment_link_status": link.status,
        "razorpay_signature": authorisation.signed(
            books.key_secret, link.id, link.reference_id, link.status, payment.id
        ),
    }
