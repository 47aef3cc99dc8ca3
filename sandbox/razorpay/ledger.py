"""The ledger for tests: all entities, including hidden fields, and sums of money."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sandbox.razorpay import links, wire
from sandbox.razorpay.books import Books
from sandbox.razorpay.deliveries import Parcel
from sandbox.razorpay.entities import Json
from sandbox.razorpay.instruments import debits, shapes

_SHOWN: dict[str, Callable[[Any], Json]] = {
    "subscriptions": wire.subscription,
    "invoices": wire.invoice,
    "payments": wire.payment,
    "refunds": wire.refund,
    "tokens": shapes.token,
    "qr_codes": shapes.qr_code,
}
_PLAIN = ("plans", "customers", "items", "addons", "orders", "disputes")


def entities(books: Books) -> Json:
    """All entities by kind, oldest first."""
    kept: Json = {
        name: [{**asdict(each), **shape(each)} for each in getattr(books, name).values()]
        for name, shape in _SHOWN.items()
    }
    kept["debits"] = [debits.shown(books, each) for each in books.debits.values()]
    kept["links"] = [links.shown(books, each) for each in books.links.values()]
    for name in _PLAIN:
        kept[name] = [asdict(each) for each in getattr(books, name).values()]
    return kept


def money(books: Books) -> Json:
    """Collected and refunded paise of each payment with its purpose, and totals. Failed payments count 0.

    A lost dispute is listed, not subtracted.
    """
    rows = [_row(books, key) for key in books.payments]
    totals = {name: sum(row[name] for row in rows) for name in ("collected", "refunded", "kept")}
    return {"totals": totals, "payments": rows}


def _row(books: Books, key: str) -> Json:
    paid = books.payments[key]
    collected = paid.amount if paid.status in ("captured", "refunded") else 0
    refunds = [each for each in books.refunds.values() if each.payment_id == key]
    refunded = sum(each.amount for each in refunds if each.status != "failed")
    return {
        "payment_id": key,
        "kind": paid.kind,
        "status": paid.status,
        "method": paid.method,
        "international": paid.international,
        "created_at": paid.created_at,
        "amount": paid.amount,
        "collected": collected,
        "refunded": refunded,
        "kept": collected - refunded,
        "order_id": paid.order_id,
        "invoice_id": paid.invoice_id,
        "link_id": paid.link_id,
        "qr_code_id": paid.qr_code_id,
        "token_id": paid.token_id,
        "subscription_id": paid.subscription_id,
        "refund_ids": [each.id for each in refunds],
        "disputes": [{"id": d.id, "status": d.status} for d in books.disputes.values() if d.payment_id == key],
    }


def delivery(parcel: Parcel) -> Json:
    """An event and its delivery."""
    event = parcel.event
    return {
        "event_id": event.id,
        "event": event.name,
        "created_at": event.created_at,
        "state": parcel.state,
        "due": parcel.due,
        "attempts": parcel.attempts,
        "body": event.body.decode(),
    }
