"""Events as signed bytes, in the shapes of Razorpay's documented payloads.

An event is a snapshot, with the secrets of its time.
"""

import json
from typing import Any

from sandbox.razorpay import wire
from sandbox.razorpay.books import Books, new_id
from sandbox.razorpay.entities import Dispute, Event, Invoice, Link, Order, Payment, Refund, Subscription

Json = dict[str, Any]


def emit(books: Books, now: int, name: str, payload: dict[str, Json]) -> None:
    """Adds an event; `payload` maps entity names to entities, in the order of `contains`."""
    body = {
        "entity": "event",
        "account_id": books.account_id,
        "event": name,
        "contains": list(payload),
        "payload": {key: {"entity": value} for key, value in payload.items()},
        "created_at": now,
    }
    raw = json.dumps(body, separators=(",", ":"), sort_keys=name.startswith("payment_link.")).encode()
    event = Event(id=new_id(""), name=name, body=raw, secret=books.secret, old_secret=books.old_secret, created_at=now)
    books.events.append(event)


def subscription(books: Books, now: int, name: str, kept: Subscription, payment: Payment | None = None) -> None:
    """`subscription.<name>`; the copy of the payment says `captured` as the string "1"."""
    copy = wire.subscription(kept) | {"short_url": None, "type": 2}
    payload = {"subscription": copy}
    if payment is not None:
        payload["payment"] = wire.payment(payment) | {"captured": "1", "amount_transferred": 0}
        if not (payment.international or books.settings.indian_cards_in_events):
            payload["payment"].pop("card", None)
    emit(books, now, f"subscription.{name}", payload)


def payment(books: Books, now: int, name: str, kept: Payment) -> None:
    """`payment.<name>`."""
    emit(books, now, f"payment.{name}", {"payment": wire.payment(kept)})


def order_paid(books: Books, now: int, kept: Order, by: Payment) -> None:
    """`order.paid`."""
    emit(books, now, "order.paid", {"payment": wire.payment(by), "order": wire.order(kept)})


def invoice_paid(books: Books, now: int, kept: Invoice, order: Order, by: Payment) -> None:
    """`invoice.paid`; without lines and the subscription's id, as in the samples."""
    copy = wire.invoice(kept)
    copy.pop("line_items")
    copy.pop("subscription_id", None)
    copy |= {"first_payment_min_amount": None, "supply_state_code": None, "user_id": None, "reminder_status": None}
    emit(books, now, "invoice.paid", {"payment": wire.payment(by), "order": wire.order(order), "invoice": copy})


def invoice_expired(books: Books, now: int, kept: Invoice) -> None:
    """`invoice.expired`."""
    emit(books, now, "invoice.expired", {"invoice": wire.invoice(kept)})


def link_paid(books: Books, now: int, kept: Link, order: Order, by: Payment) -> None:
    """`payment_link.paid`; its order is a raw one, without the prefix."""
    raw: Json = {
        "amount": order.amount, "amount_due": 0, "amount_paid": order.amount_paid, "attempts": order.attempts,
        "authorized": True, "created_at": order.created_at, "currency": order.currency,
        "id": order.id.removeprefix("order_"), "merchant_id": books.account_id.removeprefix("acc_"), "notes": [],
        "partial_payment": False, "payment_capture": True, "product_id": kept.id.removeprefix("plink_"),
        "product_type": "payment_link_v2", "receipt": kept.reference_id, "status": "paid", "updated_at": now,
    }  # fmt: skip
    copy = wire.link(kept, [])
    del copy["payments"]
    payload = {"payment_link": copy, "order": raw, "payment": wire.payment(by)}
    emit(books, now, "payment_link.paid", payload)


def link(books: Books, now: int, name: str, kept: Link) -> None:
    """`payment_link.cancelled` and `.expired`."""
    emit(books, now, f"payment_link.{name}", {"payment_link": wire.link(kept, [])})


def refund(books: Books, now: int, name: str, kept: Refund, of: Payment) -> None:
    """`refund.<name>`."""
    emit(books, now, f"refund.{name}", {"refund": wire.refund(kept), "payment": wire.payment(of)})


def dispute(books: Books, now: int, name: str, kept: Dispute, of: Payment) -> None:
    """`payment.dispute.<name>`."""
    emit(books, now, f"payment.dispute.{name}", {"payment": wire.payment(of), "dispute": wire.dispute(kept)})
