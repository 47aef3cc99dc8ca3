"""The routes of `/v1`, and paging of lists."""

from collections.abc import Callable, Iterable
from typing import Any

from sandbox.razorpay import addons, catalogue, invoices, links, payments, refunds, subscriptions, wire
from sandbox.razorpay.books import find
from sandbox.razorpay.entities import Json
from sandbox.razorpay.instruments import debits, qr_codes, registrations, shapes, tokens
from sandbox.razorpay.refusals import Refused, integer, notes, required
from sandbox.razorpay.router import Call, Handler

_DEFAULT_COUNT = 10
_MAX_COUNT = 100


def page(call: Call, kept: Iterable[Any]) -> list[Any]:
    """A page, newest first, within `from` and `to` (inclusive), `skip` and `count`."""
    query = dict(call.query)
    count, skip = integer(query, "count", _DEFAULT_COUNT), integer(query, "skip", 0)
    if count > _MAX_COUNT:
        raise Refused("The count may not be greater than 100.", field="count")
    begin, end = integer(query, "from", 0), integer(query, "to", 1 << 62)
    found = [each for each in kept if begin <= each.created_at <= end and each.created_at <= call.hidden_after]
    found.reverse()  # the books are oldest first
    found.sort(key=lambda each: each.created_at, reverse=True)
    return found[skip : skip + count]


def collection(call: Call, kept: Iterable[Any], shape: Callable[[Any], Json]) -> Json:
    """The envelope of a list; `count` is the size of this page."""
    items = [shape(each) for each in page(call, kept)]
    return {"entity": "collection", "count": len(items), "items": items}


def _filtered(call: Call, kept: Iterable[Any], *names: str) -> list[Any]:
    """Entities whose fields equal the query's."""
    wanted = {name: call.query[name] for name in names if call.query.get(name)}
    return [each for each in kept if all(getattr(each, name) == value for name, value in wanted.items())]


def _list(kept: str, shape: Callable[[Any], Json], *filters: str) -> Handler:
    """Makes the handler of a list."""
    return lambda call: collection(call, _filtered(call, getattr(call.books, kept).values(), *filters), shape)


def _fetch(kept: str, shape: Callable[[Any], Json]) -> Handler:
    """Makes the handler of a single fetch."""
    return lambda call: shape(find(getattr(call.books, kept), call.ids[0]))


def _renote(kept: str, shape: Callable[[Any], Json]) -> Handler:
    """Makes the handler that changes notes."""

    def handler(call: Call) -> Json:
        thing = find(getattr(call.books, kept), call.ids[0])
        thing.notes = notes(call.body)
        return shape(thing)

    return handler


def _list_links(call: Call) -> Json:
    """Links have an envelope of their own."""
    found = _filtered(call, call.books.links.values(), "reference_id")
    if call.query.get("payment_id"):
        found = [each for each in found if call.query["payment_id"] in each.payment_ids]
    return {"payment_links": [links.shown(call.books, each) for each in page(call, found)]}


def _delete_addon(call: Call) -> list[Json]:
    addons.delete(call.books, call.ids[0])
    return []


def _delete_item(call: Call) -> list[Json]:
    find(call.books.items, call.ids[0])
    del call.books.items[call.ids[0]]
    return []


def _delete_invoice(call: Call) -> list[Json]:
    invoices.delete(call.books, call.ids[0])
    return []


def _order_payments(call: Call) -> Json:
    order = find(call.books.orders, call.ids[0])
    return collection(call, [p for p in call.books.payments.values() if p.order_id == order.id], wire.payment)


def _payment_refunds(call: Call) -> Json:
    payment = find(call.books.payments, call.ids[0])
    return collection(call, [r for r in call.books.refunds.values() if r.payment_id == payment.id], wire.refund)


def _payment_refund(call: Call) -> Json:
    refund = find(call.books.refunds, call.ids[1])
    if refund.payment_id != call.ids[0]:
        raise Refused("The id provided does not exist")
    return wire.refund(refund)


def _refund(call: Call) -> Json:
    key = call.headers.get("x-refund-idempotency")
    return wire.refund(refunds.create(call.books, call.ids[0], call.body, key, call.now))


def _refund_by_body(call: Call) -> Json:
    body = dict(call.body)
    payment_id = str(required(body, "payment_id"))
    del body["payment_id"]
    return wire.refund(refunds.create(call.books, payment_id, body, call.headers.get("x-refund-idempotency"), call.now))


def _told(kept: str) -> Handler:
    """Makes the handler of a notification."""

    def handler(call: Call) -> Json:
        find(getattr(call.books, kept), call.ids[0])
        return {"success": True}

    return handler


def _no_offer(call: Call) -> Json:
    find(call.books.subscriptions, call.ids[0])
    raise Refused("Offer Not Found")


def _customer_tokens(call: Call) -> Json:
    owned = [shapes.token(each) for each in tokens.of_customer(call.books, call.ids[0], call.now)]
    return {"entity": "collection", "count": len(owned), "items": owned}


def _list_qr_codes(call: Call) -> Json:
    found = _filtered(call, call.books.qr_codes.values(), "customer_id")
    if call.query.get("payment_id"):
        paid = find(call.books.payments, call.query["payment_id"])
        found = [each for each in found if each.id == paid.qr_code_id]
    return collection(call, found, shapes.qr_code)


def _delete_token(call: Call) -> Json:
    """Razorpay forgets the token; the mandate at the bank stays."""
    tokens.owned(call.books, *call.ids).deleted = True
    return {"deleted": True}


def _cancel_token(call: Call) -> Json:
    tokens.cancel(call.books, tokens.owned(call.books, *call.ids), call.now)
    return {"status": "cancellation_initiated"}


_SUB, _INV, _LINK = "/v1/subscriptions/:id", "/v1/invoices/:id", "/v1/payment_links/:id"
_TOKENS, _QR = "/v1/customers/:id/tokens", "/v1/payments/qr_codes/:id"

ROUTES: dict[str, Handler] = {
    "POST /v1/customers": lambda c: wire.customer(catalogue.create_customer(c.books, c.body, c.now)),
    "PUT /v1/customers/:id": lambda c: wire.customer(catalogue.edit_customer(c.books, c.ids[0], c.body)),
    "GET /v1/customers": _list("customers", wire.customer),
    "GET /v1/customers/:id": _fetch("customers", wire.customer),
    "POST /v1/plans": lambda c: wire.plan(catalogue.create_plan(c.books, c.body, c.now)),
    "GET /v1/plans": _list("plans", wire.plan),
    "GET /v1/plans/:id": _fetch("plans", wire.plan),
    "POST /v1/items": lambda c: wire.item(catalogue.create_item(c.books, c.body, c.now)),
    "GET /v1/items": _list("items", wire.item),
    "GET /v1/items/:id": _fetch("items", wire.item),
    "PATCH /v1/items/:id": lambda c: wire.item(catalogue.edit_item(c.books, c.ids[0], c.body)),
    "DELETE /v1/items/:id": _delete_item,
    "POST /v1/subscriptions": lambda c: wire.subscription(subscriptions.create(c.books, c.body, c.now)),
    "GET /v1/subscriptions": _list("subscriptions", wire.subscription, "plan_id"),
    f"GET {_SUB}": _fetch("subscriptions", wire.subscription),
    f"PATCH {_SUB}": lambda c: wire.subscription(subscriptions.update(c.books, c.ids[0], c.body, c.now)),
    f"POST {_SUB}/cancel": lambda c: wire.subscription(subscriptions.cancel(c.books, c.ids[0], c.body, c.now)),
    f"POST {_SUB}/pause": lambda c: wire.subscription(subscriptions.pause(c.books, c.ids[0], c.now)),
    f"POST {_SUB}/resume": lambda c: wire.subscription(subscriptions.resume(c.books, c.ids[0], c.now)),
    f"GET {_SUB}/retrieve_scheduled_changes": lambda c: (
        wire.subscription(kept := subscriptions.scheduled(c.books, c.ids[0]))
        | {name: value for name, value in kept.changes.items() if name != "total_count"}
    ),
    f"POST {_SUB}/cancel_scheduled_changes": lambda c: wire.subscription(
        subscriptions.forget_changes(c.books, c.ids[0])
    ),
    f"POST {_SUB}/addons": lambda c: wire.addon(addons.create(c.books, c.ids[0], c.body, c.now)),
    f"DELETE {_SUB}/:id": _no_offer,
    "GET /v1/addons": _list("addons", wire.addon),
    "GET /v1/addons/:id": _fetch("addons", wire.addon),
    "DELETE /v1/addons/:id": _delete_addon,
    "POST /v1/invoices": lambda c: wire.invoice(invoices.create(c.books, c.body, c.now)),
    "GET /v1/invoices": _list("invoices", wire.invoice, "subscription_id", "payment_id", "receipt", "customer_id"),
    f"GET {_INV}": _fetch("invoices", wire.invoice),
    f"PATCH {_INV}": lambda c: wire.invoice(invoices.edit(c.books, c.ids[0], c.body, c.now)),
    f"POST {_INV}/issue": lambda c: wire.invoice(invoices.issue(c.books, c.ids[0], c.now)),
    f"POST {_INV}/cancel": lambda c: wire.invoice(invoices.cancel(c.books, c.ids[0], c.now)),
    f"POST {_INV}/notify_by/:medium": _told("invoices"),
    f"DELETE {_INV}": _delete_invoice,
    "POST /v1/orders": lambda c: wire.order(registrations.create_order(c.books, c.body, c.now)),
    "GET /v1/orders": _list("orders", wire.order, "receipt"),
    "GET /v1/orders/:id": _fetch("orders", wire.order),
    "PATCH /v1/orders/:id": _renote("orders", wire.order),
    "GET /v1/orders/:id/payments": _order_payments,
    "GET /v1/payments": _list("payments", wire.payment),
    "GET /v1/payments/:id": _fetch("payments", wire.payment),
    "PATCH /v1/payments/:id": _renote("payments", wire.payment),
    "POST /v1/payments/:id/capture": lambda c: wire.payment(payments.capture_again(c.books, c.ids[0])),
    "POST /v1/payments/:id/refund": _refund,
    "GET /v1/payments/:id/refunds": _payment_refunds,
    "GET /v1/payments/:id/refunds/:id": _payment_refund,
    "POST /v1/refunds": _refund_by_body,
    "GET /v1/refunds": _list("refunds", wire.refund),
    "GET /v1/refunds/:id": _fetch("refunds", wire.refund),
    "PATCH /v1/refunds/:id": _renote("refunds", wire.refund),
    "POST /v1/payment_links": lambda c: links.shown(c.books, links.create(c.books, c.body, c.now)),
    "GET /v1/payment_links": _list_links,
    f"GET {_LINK}": lambda c: links.shown(c.books, find(c.books.links, c.ids[0])),
    f"PATCH {_LINK}": lambda c: links.shown(c.books, links.edit(c.books, c.ids[0], c.body, c.now)),
    f"POST {_LINK}/cancel": lambda c: links.shown(c.books, links.cancel(c.books, c.ids[0], c.now)),
    f"POST {_LINK}/notify_by/:medium": _told("links"),
    "POST /v1/subscription_registration/auth_links": lambda c: wire.invoice(
        registrations.create(c.books, c.body, c.now)
    ),
    f"GET {_TOKENS}": _customer_tokens,
    f"GET {_TOKENS}/:id": lambda c: shapes.token(tokens.owned(c.books, *c.ids)),
    f"DELETE {_TOKENS}/:id": _delete_token,
    f"PUT {_TOKENS}/:id/cancel": _cancel_token,
    "POST /v1/payments/create/recurring": lambda c: debits.create(c.books, c.body, c.now),
    "POST /v1/payments/qr_codes": lambda c: shapes.qr_code(qr_codes.create(c.books, c.body, c.now)),
    "GET /v1/payments/qr_codes": _list_qr_codes,
    f"GET {_QR}": _fetch("qr_codes", shapes.qr_code),
    f"POST {_QR}/close": lambda c: shapes.qr_code(qr_codes.close(c.books, c.ids[0], c.now)),
    f"GET {_QR}/payments": lambda c: collection(c, qr_codes.paid_by(c.books, c.ids[0]), wire.payment),
    "GET /v1/disputes": _list("disputes", wire.dispute),
    "GET /v1/disputes/:id": _fetch("disputes", wire.dispute),
}
